"""The publisher: shapes publications and commits them, once each, in the order of the queue."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from actors.errors import GapError, MessageError
from actors.message import (
    FIRST_ID,
    WHOLE_BRACE,
    Ack,
    Batch,
    Entry,
    Meta,
    Span,
    bury,
    check_channel,
    check_counts,
    decode_batch,
    decode_json,
    decode_meta,
    encode_json,
    id_key,
    without_newlines,
)
from actors.metrics import Numbers
from actors.partition import partition_of
from actors.settings.tree import ChannelSettings
from actors.store.interface import Claim, Commit, Committed, Group, Ledger

log = logging.getLogger(__name__)

_NO_META: Final = Meta()


class Groups:
    """Publications for one partition, grouped by channel, in order within each channel."""

    def __init__(self) -> None:
        self.all: list[Group] = []
        self._open: dict[str, Group] = {}

    def add(self, entry: Entry, meta: Meta, options: ChannelSettings, body: bytes) -> None:
        """Append one publication."""
        keeps = options.has_history and not meta.skip_history
        group = self._open.get(entry.channel)
        if group is None or (group.history_size > 0) != keeps:
            group = Group(
                channel=entry.channel,
                bodies=[],
                ids=[],
                history_size=options.history_size if keeps else 0,
                history_ttl_s=options.history_ttl_s,
                meta_ttl_s=options.history_meta_ttl_s,
            )
            self._open[entry.channel] = group
            self.all.append(group)
        index = len(group.bodies)
        group.bodies.append(body)
        group.ids.append((entry.partition, entry.id))
        if meta is _NO_META:
            return
        if meta.key:
            group.keys[index] = meta.key
        if meta.count:
            group.counts[index] = meta.count
        if meta.version and keeps:
            group.versions[index] = (meta.version, meta.version_epoch)
        if meta.wait:
            group.waits[index] = (entry.partition, meta.wait)


class Publisher:
    """Commit batches to Valkey.

    Promises: each entry takes effect once in every partition it goes to, however often its batch
    comes and whoever sends it (every commit claims its stretch of the source, a compare-and-set);
    a batch is committed only after the one before it of the same run. Publications that went to
    partitions other than their source's are committed before the source's own part, whose
    `applied` is the checkpoint: it never stands ahead of what is applied.

    For a transform whose output differs when it runs again, this holds for each partition by
    itself.

    Args:
        ledger: Where commits go.
        channel_settings: What holds for a channel; None where its namespace is unknown.
        partitions: How many there are.
        numbers: For status.
    """

    def __init__(
        self,
        ledger: Ledger,
        channel_settings: Callable[[str], ChannelSettings | None],
        numbers: Numbers,
        *,
        partitions: int,
    ) -> None:
        self._ledger = ledger
        self._channel_settings = channel_settings
        self._numbers = numbers
        self._partitions = partitions
        self._run = ""
        self._next = 0
        # (target, source) -> what we know to be applied there. A hint: the commit checks it.
        self._applied: dict[tuple[int, int], str] = {}
        self._known: dict[str, ChannelSettings] = {}

    def commit(self, blob: bytes, run: str, number: int) -> None:
        """Commit one batch, the `number`-th of a nozzle's run.

        Raises:
            GapError: What comes before it is not committed; nothing of its own partitions was.
            UnavailableError: The server did not answer; the batch may or may not have taken
                effect, in whole partitions.
        """
        if number == 0:
            self._run, self._next = run, 0
        if (run, number) != (self._run, self._next):
            raise GapError(f"batch {number} of run {run} comes out of turn")
        began_s = time.perf_counter()
        batch = decode_batch(blob)
        own, foreign = self._shape(batch)
        results = self._commit_foreign(batch.spans, foreign)
        self._commit_own(batch, own, results)
        self._next += 1
        self._numbers.latency("commit").record(time.perf_counter() - began_s)
        self._numbers.count("batches")

    # --- shaping

    def _shape(self, batch: Batch) -> tuple[dict[int, Groups], dict[int, dict[int, Groups]]]:
        """Return groups by source for the sources themselves, and by target for the others."""
        own = {span.partition: Groups() for span in batch.spans}
        foreign: dict[int, dict[int, Groups]] = {}
        for entry in batch.entries:
            try:
                meta = decode_meta(entry.meta) if entry.meta else _NO_META
                if meta.probe:
                    batch.acks.append(Ack(entry.partition, meta.wait))
                    continue
                options = self._options(entry)
                body = self._body(entry, meta, options)
            except MessageError as error:
                bury(batch, entry, str(error), died_at_s=time.time())
                continue
            target = partition_of(entry.channel, self._partitions)
            if target == entry.partition:
                groups = own[target]
            else:
                sources = foreign.setdefault(target, {})
                groups = sources.setdefault(entry.partition, Groups())
            groups.add(entry, meta, options, body)
        return own, foreign

    def _options(self, entry: Entry) -> ChannelSettings:
        options = self._known.get(entry.channel)
        if options is None:
            check_channel(entry.channel)
            options = self._channel_settings(entry.channel)
            if options is None:
                raise MessageError(f"channel {entry.channel}: unknown namespace")
            if len(self._known) >= 100_000:
                self._known.clear()
            self._known[entry.channel] = options
        return options

    def _body(self, entry: Entry, meta: Meta, options: ChannelSettings) -> bytes:
        data = entry.data
        if not entry.checked:
            value = decode_json(data)
            data = _countable(value, meta) if meta.count else without_newlines(data)
        wants_whole = options.allowed_delta_types and not (options.delta_publish or meta.delta)
        brace = WHOLE_BRACE if wants_whole else b"{"
        if meta is _NO_META or not (meta.tags or meta.info):
            return brace + b'"data":' + data + b"}"
        head = {}
        if meta.tags:
            head["tags"] = encode_json(meta.tags)
        if meta.info:
            head["info"] = encode_json(meta.info)
        parts = [b'"' + name.encode() + b'":' + text for name, text in head.items()]
        return brace + b",".join([*parts, b'"data":' + data]) + b"}"

    # --- committing

    def _commit_foreign(
        self, spans: Sequence[Span], foreign: dict[int, dict[int, Groups]]
    ) -> list[Ack]:
        results: list[Ack] = []
        if not foreign:
            return results
        of_source = {span.partition: span for span in spans}
        commits = [
            self._foreign_commit(target, sources, of_source) for target, sources in foreign.items()
        ]
        for committed in self._settle(commits):
            results += committed.acks
        return results

    def _foreign_commit(
        self, target: int, sources: dict[int, Groups], spans: dict[int, Span]
    ) -> Commit:
        claims = []
        known: dict[int, tuple[int, int]] = {}
        for source in sources:
            after, upto = self._applied.get((target, source), FIRST_ID), spans[source].upto
            known[source] = id_key(after)
            # Where all is known to be applied the claim is empty: it checks that it still is.
            claims.append(Claim(source, after, max(after, upto, key=id_key)))
        groups = [group for groups in sources.values() for group in groups.all]
        # A batch that comes again, after its own part had failed.
        if any(known[source] > id_key(spans[source].after) for source in sources):
            groups = _groups_without(groups, known)
        return Commit(partition=target, claims=claims, groups=groups, acks=[], dead=[])

    def _commit_own(self, batch: Batch, own: dict[int, Groups], results: list[Ack]) -> None:
        first_id: dict[int, str] = {}
        for entry in batch.entries:
            first_id.setdefault(entry.partition, entry.id)
        commits = []
        for span in batch.spans:
            p = span.partition
            self._applied[p, p] = span.after
            commits.append(
                Commit(
                    partition=p,
                    claims=[Claim(p, span.after, span.upto)],
                    groups=own[p].all,
                    acks=[ack for ack in (*batch.acks, *results) if ack.partition == p],
                    dead=[letter for letter in batch.dead if letter.partition == p],
                    queued_at_s=_arrived_s(first_id.get(p, span.upto)),
                    own=True,
                )
            )
        self._settle(commits)
        self._numbers.count("dead", len(batch.dead))

    def _settle(self, commits: list[Commit]) -> list[Committed]:
        """Commit all; where a claim did not hold, take out what is applied already and go on."""
        settled = []
        while commits:
            replies = self._ledger.commit(commits)
            self._numbers.count("commits", len(commits))
            again = []
            for commit, reply in zip(commits, replies, strict=True):
                if reply.done:
                    settled.append(reply)
                    self._numbers.count("publications", sum(len(g.bodies) for g in commit.groups))
                    for claim in commit.claims:
                        self._applied[commit.partition, claim.source] = claim.upto
                else:
                    self._numbers.count("conflicts")
                    rest = self._without_applied(commit, reply.applied)
                    if rest is not None:
                        again.append(rest)
            commits = again
        return settled

    def _without_applied(self, commit: Commit, applied: list[str]) -> Commit | None:
        """Return what is left of a commit whose claims did not hold; None: nothing.

        Raises:
            GapError: Less is applied than we know to have been: the server lost data.
        """
        claims = []
        done: dict[int, tuple[int, int]] = {}
        for claim, found in zip(commit.claims, applied, strict=True):
            if id_key(found) < id_key(claim.after):
                self._applied.clear()
                raise GapError(
                    f"partition {commit.partition} has applied {found} of source {claim.source}, "
                    f"not {claim.after}"
                )
            self._applied[commit.partition, claim.source] = found
            done[claim.source] = id_key(found)
            if id_key(found) < id_key(claim.upto):
                claims.append(Claim(claim.source, found, claim.upto))
        if not claims:
            return None
        commit.claims = claims
        commit.groups = _groups_without(commit.groups, done)
        commit.dead = [
            letter for letter in commit.dead if id_key(letter.id) > done[letter.partition]
        ]
        return commit


def _groups_without(groups: Sequence[Group], done: dict[int, tuple[int, int]]) -> list[Group]:
    """Return what is left of groups, without the bodies whose entries are applied already."""
    rest = [_without(group, done) for group in groups]
    return [group for group in rest if group.bodies]


def _without(group: Group, done: dict[int, tuple[int, int]]) -> Group:
    """Return a group without the bodies whose entries are applied already."""
    kept = [
        index
        for index, (source, entry_id) in enumerate(group.ids)
        if id_key(entry_id) > done[source]
    ]
    places = {old: new for new, old in enumerate(kept)}
    return Group(
        channel=group.channel,
        bodies=[group.bodies[index] for index in kept],
        ids=[group.ids[index] for index in kept],
        history_size=group.history_size,
        history_ttl_s=group.history_ttl_s,
        meta_ttl_s=group.meta_ttl_s,
        keys={places[i]: key for i, key in group.keys.items() if i in places},
        counts={places[i]: amounts for i, amounts in group.counts.items() if i in places},
        versions={places[i]: version for i, version in group.versions.items() if i in places},
        waits={places[i]: wait for i, wait in group.waits.items() if i in places},
    )


def _countable(value: object, meta: Meta) -> bytes:
    """Return data, written by ourselves, that totals can be put into."""
    if not isinstance(value, dict) or not value:
        raise MessageError("count needs data that is a non-empty object")
    check_counts(meta.count)
    return encode_json(value)


def _arrived_s(entry_id: str) -> float:
    return id_key(entry_id)[0] / 1000
