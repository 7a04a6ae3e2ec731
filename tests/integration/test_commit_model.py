"""Any interleaving of producers and writers gives what one sequential run would have given.

Two writers, each a reader and a publisher with a checkpoint of its own that may be old, work on
the same partitions of a real Valkey; they are interrupted, overtaken, paused and begun again.
After every step, what each partition has must be what a sequential run up to its `applied` gives.

The examples are the same in every run. `RAYWIRE_MODEL_EXAMPLES=2000` tries so many others, and
shortens what fails. That is printed as a program of steps, with the `@reproduce_failure` that
repeats it.
"""

import asyncio
import json
import os
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actors.errors import NumberGapError, UnavailableError
from actors.message import FIRST_ID, Ack, Batch, Meta, Span, encode_batch, id_key
from actors.partition import Keys, partition_of
from actors.store.interface import Commit, Committed
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisLedger, RedisQueueReader
from tests.integration.sequential import (
    CHANNELS,
    PARTITIONS,
    SIZES,
    WISHES,
    Sent,
    Sequential,
    Told,
    Wish,
    check_channel,
    told_by,
    transformed,
)
from tests.integration.writers import Writer

# Some hundred examples against a real server take their time where others work, too.
pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

EXAMPLES = os.environ.get("RAYWIRE_MODEL_EXAMPLES")
ALL = tuple(range(PARTITIONS))


def gone() -> None:
    """Be away."""
    raise UnavailableError("away")


class NotingLedger(RedisLedger):
    """Tells the model what took effect, also where the writer does not hear of it."""

    model: Sequential

    def commit(self, commits: Sequence[Commit]) -> list[Committed]:
        """See `Ledger.commit`."""
        replies = super().commit(commits)
        for commit, reply in zip(commits, replies, strict=True):
            if reply.done:
                self.model.commit(commit.partition, commit.claims)
        return replies


