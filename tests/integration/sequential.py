"""What one sequential run makes of messages: the model that commits are held to."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from actors.message import (
    FIRST_ID,
    Batch,
    Entry,
    Meta,
    decode_json,
    decode_meta,
    encode_json,
    id_key,
)
from actors.partition import partition_of
from actors.settings.tree import ChannelSettings
from actors.store.interface import Claim, FeedRecord, NewMessage

PARTITIONS = 3
SIZES = {"kept": 10_000, "short": 2, "plain": 0}
SETTINGS = {
    name: ChannelSettings(history_size=size, history_ttl_s=600 if size else 0)
    for name, size in SIZES.items()
}


def channel_of(kind: str, partition: int) -> str:
    """Name a channel of a namespace that belongs to a partition."""
    names = (f"{kind}:{n}" for n in range(100))
    return next(name for name in names if partition_of(name, PARTITIONS) == partition)


CHANNELS = tuple(channel_of(kind, p) for kind in SIZES for p in range(PARTITIONS))


Wish = tuple[list[str], str, int, int, bool, bool, tuple[int, str]]
"""Channels, fault, number of the key, amount to count, skips history, waits, version and epoch."""

B53 = 2**53
"""A number that a double cannot tell from the next one."""

# One often, so that batches have several publications for it.
_OFTEN = (*CHANNELS, *CHANNELS[:1] * 9)
WISHES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(_OFTEN), max_size=2),
        st.sampled_from(["", "", "", "", "", "data", "meta", "channel"]),
        st.sampled_from([0, 0, 1, 2]),
        st.sampled_from([0, 0, 1, 5]),
        st.sampled_from([False, False, False, False, True]),
        st.booleans(),
        st.sampled_from([*[(0, "")] * 3, (9, ""), (10, ""), (9, "a"), (B53, "a"), (B53 + 1, "a")]),
    ),
    min_size=2,
    max_size=8,
)


def settings_of(channel: str) -> ChannelSettings | None:
    """What holds for a channel; None: its namespace is unknown."""
    return SETTINGS.get(channel.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as a producer wrote it, for a queue.

    Attributes:
        number: Its own.
        source: The queue's partition.
        channels: Where the transform sends it; none: it is dropped.
        fault: Why it cannot be read; empty: it can.
        meta: Key, counts and so on.
    """

    number: int
    source: int
    channels: tuple[str, ...]
    fault: str
    meta: Meta

    def message(self) -> NewMessage:
        """Return what stands in the queue."""
        meta = b"{" if self.fault == "meta" else encode_json(self.meta)
        data = encode_json({"n": self.number, "s": self.source, "to": self.channels})
        channel = "no such:channel" if self.fault == "channel" else channel_of("kept", self.source)
        return NewMessage(channel, b"{" if self.fault == "data" else data, meta)

    def made(self) -> "Iterator[Made]":
        """Yield what the transform makes of it."""
        for index, channel in enumerate(() if self.fault else self.channels):
            yield Made(self, index, channel, _key(self.meta, index))


@dataclass(frozen=True, slots=True)
class Made:
    """One publication of a message."""

    sent: Sent
    index: int
    channel: str
    key: str

    @property
    def keeps(self) -> bool:
        """Whether it has an offset."""
        return SIZES[self.channel.partition(":")[0]] > 0 and not self.sent.meta.skip_history


def transformed(batch: Batch) -> Batch:
    """Send every message that can be read where its data says."""
    batch.entries = [made for entry in batch.entries for made in _readdressed(entry)]
    return batch


def _readdressed(entry: Entry) -> Iterable[Entry]:
    if not entry.data.endswith(b"}") or not entry.meta.endswith(b"}") or " " in entry.channel:
        return (entry,)
    meta, made = decode_meta(entry.meta), []
    for index, channel in enumerate(decode_json(entry.data)["to"]):
        text = encode_json(
            Meta(
                key=_key(meta, index),
                count=meta.count,
                skip_history=meta.skip_history,
                wait="" if index else meta.wait,
                version=meta.version,
                version_epoch=meta.version_epoch,
            )
        )
        made.append(Entry(entry.partition, entry.id, channel, entry.data, text))
    return made


def _key(meta: Meta, index: int) -> str:
    # As the transformer has it, for every message that a transform makes of one.
    return f"{meta.key}\x1fstage:{index}" if meta.key and index else meta.key


@dataclass(frozen=True, slots=True)
class Told:
    """A publication as the feed told it; `offset` 0: it has none."""

    channel: str
    number: int
    source: int
    offset: int
    epoch: str
    counts: Mapping[str, int]
    body: bytes


def told_by(record: FeedRecord) -> list[Told]:
    """Return the publications of a record."""
    bodies = iter(record.bodies)
    told = []
    for group in record.groups:
        for place in range(group.count):
            body = next(bodies)
            data: dict[str, Any] = json.loads(body)["data"]
            offset = group.first + place if group.first else 0
            counts = data.get("counts", {})
            told.append(
                Told(group.channel, data["n"], data["s"], offset, group.epoch, counts, body)
            )
    assert next(bodies, None) is None
    return told