class Commits(RuleBasedStateMachine):
    """See the module. One app's keys for each example."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        keys = self.keys = Keys(uuid.uuid4().hex)
        self.runner = asyncio.Runner()
        self.reader = RedisQueueReader(self.url, keys)
        self.edge = RedisEdgeStore(self.url, keys, partitions=PARTITIONS)
        self.ledger = NotingLedger(self.url, keys)
        # The library's types know nothing of `decode_responses`.
        self.client: Any = redis.Redis.from_url(self.url, decode_responses=True)
        self.writers = [Writer(self.ledger) for _ in range(2)]
        self.model = self.ledger.model = Sequential()
        self.sents: dict[int, Sent] = {}
        self.number = 0
        self.producer_next = dict.fromkeys(ALL, 1)
        self.applied: dict[tuple[int, int], str] = {}
        self.feed_after = dict.fromkeys(ALL, FIRST_ID)
        self.seqs, self.seqs_now = dict.fromkeys(ALL, 0), dict.fromkeys(ALL, 0)
        self.told: dict[str, list[Told]] = {channel: [] for channel in CHANNELS}
        self.acks: dict[str, Ack] = {}

    # --- producers

    def messages(self, source: int, wishes: Sequence[Wish]) -> list[Sent]:
        """Make messages."""
        made = []
        for channels, fault, key, count, skips, waits, (version, version_epoch) in wishes:
            self.number += 1
            meta = Meta(
                key=f"{source}.{key}" if key else "",
                wait=str(self.number) if waits else "",
                skip_history=skips,
                count={"a": count, "b": -1} if count else {},
                version=version,
                version_epoch=version_epoch,
            )
            made.append(Sent(self.number, source, tuple(channels), fault, meta))
        return made

    @rule(
        source=st.sampled_from(ALL),
        wishes=WISHES,
        room=st.sampled_from([0, 2, 1000, 1000, 1000]),
        numbered=st.booleans(),
        repeats=st.booleans(),
        overtakes=st.booleans(),
    )
    def send(
        self,
        source: int,
        wishes: list[Wish],
        room: int,
        numbered: bool,
        repeats: bool,
        overtakes: bool,
    ) -> None:
        """Queue messages; numbered ones may be sent again, or come before those before them."""
        sents = self.messages(source, wishes)
        waiting = len(self.model.ids(source, after=self.applied.get((source, source), FIRST_ID)))
        first = self.producer_next[source] if numbered else 0
        call: dict[str, Any] = {
            "partition": source,
            "messages": [sent.message() for sent in sents],
            "entries_max": waiting + room,
            "producer": "p" if numbered else "",
            "first_number": first,
        }
        if numbered and overtakes:
            with pytest.raises(NumberGapError):
                self.runner.run(self.edge.enqueue(**{**call, "first_number": first + 1}))
        accepted = self.runner.run(self.edge.enqueue(**call))
        assert accepted == min(room, len(sents))
        if numbered:
            self.producer_next[source] += accepted
            if repeats:
                assert self.runner.run(self.edge.enqueue(**call)) == accepted
        self.take(source, sents[:accepted])

    def take(self, source: int, sents: list[Sent]) -> None:
        """Let the model know what was accepted, with the ids that it got."""
        if sents:
            new = self.client.xrevrange(self.keys.queue(source), count=len(sents))
            for (entry_id, _), sent in zip(reversed(new), sents, strict=True):
                self.sents[sent.number] = sent
                self.model.accept(entry_id, sent)

    # --- writers

    def read(self, writer: Writer, partitions: Sequence[int], limit: int) -> bool:
        """Read a batch as the nozzle does; False: there was none."""
        after = {p: writer.after[p] for p in partitions if self.has_news(p, writer.after[p])}
        # A read of nothing waits for the server's timer, a tenth of a second.
        if after:
            lists = self.runner.run(self.reader.read(after, limit=limit, block_s=1))
            spans = [Span(e[0].partition, after[e[0].partition], e[-1].id) for e in lists]
            batch = Batch(spans, [entry for part in lists for entry in part])
            writer.batches.append(encode_batch(transformed(batch)))
            writer.after |= {span.partition: span.upto for span in spans}
        return bool(after)

    def has_news(self, partition: int, after: str) -> bool:
        """Tell whether a queue has entries after an id."""
        return bool(self.client.xrange(self.keys.queue(partition), min=f"({after}", count=1))

    def rewind(self, writer: Writer) -> None:
        """Begin again at the checkpoint."""
        writer.begin(self.runner.run(self.reader.applied(ALL)))

    @rule(
        who=st.sampled_from([0, 1]),
        partitions=st.sets(st.sampled_from(ALL), min_size=1),
        limit=st.integers(1, 9),
    )
    def reads(self, who: int, partitions: set[int], limit: int) -> None:
        """Read on; the batch may be committed much later."""
        self.read(self.writers[who], sorted(partitions), limit)

    def ready(self) -> list[Writer]:
        """Return the writers that have a batch."""
        return [writer for writer in self.writers if writer.batches]

    @rule(who=st.sampled_from([0, 1]), limit=st.integers(1, 9))
    def reads_and_commits(self, who: int, limit: int) -> None:
        """Do the work of a nozzle that is alone, from a checkpoint that may be old."""
        writer = self.writers[who]
        self.read(writer, ALL, limit)
        while writer.batches:
            writer.commit()

    @precondition(lambda self: self.ready())
    @rule(who=st.sampled_from([0, 1]))
    def commits(self, who: int) -> None:
        """Commit a batch, which never fails, however old it is."""
        ready = self.ready()
        ready[who % len(ready)].commit()

    @precondition(lambda self: self.ready())
    @rule(who=st.sampled_from([0, 1]), after=st.integers(0, 4), dies=st.booleans())
    def fails(self, who: int, after: int, dies: bool) -> None:
        """Lose the server, or die, between two commits or before an answer."""
        ready = self.ready()
        writer = ready[who % len(ready)]
        writer.ledger.interrupt(after, gone)
        try:
            writer.commit()
        except UnavailableError:
            if dies:
                writer.restart()
            self.rewind(writer)
        writer.ledger.calm()

    @precondition(lambda self: self.ready())
    @rule(
        who=st.sampled_from([0, 1]),
        after=st.integers(0, 4),
        partitions=st.sets(st.sampled_from(ALL), min_size=1),
        limit=st.integers(1, 9),
        anew=st.booleans(),
    )
    def is_overtaken(
        self, who: int, after: int, partitions: set[int], limit: int, anew: bool
    ) -> None:
        """Be paused between two commits, while the other writer goes on, or begins anew."""
        ready = self.ready()
        writer = ready[who % len(ready)]
        (other,) = (one for one in self.writers if one is not writer)

        def overtake() -> None:
            if anew:
                self.rewind(other)
            while other.batches:
                other.commit()
            if self.read(other, sorted(partitions), limit):
                other.commit()

        writer.ledger.interrupt(after, overtake)
        writer.commit()
        writer.ledger.calm()

    @precondition(lambda self: any(writer.last for writer in self.writers))
    @rule(who=st.sampled_from([0, 1]))
    def repeats(self, who: int) -> None:
        """Send a batch that was sent before, in a run of its own."""
        sent = [writer for writer in self.writers if writer.last]
        writer = sent[who % len(sent)]
        self.rewind(writer)
        writer.batches.append(writer.last)
        writer.commit()
        self.rewind(writer)

    @precondition(lambda self: self.ready())
    @rule(who=st.sampled_from([0, 1]), dies=st.booleans())
    def begins_again(self, who: int, dies: bool) -> None:
        """Drop what was read, and go on at the checkpoint."""
        ready = self.ready()
        writer = ready[who % len(ready)]
        if dies:
            writer.restart()
        self.rewind(writer)

    # --- what must hold

    @invariant()
    def everything_is_as_in_a_sequential_run(self) -> None:
        """Look at every partition, and at the channels that something was published to."""
        self.find_applied()
        touched = self.read_feeds()
        for channel in touched:
            self.check_told(channel)
            self.runner.run(self.check_kept(channel))
        for source in ALL:
            self.check_source(source)

    def find_applied(self) -> None:
        """Learn what is applied, which never goes back."""
        for target in ALL:
            found = self.client.hgetall(self.keys.applied(target))
            self.seqs_now[target] = int(found.get("seq", 0))
            for source in ALL:
                before = self.applied.get((target, source), FIRST_ID)
                now = self.applied[target, source] = found.get(str(source), FIRST_ID)
                assert id_key(now) >= id_key(before)
                if now != FIRST_ID:
                    assert now in [entry_id for entry_id, _ in self.model.entries[source]]

    def read_feeds(self) -> set[str]:
        """Read the feeds on, and return the channels they told of."""
        touched: set[str] = set()
        after = {p: last for p, last in self.feed_after.items() if self.seqs_now[p] > self.seqs[p]}
        if not after:
            return touched
        for record in self.runner.run(self.edge.read_feed(after, limit=1000, block_s=1)):
            self.feed_after[record.partition] = record.id
            self.seqs[record.partition] += 1
            assert record.seq == self.seqs[record.partition]
            for told in told_by(record):
                assert partition_of(told.channel, PARTITIONS) == record.partition
                self.told[told.channel].append(told)
                touched.add(told.channel)
            for ack in record.acks:
                assert self.acks.setdefault(ack.token, ack) == ack
        assert self.seqs == self.seqs_now
        return touched

    def check_told(self, channel: str) -> None:
        """Compare what a channel was told with what the sequential run gives it."""
        target = partition_of(channel, PARTITIONS)
        for source in ALL:
            upto = self.applied[target, source]
            expected = self.model.publications(target, source, upto=upto).get(channel, [])
            assert [t.number for t in self.told[channel] if t.source == source] == expected
        assert [t.number for t in self.told[channel]] == self.model.channels[channel].numbers

    async def check_kept(self, channel: str) -> None:
        """Compare history and counters with what was told."""
        told = self.told[channel]
        totals = check_channel(told, self.sents)
        size = SIZES[channel.partition(":")[0]]
        kept = [one for one in told if one.offset]
        history = await self.edge.history(channel, since=None, limit=None, meta_ttl_s=600)
        assert history.offset == len(kept)
        assert not kept or history.epoch == kept[0].epoch
        assert history.publications == [(o.offset, o.body) for o in kept[-size:] if size]
        assert await self.edge.counters(channel) == totals

    def check_source(self, source: int) -> None:
        """What is applied is in no queue, and in every target; what is not is in the queue."""
        upto = self.applied[source, source]
        queue = [entry_id for entry_id, _ in self.client.xrange(self.keys.queue(source))]
        assert queue == self.model.ids(source, after=upto)
        letters = self.client.xrange(self.keys.dead(source))
        dead = [json.loads(fields["d"])["id"] for _, fields in letters]
        assert dead == self.model.dead(source, upto=upto)
        for target in ALL:
            numbers = self.model.publications(target, source, upto=upto)
            for channel, expected in numbers.items():
                told = [t.number for t in self.told[channel] if t.source == source]
                assert told[: len(expected)] == expected

    def check_results(self) -> None:
        """Everybody who waits has the result: of the message itself, or of the one in its place."""
        waiting = self.model.waiting()
        assert waiting.keys() == self.acks.keys() - {""}
        for token, sent in waiting.items():
            ack = self.acks[token]
            assert ack.partition == sent.source
            if sent.fault:
                assert ack.error
                continue
            offset = self.model.results[sent.number, 0]
            epochs = [told.epoch for told in self.told[sent.channels[0]] if told.offset == offset]
            assert (ack.offset, ack.epoch, ack.error) == (offset, epochs[0] if offset else "", "")

    def teardown(self) -> None:
        """Apply what is left, and look at everything."""
        try:
            self.drain()
        finally:
            self.runner.run(self.edge.close())
            self.runner.run(self.reader.close())
            self.runner.close()
            self.ledger.close()
            self.client.close()

    def drain(self) -> None:
        """Let a new writer do the rest."""
        writer = Writer(self.ledger)
        self.rewind(writer)
        while self.read(writer, ALL, 50):
            writer.commit()
        self.everything_is_as_in_a_sequential_run()
        for source in ALL:
            assert self.model.ids(source, after=self.applied[source, source]) == []
        for channel in CHANNELS:
            self.check_told(channel)
            self.runner.run(self.check_kept(channel))
        self.check_results()


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_commits_are_those_of_one_sequential_run(valkey_url: str) -> None:
    """See the module."""
    Commits.url = valkey_url
    run_state_machine_as_test(
        Commits,
        settings=hypothesis_settings(
            max_examples=int(EXAMPLES or 100),
            stateful_step_count=40,
            derandomize=EXAMPLES is None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate, *((Phase.reuse, Phase.shrink) if EXAMPLES else ())],
            suppress_health_check=list(HealthCheck),
        ),
    )