@dataclass(slots=True)
class _Channel:
    """What a channel has come to: the numbers of what took effect, the version seen last."""

    numbers: list[int] = field(default_factory=list)
    top: int = 0
    seen: Sent | None = None


@dataclass(slots=True)
class Sequential:
    """All messages accepted, in the order of each queue, and what they must come to.

    What a version comes to depends on what took effect before it, of any source. So the model is
    told of the commits, in their order.
    """

    entries: dict[int, list[tuple[str, Sent]]] = field(
        default_factory=lambda: {p: [] for p in range(PARTITIONS)}
    )
    channels: dict[str, _Channel] = field(
        default_factory=lambda: {channel: _Channel() for channel in CHANNELS}
    )
    results: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number of a message, and index of a publication of it -> the offset that is its result."""
    _stale: set[tuple[int, int]] = field(default_factory=set)
    _firsts: dict[tuple[str, str], Sent] = field(default_factory=dict)

    def accept(self, entry_id: str, sent: Sent) -> None:
        """Take a message that is in its queue."""
        self.entries[sent.source].append((entry_id, sent))
        for made in sent.made():
            self._firsts.setdefault((made.channel, made.key), sent)

    def commit(self, target: int, claims: Iterable[Claim]) -> None:
        """Take a commit that took effect."""
        for claim in claims:
            for made in self._made(claim.source, claim.upto, after=claim.after):
                if partition_of(made.channel, PARTITIONS) == target:
                    self._take(made, self.channels[made.channel])

    def _take(self, made: Made, channel: _Channel) -> None:
        place = made.sent.number, made.index
        first = self.first(made)
        if first is not made.sent:
            self.results[place] = self.results[first.number, made.index]
            return
        if _is_stale(made, channel.seen):
            self._stale.add(place)
        else:
            channel.numbers.append(made.sent.number)
            channel.top += made.keeps
            if made.keeps and made.sent.meta.version:
                channel.seen = made.sent
        self.results[place] = channel.top if made.keeps else 0

    def ids(self, source: int, *, after: str) -> list[str]:
        """Return the entries of a queue after an id."""
        low = id_key(after)
        return [entry_id for entry_id, _ in self.entries[source] if id_key(entry_id) > low]

    def dead(self, source: int, *, upto: str) -> list[str]:
        """Return the entries that cannot be read, up to an id."""
        return [
            entry_id
            for entry_id, sent in self.entries[source]
            if sent.fault and id_key(entry_id) <= id_key(upto)
        ]

    def publications(self, target: int, source: int, *, upto: str) -> dict[str, list[int]]:
        """Return what a source gives a target's channels: in order, nothing repeated or stale."""
        numbers: dict[str, list[int]] = {}
        for made in self._made(source, upto):
            if (
                partition_of(made.channel, PARTITIONS) == target
                and self.first(made) is made.sent
                and (made.sent.number, made.index) not in self._stale
            ):
                numbers.setdefault(made.channel, []).append(made.sent.number)
        return numbers

    def first(self, made: Made) -> Sent:
        """Return the message that takes effect for a publication: the first with its key."""
        return self._firsts[made.channel, made.key] if made.key else made.sent

    def waiting(self) -> dict[str, Sent]:
        """Return who waits: the messages by token."""
        return {
            sent.meta.wait: sent
            for queue in self.entries.values()
            for _, sent in queue
            if sent.meta.wait and sent.fault != "meta" and (sent.fault or sent.channels)
        }

    def _made(self, source: int, upto: str, *, after: str = FIRST_ID) -> Iterator[Made]:
        low, high = id_key(after), id_key(upto)
        for entry_id, sent in self.entries[source]:
            if low < id_key(entry_id) <= high:
                yield from sent.made()


def _is_stale(made: Made, seen: Sent | None) -> bool:
    meta = made.sent.meta
    if not (made.keeps and meta.version) or seen is None or seen is made.sent:
        return False
    return meta.version <= seen.meta.version and meta.version_epoch in ("", seen.meta.version_epoch)


def check_channel(told: Sequence[Told], sents: Mapping[int, Sent]) -> dict[str, int]:
    """Check offsets, epoch and totals of a channel's publications, and return its counters."""
    numbered = [one for one in told if one.offset]
    assert [one.offset for one in numbered] == list(range(1, len(numbered) + 1))
    assert len({one.epoch for one in numbered}) <= 1
    totals: dict[str, int] = {}
    for one in told:
        meta = sents[one.number].meta
        assert bool(one.offset) == Made(sents[one.number], 0, one.channel, "").keeps
        for name, amount in meta.count.items():
            totals[name] = totals.get(name, 0) + amount
        assert one.counts == {name: totals[name] for name in meta.count}
    return totals
