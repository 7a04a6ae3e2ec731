"""One contract, two stores: what holds for the store on Valkey holds for the one in memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
import redis.asyncio

from actors.errors import NumberGapError
from actors.message import FIRST_ID, Ack, DeadLetter, Entry, decode_json
from actors.partition import Keys, partition_of
from actors.store.interface import (
    Claim,
    Commit,
    DeadRecord,
    EdgeStore,
    Group,
    Ledger,
    NewMessage,
    QueueReader,
    Replayed,
    StatsWriter,
)
from actors.store.interface_box import NOTES_MAX
from actors.store.interface_control import RECORDS_MAX
from actors.store.memory.store import MemoryStore
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisLedger, RedisQueueReader, RedisStats

CHANNEL = "news:a"
P = partition_of(CHANNEL, 8)
OTHER = (P + 1) % 8


@dataclass
class Store:
    """The faces of one store."""

    reader: QueueReader
    ledger: Ledger
    edge: EdgeStore
    stats: StatsWriter


@pytest.fixture(
    params=[
        "memory",
        pytest.param("valkey", marks=pytest.mark.redis),
        pytest.param("cluster", marks=pytest.mark.redis),
    ]
)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    if request.param == "memory":
        memory = MemoryStore()
        yield Store(memory, memory, memory, memory)
        return
    url = request.getfixturevalue(f"{request.param}_url")
    keys = Keys()
    reader, ledger = RedisQueueReader(url, keys), RedisLedger(url, keys)
    edge = RedisEdgeStore(url, keys, partitions=8)
    stats = RedisStats(url, keys)
    yield Store(reader, ledger, edge, stats)
    stats.close()
    await reader.close()
    ledger.close()
    await edge.close()


async def fill(store: Store, count: int, partition: int = P) -> list[Entry]:
    """Enqueue `count` messages and read them back."""
    messages = [NewMessage(CHANNEL, b"%d" % n) for n in range(count)]
    assert await store.edge.enqueue(partition, messages, entries_max=100_000) == count
    (entries,) = await store.reader.read({partition: FIRST_ID}, limit=100_000, block_s=1)
    return entries


def group(entries: list[Entry], *, size: int = 100, channel: str = CHANNEL) -> Group:
    """One publication for each entry."""
    return Group(
        channel=channel,
        bodies=[b'{"data":' + e.data + b"}" for e in entries],
        ids=[(e.partition, e.id) for e in entries],
        history_size=size,
        history_ttl_s=60,
        meta_ttl_s=600,
    )


def own(entries: list[Entry], groups: list[Group], after: str = FIRST_ID) -> Commit:
    """The commit of a whole batch to its source's own partition."""
    return Commit(P, [Claim(P, after, entries[-1].id)], groups, [], [], own=True)


async def test_messages_come_back_in_order(store: Store) -> None:
    """The queue keeps the order, and a read goes on after the id it is given."""
    entries = await fill(store, 5)
    assert [e.data for e in entries] == [b"0", b"1", b"2", b"3", b"4"]
    assert entries[0].channel == CHANNEL
    (rest,) = await store.reader.read({P: entries[2].id}, limit=1, block_s=1)
    assert [e.data for e in rest] == [b"3"]


async def test_read_waits_no_longer_than_told(store: Store) -> None:
    """With nothing to read, the answer is empty."""
    async with asyncio.timeout(5):
        assert await store.reader.read({P: FIRST_ID}, limit=1, block_s=0.01) == []


async def test_read_wakes_up_for_a_message(store: Store) -> None:
    """A waiting read ends as soon as there is something."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(store.reader.read({P: FIRST_ID}, limit=9, block_s=60))
        await store.edge.enqueue(P, [NewMessage(CHANNEL, b"1")], entries_max=9)
    assert [e.data for entries in reading.result() for e in entries] == [b"1"]


async def test_read_that_is_given_up_loses_nothing(store: Store) -> None:
    """The next one gets what it would have got, and no answer to the first."""
    # Connected before: a Cluster's client, while it connects, may not notice that it is to end.
    assert await store.reader.read({P: FIRST_ID}, limit=9, block_s=0.01) == []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.reader.read({P: FIRST_ID}, limit=9, block_s=60)
    await store.edge.enqueue(P, [NewMessage(CHANNEL, b"1")], entries_max=9)
    async with asyncio.timeout(5):
        first = await store.reader.read({P: FIRST_ID}, limit=9, block_s=60)
        rest = await store.reader.read({P: first[0][0].id}, limit=9, block_s=0.01)
    assert [e.data for entries in first for e in entries] == [b"1"]
    assert rest == []


@pytest.mark.redis
async def test_read_of_large_entries_is_cut(valkey_url: str) -> None:
    """To its limit in bytes, shared by the partitions; at least one entry of each comes along."""
    edge = RedisEdgeStore(valkey_url, Keys(), partitions=8)
    reader = RedisQueueReader(valkey_url, Keys(), read_bytes_max=2_000)
    for p, size in ((0, 300), (1, 4_000)):
        messages = [NewMessage(CHANNEL, b"%0*d" % (size, n)) for n in range(9)]
        assert await edge.enqueue(p, messages, entries_max=9) == 9

    first, second = await reader.read({0: FIRST_ID, 1: FIRST_ID}, limit=400, block_s=1)
    rest = await reader.read({0: first[-1].id}, limit=400, block_s=1)
    await reader.close()
    await edge.close()

    assert [int(e.data) for e in first] == [0, 1, 2]
    assert [int(e.data) for e in second] == [0]
    assert [int(e.data) for e in rest[0]] == [3, 4, 5, 6, 7, 8]


async def test_full_queue_accepts_as_much_as_fits(store: Store) -> None:
    """What is over the limit is refused, and what fits is accepted from the front."""
    messages = [NewMessage(CHANNEL, b"%d" % n) for n in range(5)]
    assert await store.edge.enqueue(P, messages, entries_max=3) == 3
    assert await store.edge.enqueue(P, messages, entries_max=3) == 0
    assert await store.edge.queue_lengths([P, OTHER]) == {P: 3, OTHER: 0}


async def test_numbered_messages_are_accepted_once(store: Store) -> None:
    """A producer that repeats a call, or part of it, appends nothing twice."""
    one, two, three = (NewMessage(CHANNEL, b"%d" % n) for n in (1, 2, 3))
    call = {"entries_max": 9, "producer": "me"}
    assert await store.edge.enqueue(P, [one, two], first_number=1, **call) == 2  # type: ignore[arg-type]
    assert await store.edge.enqueue(P, [one, two], first_number=1, **call) == 2  # type: ignore[arg-type]
    assert await store.edge.enqueue(P, [two, three], first_number=2, **call) == 2  # type: ignore[arg-type]
    (entries,) = await store.reader.read({P: FIRST_ID}, limit=9, block_s=1)
    assert [e.data for e in entries] == [b"1", b"2", b"3"]


async def test_numbered_messages_go_on_after_a_full_queue(store: Store) -> None:
    """The refused rest is accepted when it is sent again and there is room."""
    messages = [NewMessage(CHANNEL, b"%d" % n) for n in range(1, 5)]
    first = await store.edge.enqueue(P, messages, entries_max=2, producer="me", first_number=1)
    again = await store.edge.enqueue(P, messages, entries_max=9, producer="me", first_number=1)
    assert (first, again) == (2, 4)
    (entries,) = await store.reader.read({P: FIRST_ID}, limit=9, block_s=1)
    assert [e.data for e in entries] == [b"1", b"2", b"3", b"4"]


def numbered(first: int, last: int) -> dict[str, Any]:
    """Arguments of `enqueue`: a producer's messages with these numbers, room for nine."""
    messages = [NewMessage(CHANNEL, b"%d" % n) for n in range(first, last + 1)]
    return {
        "partition": P,
        "messages": messages,
        "entries_max": 9,
        "producer": "me",
        "first_number": first,
    }


async def queued(store: Store) -> list[bytes]:
    """The data of all that is in the queue."""
    lists = await store.reader.read({P: FIRST_ID}, limit=100, block_s=0.01)
    return [entry.data for entries in lists for entry in entries]


async def test_numbers_that_overtake_others_are_refused(store: Store) -> None:
    """A later call that comes first does not make the earlier one count as accepted."""
    with pytest.raises(NumberGapError):
        await store.edge.enqueue(**numbered(3, 4))
    assert await store.edge.enqueue(**numbered(1, 2)) == 2
    with pytest.raises(NumberGapError):
        await store.edge.enqueue(**numbered(4, 4))
    assert await store.edge.enqueue(**numbered(3, 4)) == 2
    assert await queued(store) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("room", [0, 1])
async def test_numbers_after_refused_ones_are_refused(store: Store, room: int) -> None:
    """What a full queue refused is still to come, though there is room again meanwhile."""
    assert await store.edge.enqueue(**numbered(1, 2) | {"entries_max": room}) == room
    with pytest.raises(NumberGapError):
        await store.edge.enqueue(**numbered(3, 3))
    assert await store.edge.enqueue(**numbered(1, 3)) == 3
    assert await queued(store) == [b"1", b"2", b"3"]


async def test_producer_that_is_not_known_may_begin_anywhere(store: Store) -> None:
    """Where its number is forgotten it says so; the call may be repeated like any other."""
    call = numbered(501, 502)
    with pytest.raises(NumberGapError):
        await store.edge.enqueue(**call)
    for _ in range(2):
        assert await store.edge.enqueue(**call, begins=True) == 2
    assert await store.edge.enqueue(**numbered(503, 503)) == 1
    assert await store.edge.enqueue(**numbered(1, 2)) == 2
    assert await queued(store) == [b"501", b"502", b"503"]


async def test_beginning_anew_repeats_nothing(store: Store) -> None:
    """A producer that begins below the last number accepted appends only what is new."""
    assert await store.edge.enqueue(**numbered(1, 3)) == 3
    assert await store.edge.enqueue(**numbered(2, 4), begins=True) == 3
    assert await queued(store) == [b"1", b"2", b"3", b"4"]


@pytest.mark.redis
async def test_numbers_are_forgotten_with_the_rest_of_the_server(valkey_url: str) -> None:
    """An emptied server refuses the next number until the producer begins anew."""
    edge = RedisEdgeStore(valkey_url, Keys(), partitions=8)
    assert await edge.enqueue(**numbered(1, 2)) == 2
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    with pytest.raises(NumberGapError):
        await edge.enqueue(**numbered(3, 3))
    assert await edge.enqueue(**numbered(3, 3), begins=True) == 1
    assert await edge.queue_lengths([P]) == {P: 1}
    await edge.close()


async def test_commit_gives_offsets_and_trims_the_queue(store: Store) -> None:
    """A commit appends to the history, moves the checkpoint, and empties the queue up to it."""
    entries = await fill(store, 3)
    (committed,) = store.ledger.commit([own(entries[:2], [group(entries[:2])])])
    assert committed.done
    assert await store.reader.applied([P]) == {P: entries[1].id}
    assert await store.edge.queue_lengths([P]) == {P: 1}
    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=60)
    assert history.offset == 2
    assert history.epoch
    assert history.publications == [(1, b'{"data":0}'), (2, b'{"data":1}')]


async def test_commit_takes_effect_once(store: Store) -> None:
    """The same batch again, or one that overlaps, changes nothing and says what is applied."""
    entries = await fill(store, 3)
    batch = own(entries[:2], [group(entries[:2])])
    assert store.ledger.commit([batch])[0].done
    for repeat in (batch, own(entries, [group(entries)])):
        (committed,) = store.ledger.commit([repeat])
        assert (committed.done, committed.applied) == (False, [entries[1].id])
    history = await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=60)
    assert history.offset == 2


async def test_commit_refuses_a_gap(store: Store) -> None:
    """A batch that comes before its predecessor is not applied."""
    entries = await fill(store, 2)
    (committed,) = store.ledger.commit([own(entries[1:], [group(entries[1:])], entries[0].id)])
    assert (committed.done, committed.applied) == (False, [FIRST_ID])
    assert await store.edge.queue_lengths([P]) == {P: 2}


async def test_commits_of_one_call_stand_by_themselves(store: Store) -> None:
    """One commit whose claim does not hold does not keep back another partition's."""
    entries = await fill(store, 1)
    wrong = Commit(OTHER, [Claim(P, "5-5", "6-6")], [group(entries)], [], [])
    right = own(entries, [group(entries)])
    assert [c.done for c in store.ledger.commit([wrong, right])] == [False, True]


async def test_feed_tells_what_was_committed(store: Store) -> None:
    """A feed record holds channel, first offset, epoch, bodies and results; records are counted."""
    entries = await fill(store, 3)
    first = own(entries[:2], [group(entries[:2])])
    first.groups[0].waits[1] = (P, "token")
    first.acks = [Ack(P, "dropped")]
    first.queued_at_s = 12.5
    store.ledger.commit([first, own(entries[2:], [group(entries[2:])], entries[1].id)])
    one, two = await store.edge.read_feed({P: FIRST_ID}, limit=9, block_s=1)
    epoch = (await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=60)).epoch
    assert (one.partition, one.seq, two.seq, one.queued_at_s) == (P, 1, 2, 12.5)
    assert [(g.channel, g.first, g.epoch, g.count) for g in (*one.groups, *two.groups)] == [
        (CHANNEL, 1, epoch, 2),
        (CHANNEL, 3, epoch, 1),
    ]
    assert one.bodies == [b'{"data":0}', b'{"data":1}']
    assert one.acks == [Ack(P, "dropped"), Ack(P, "token", 2, epoch)]
    assert await store.edge.feed_ends([P, OTHER]) == {P: (two.id, 2), OTHER: (FIRST_ID, 0)}


@pytest.mark.redis
async def test_feed_is_capped(valkey_url: str) -> None:
    """The feed keeps about as many records as it is told."""
    keys = Keys()
    ledger = RedisLedger(valkey_url, keys, feed_records_max=100)
    edge = RedisEdgeStore(valkey_url, keys, partitions=8)
    for n in range(500):
        ledger.commit(
            [Commit(P, [Claim(OTHER, f"{n}-0" if n else FIRST_ID, f"{n + 1}-0")], [], [], [])]
        )
    records = await edge.read_feed({P: FIRST_ID}, limit=1000, block_s=1)
    assert 100 <= len(records) < 300
    assert records[-1].seq == 500
    ledger.close()
    await edge.close()


async def test_history_keeps_the_last_publications(store: Store) -> None:
    """Older ones than `history_size` go, offsets stay."""
    entries = await fill(store, 5)
    store.ledger.commit([own(entries, [group(entries, size=2)])])
    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=60)
    assert (history.offset, [o for o, _ in history.publications]) == (5, [4, 5])


@pytest.mark.redis
async def test_position_outlives_the_publications(valkey_url: str) -> None:
    """They expire `history_ttl_s` after the last one; offset and epoch `meta_ttl_s` after it."""
    keys = Keys()
    ledger = RedisLedger(valkey_url, keys)
    edge = RedisEdgeStore(valkey_url, keys, partitions=8)
    entry = Entry(P, "1-0", CHANNEL, b"1")
    ledger.commit([own([entry], [group([entry])])])
    before = await edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
    with redis.Redis.from_url(valkey_url) as server:
        publications, position = keys.history(P, CHANNEL), keys.meta(P, CHANNEL)
        assert 0 < server.ttl(publications) <= 60 < server.ttl(position) <= 600
        server.expire(publications, 0)
        after = await edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
        server.expire(position, 0)
        anew = await edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
    assert [offset for offset, _ in before.publications] == [1]
    assert (after.offset, after.epoch, after.publications) == (1, before.epoch, [])
    assert anew.offset == 0
    assert anew.epoch != before.epoch
    ledger.close()
    await edge.close()


@pytest.mark.parametrize(
    ("since", "limit", "reverse", "offsets"),
    [
        (None, None, False, [3, 4, 5, 6]),
        (None, 2, False, [3, 4]),
        (None, 0, False, []),
        (4, None, False, [5, 6]),
        (1, 2, False, [3, 4]),
        (6, None, False, []),
        (9, None, False, []),
        (None, 2, True, [6, 5]),
        (5, None, True, [4, 3]),
        (7, 1, True, [6]),
        (2, None, True, []),
        (9, None, True, []),
    ],
)
async def test_history_is_read_in_stretches(
    store: Store, since: int | None, limit: int | None, reverse: bool, offsets: list[int]
) -> None:
    """Forward after `since`, from the oldest where that is gone; backward before it."""
    entries = await fill(store, 6)
    store.ledger.commit([own(entries, [group(entries, size=4)])])
    history = await store.edge.history(
        CHANNEL, since=since, limit=limit, reverse=reverse, meta_ttl_s=60
    )
    assert [offset for offset, _ in history.publications] == offsets


async def test_channel_has_an_epoch_before_its_first_publication(store: Store) -> None:
    """Whoever subscribes first learns the epoch that the first publication will have."""
    before = await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=60)
    entries = await fill(store, 1)
    store.ledger.commit([own(entries, [group(entries)])])
    after = await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=60)
    assert (before.offset, after.offset) == (0, 1)
    assert before.epoch == after.epoch


async def test_channel_without_history_gives_no_offsets(store: Store) -> None:
    """Its publications go to the feed and are kept nowhere."""
    entries = await fill(store, 1)
    plain = group(entries, size=0)
    plain.waits[0] = (P, "token")
    (committed,) = store.ledger.commit([own(entries, [plain])])
    (record,) = await store.edge.read_feed({P: FIRST_ID}, limit=9, block_s=1)
    assert [(g.first, g.epoch, g.count) for g in record.groups] == [(0, "", 1)]
    assert committed.acks == [Ack(P, "token", 0, "")]
    assert (await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=9)).offset == 0


@pytest.mark.redis
async def test_entry_with_the_highest_id_of_its_millisecond_is_trimmed(valkey_url: str) -> None:
    """A producer that appends with XADD may choose ids; what follows this one is in the next."""
    ledger = RedisLedger(valkey_url, Keys())
    last = f"5-{2**64 - 1}"
    with redis.Redis.from_url(valkey_url) as client:
        for entry_id in (last, "6-0"):
            client.xadd(Keys().queue(P), {"c": CHANNEL, "d": "1"}, id=entry_id)
        (done,) = ledger.commit([Commit(P, [Claim(P, FIRST_ID, last)], [], [], [], own=True)])
        left = client.xrange(Keys().queue(P))
    ledger.close()
    assert done.done
    assert [entry_id for entry_id, _ in left] == [b"6-0"]


async def test_idempotency_key_takes_effect_once(store: Store) -> None:
    """A second publication with the key is left out, and has the first one's result."""
    entries = await fill(store, 4)
    first = group(entries[:2])
    first.keys = {1: "k"}
    store.ledger.commit([own(entries[:2], [first])])
    second = group(entries[2:])
    second.keys, second.waits = {0: "k"}, {0: (P, "again"), 1: (P, "next")}
    (committed,) = store.ledger.commit([own(entries[2:], [second], entries[1].id)])
    assert [(a.token, a.offset) for a in sorted(committed.acks, key=lambda a: a.token)] == [
        ("again", 2),
        ("next", 3),
    ]
    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=60)
    assert [body for _, body in history.publications] == [
        b'{"data":0}', b'{"data":1}', b'{"data":3}',
    ]  # fmt: skip


async def test_idempotency_key_twice_in_one_batch(store: Store) -> None:
    """The second of one batch is left out, too."""
    entries = await fill(store, 2)
    both = group(entries)
    both.keys, both.waits = {0: "k", 1: "k"}, {1: (P, "again")}
    (committed,) = store.ledger.commit([own(entries, [both])])
    assert [(a.token, a.offset) for a in committed.acks] == [("again", 1)]
    assert (await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=9)).offset == 1


async def test_idempotency_key_belongs_to_its_channel(store: Store) -> None:
    """Wherever the colons are: the same text in a row is not the same key."""
    entries = await fill(store, 2)
    n = next(n for n in range(1000) if partition_of(f"{CHANNEL}:{n}", 8) == P)
    first, second = group(entries[:1], channel=f"{CHANNEL}:{n}"), group(entries[1:])
    first.keys, second.keys = {0: "42"}, {0: f"{n}:42"}
    store.ledger.commit([own(entries, [first, second])])
    for channel in (first.channel, second.channel):
        history = await store.edge.history(channel, since=None, limit=0, meta_ttl_s=9)
        assert history.offset == 1


Version = tuple[int, str]
V53 = 2**53


@pytest.mark.parametrize(
    ("versions", "accepted"),
    [
        ([(2, ""), (1, ""), (2, ""), (3, "")], [0, 3]),
        ([(9, ""), (10, ""), (9, "")], [0, 1]),
        ([(V53, ""), (V53 + 1, ""), (V53, ""), (2**64 - 1, ""), (2**64 - 2, "")], [0, 1, 3]),
        ([(9, "a"), (9, "a"), (1, "b"), (2, "a"), (1, "a")], [0, 2, 3]),
        ([(9, "a"), (8, ""), (10, ""), (1, "a")], [0, 2, 3]),
        ([(5, "é"), (5, "é"), (6, "é")], [0, 2]),
        ([(5, ""), None, (4, ""), None, (6, "")], [0, 1, 3, 4]),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["one commit", "a commit each"])
async def test_stale_version_takes_no_effect(
    store: Store, versions: list[Version | None], accepted: list[int], together: bool
) -> None:
    """Every one is held against those before it; its result is the top position at that point."""
    entries = await fill(store, len(versions))
    parts = [range(len(versions))] if together else [range(n, n + 1) for n in range(len(versions))]
    after = FIRST_ID
    acks: list[Ack] = []
    for part in parts:
        some = group([entries[n] for n in part])
        for index, n in enumerate(part):
            version = versions[n]
            if version is not None:
                some.versions[index] = version
            some.waits[index] = (P, str(n))
        (committed,) = store.ledger.commit([own([entries[n] for n in part], [some], after)])
        after, acks = entries[part[-1]].id, [*acks, *committed.acks]

    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=60)
    assert [(o, int(decode_json(body)["data"])) for o, body in history.publications] == list(
        enumerate(accepted, 1)
    )
    tops = [sum(n <= index for n in accepted) for index in range(len(versions))]
    assert {int(a.token): a.offset for a in acks} == dict(enumerate(tops))
    assert {a.epoch for a in acks} == {history.epoch}
    records = await store.edge.read_feed({P: FIRST_ID}, limit=100, block_s=1)
    told = [(g.first + n) for r in records for g in r.groups for n in range(g.count)]
    assert told == list(range(1, len(accepted) + 1))


async def test_one_entrys_publications_share_a_version(store: Store) -> None:
    """What it became takes effect together, or not at all; another entry's is stale."""
    one, two, three = await fill(store, 3)
    some = group([one, one, one, two, two, three])
    some.versions = dict.fromkeys(range(3), (5, "e")) | dict.fromkeys(range(3, 5), (5, "e"))
    some.versions[5] = (6, "e")
    store.ledger.commit([own([one, two, three], [some])])
    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=60)
    assert [decode_json(body)["data"] for _, body in history.publications] == [0, 0, 0, 2]


async def test_version_is_looked_at_after_the_idempotency_key(store: Store) -> None:
    """A repeated key gives its first result, whatever its version; a skipped one uses it up."""
    entries = await fill(store, 5)
    first = group(entries[:2])
    first.keys, first.versions = {0: "a"}, {0: (5, ""), 1: (6, "")}
    store.ledger.commit([own(entries[:2], [first])])
    second = group(entries[2:])
    second.keys = {0: "a", 1: "b", 2: "b"}
    second.versions = {0: (7, ""), 1: (6, ""), 2: (8, "")}
    second.waits = {index: (P, str(index)) for index in range(3)}
    (committed,) = store.ledger.commit([own(entries[2:], [second], entries[1].id)])
    assert {a.token: a.offset for a in committed.acks} == {"0": 1, "1": 2, "2": 2}
    history = await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=9)
    assert history.offset == 2


async def test_stale_version_is_not_counted(store: Store) -> None:
    """What takes no effect adds to no counter, and shows no totals."""
    entries = await fill(store, 2)
    votes = group(entries)
    votes.bodies = [b'{"data":{"v":1}}', b'{"data":{"v":2}}']
    votes.counts, votes.versions = {0: {"up": 2}, 1: {"up": 3}}, {0: (2, ""), 1: (1, "")}
    store.ledger.commit([own(entries, [votes])])
    assert await store.edge.counters(CHANNEL) == {"up": 2}


async def test_refused_commit_sees_no_versions(store: Store) -> None:
    """A batch that is sent again is refused by its claim, so the rest of it is not stale."""
    entries = await fill(store, 3)
    first = group(entries[:2])
    first.versions = {0: (1, ""), 1: (2, "")}
    both = group(entries)
    both.versions = {0: (1, ""), 1: (2, ""), 2: (3, "")}
    store.ledger.commit([own(entries[:2], [first])])
    (refused,) = store.ledger.commit([own(entries, [both])])
    assert not refused.done
    rest = group(entries[2:])
    rest.versions = {0: (3, "")}
    (committed,) = store.ledger.commit([own(entries[2:], [rest], entries[1].id)])
    assert committed.done
    history = await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=9)
    assert history.offset == 3


async def test_versions_outlive_a_removed_history(store: Store) -> None:
    """They stay as long as offset and epoch do."""
    entries = await fill(store, 2)
    for index, (version, after) in enumerate([(2, FIRST_ID), (1, entries[0].id)]):
        some = group(entries[index : index + 1])
        some.versions[0] = (version, "")
        store.ledger.commit([own(entries[index : index + 1], [some], after)])
        await store.edge.history_remove(CHANNEL)
    history = await store.edge.history(CHANNEL, since=None, limit=0, meta_ttl_s=9)
    assert history.offset == 1


@pytest.mark.redis
async def test_versions_end_with_offset_and_epoch(valkey_url: str) -> None:
    """They are kept in the same place, for as long; in a new epoch any version is new."""
    reader, ledger = RedisQueueReader(valkey_url, Keys()), RedisLedger(valkey_url, Keys())
    edge = RedisEdgeStore(valkey_url, Keys(), partitions=8)
    entries = await fill(Store(reader, ledger, edge, RedisStats(valkey_url, Keys())), 2)
    meta = Keys().meta(P, CHANNEL)
    with redis.Redis.from_url(valkey_url) as client:
        old, new = group(entries[:1]), group(entries[1:])
        old.versions, new.versions = {0: (2, "e")}, {0: (1, "e")}
        ledger.commit([own(entries[:1], [old])])
        assert client.hmget(meta, "v", "ve") == [b"2", b"e"]
        assert 0 < client.ttl(meta) <= 600
        client.delete(meta)
        ledger.commit([own(entries[1:], [new], entries[0].id)])
        assert client.hmget(meta, "o", "v", "ve") == [b"1", b"1", b"e"]
        assert 0 < client.ttl(meta) <= 600
    await reader.close()
    ledger.close()
    await edge.close()


@pytest.mark.redis
async def test_commit_without_versions_asks_for_none(valkey_url: str) -> None:
    """Versions cost two commands for each channel of a commit that has some, and nothing else."""
    reader, ledger = RedisQueueReader(valkey_url, Keys()), RedisLedger(valkey_url, Keys())
    edge = RedisEdgeStore(valkey_url, Keys(), partitions=8)
    entries = await fill(Store(reader, ledger, edge, RedisStats(valkey_url, Keys())), 30)
    calls = []
    with redis.Redis.from_url(valkey_url) as client:
        for first in (0, 10, 20):
            some = group(entries[first : first + 10])
            if first == 20:
                some.versions = {index: (index + 1, "") for index in range(10)}
            after = entries[first - 1].id if first else FIRST_ID
            client.config_resetstat()
            ledger.commit([own(entries[first : first + 10], [some], after)])
            stats: dict[str, dict[str, int]] = client.info("commandstats")
            calls.append({name: stat["calls"] for name, stat in stats.items()})
    await reader.close()
    ledger.close()
    await edge.close()
    plain, versioned = calls[1:]
    more = {name: count - plain.get(name, 0) for name, count in versioned.items()}
    assert {name: count for name, count in more.items() if count} == {
        "cmdstat_hmget": 1,
        "cmdstat_hset": 1,
    }


async def test_counters_are_added_once_and_shown(store: Store) -> None:
    """Totals stand in the publication's data; a repeated commit adds nothing."""
    entries = await fill(store, 2)
    votes = group(entries)
    votes.bodies = [b'{"data":{"v":1}}', b'{"data":{"v":2}}']
    votes.counts = {0: {"up": 2}, 1: {"up": 3, "down": -1}}
    commit = own(entries, [votes])
    store.ledger.commit([commit])
    store.ledger.commit([commit])
    assert await store.edge.counters(CHANNEL) == {"up": 5, "down": -1}
    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=60)
    assert [decode_json(body)["data"] for _, body in history.publications] == [
        {"v": 1, "counts": {"up": 2}},
        {"v": 2, "counts": {"up": 5, "down": -1}},
    ]


async def test_presence_names_who_is_there(store: Store) -> None:
    """Entering and leaving change the list, and the feed tells of it where asked."""
    await store.edge.enter(CHANNEL, "c1", b'{"user":"u","client":"c1"}', ttl_s=60, announce=True)
    await store.edge.enter(CHANNEL, "c2", b'{"user":"u","client":"c2"}', ttl_s=60, announce=False)
    assert await store.edge.presence_stats(CHANNEL) == (2, 1)
    await store.edge.leave(CHANNEL, "c1", b'{"user":"u","client":"c1"}', announce=True)
    assert await store.edge.presence(CHANNEL) == {"c2": b'{"user":"u","client":"c2"}'}
    records = await store.edge.read_feed({P: FIRST_ID}, limit=9, block_s=1)
    assert [record.joins for record in records] == [
        [(CHANNEL, "join", b'{"user":"u","client":"c1"}')],
        [(CHANNEL, "leave", b'{"user":"u","client":"c1"}')],
    ]
    assert [record.seq for record in records] == [0, 0]


async def test_joins_say_what_was_committed_before_them(store: Store) -> None:
    """So that one whose commits were pushed out of the feed shows the gap. They are not counted."""
    await store.edge.enter(CHANNEL, "c1", b"{}", ttl_s=60, announce=True)
    entries = await fill(store, 2)
    store.ledger.commit([own(entries[:1], [group(entries[:1])])])
    await store.edge.leave(CHANNEL, "c1", b"{}", announce=True)
    store.ledger.commit([own(entries[1:], [group(entries[1:])], entries[0].id)])
    records = await store.edge.read_feed({P: FIRST_ID}, limit=9, block_s=1)
    assert [(r.seq, r.last_seq) for r in records if r.joins] == [(0, 0), (0, 1)]
    assert [r.seq for r in records if not r.joins] == [1, 2]


async def test_only_changes_of_presence_are_announced(store: Store) -> None:
    """A join of one who is there, and a leave of one who is not, are not told, however asked."""

    async def enter(ttl_s: float = 60) -> None:
        await store.edge.enter(CHANNEL, "c1", b'{"client":"c1"}', ttl_s=ttl_s, announce=True)

    async def leave() -> None:
        await store.edge.leave(CHANNEL, "c1", b'{"client":"c1"}', announce=True)

    await leave()
    await enter()
    await enter()
    await leave()
    await leave()
    await enter(ttl_s=0.02)
    async with asyncio.timeout(5):
        while await store.edge.presence(CHANNEL):
            await asyncio.sleep(0.01)
    await leave()
    await enter()
    records = await store.edge.read_feed({P: FIRST_ID}, limit=9, block_s=1)
    kinds = [kind for record in records for _, kind, _ in record.joins]
    assert kinds == ["join", "leave", "join", "join"]


async def test_presence_that_is_not_renewed_expires(store: Store) -> None:
    """A client whose edge died is gone after the entry's time."""
    await store.edge.enter(CHANNEL, "c1", b"{}", ttl_s=0.02, announce=False)
    async with asyncio.timeout(5):
        while await store.edge.presence(CHANNEL):
            await asyncio.sleep(0.01)


async def bury(store: Store, *names: str, channel: str = CHANNEL) -> list[DeadRecord]:
    """Let entries with these names as data die, and return the letters in that order."""
    (after,) = (await store.reader.applied([P])).values()
    messages = [NewMessage(channel, f'"{name}"'.encode()) for name in names]
    await store.edge.enqueue(P, messages, entries_max=100_000)
    (entries,) = await store.reader.read({P: after}, limit=100_000, block_s=1)
    dead = [
        DeadLetter(P, e.id, channel, e.data.decode(), "", "clean", "no", "", 3, 5.0)
        for e in entries
    ]
    assert store.ledger.commit(
        [Commit(P, [Claim(P, after, entries[-1].id)], [], [], dead, own=True)]
    )[0].done
    return (await store.edge.dead_letters.read(P, limit=100_000))[-len(names) :]


def data_of(records: list[DeadRecord]) -> list[str]:
    """What was sent, letter by letter."""
    return [record.letter.data.strip('"') for record in records]


async def test_removed_history_keeps_the_position(store: Store) -> None:
    """The publications go, offset and epoch stay, and the next one has the next offset."""
    entries = await fill(store, 5)
    store.ledger.commit([own(entries[:3], [group(entries[:3])])])
    before = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
    await store.edge.history_remove(CHANNEL)
    removed = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
    assert (removed.offset, removed.epoch, removed.publications) == (3, before.epoch, [])

    store.ledger.commit([own(entries[3:], [group(entries[3:])], after=entries[2].id)])
    after = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
    assert [offset for offset, _ in after.publications] == [4, 5]
    assert after.epoch == before.epoch


async def test_removing_a_history_that_is_not_there_is_nothing(store: Store) -> None:
    """The call succeeds, as it may be repeated."""
    await store.edge.history_remove("news:never")


async def test_control_stream_is_read_on_from_an_id(store: Store) -> None:
    """What was there before the end that a reader found is not handed to it."""
    control = store.edge.control
    assert await control.end() == FIRST_ID
    await control.add(b"before")
    end = await control.end()
    await control.add(b"1")
    await control.add(b"2\n\xff")
    (first,) = await control.read(end, limit=1, block_s=1)
    assert first[1] == b"1"
    assert [text for _, text in await control.read(first[0], limit=9, block_s=1)] == [b"2\n\xff"]
    assert await control.read(await control.end(), limit=9, block_s=0.01) == []


async def test_control_stream_wakes_up_its_readers(store: Store) -> None:
    """Every reader gets the record, as soon as it is there."""
    control = store.edge.control
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(control.read(FIRST_ID, limit=9, block_s=4)) for _ in range(2)]
        await asyncio.sleep(0)
        await control.add(b"1")
    assert [[text for _, text in read.result()] for read in reads] == [[b"1"], [b"1"]]


async def test_control_stream_is_capped(store: Store) -> None:
    """It holds about as many records as it may; the oldest go."""
    control = store.edge.control
    for number in range(RECORDS_MAX + 200):
        await control.add(b"%d" % number)
    kept = await control.read(FIRST_ID, limit=10 * RECORDS_MAX, block_s=1)
    assert RECORDS_MAX <= len(kept) < RECORDS_MAX + 200
    assert kept[-1][1] == b"%d" % (RECORDS_MAX + 199)


async def test_dead_letters_are_kept_with_the_commit(store: Store) -> None:
    """A dead letter stands in its partition, as it was written."""
    letter = DeadLetter(P, "1-0", CHANNEL, 'a "b" \u00e9', "{}", "queue", "not JSON", "tb", 1, 5.0)
    store.ledger.commit([Commit(P, [Claim(P, FIRST_ID, "1-0")], [], [], [letter], own=True)])
    (record,) = await store.edge.dead_letters.read(P, limit=9)
    assert (record.partition, record.letter) == (P, letter)
    assert record.id == f"{P}-{record.place}"
    assert await store.edge.dead_letters.get(P, record.place) == record
    assert await store.edge.dead_letters.count([P, OTHER]) == {P: 1, OTHER: 0}


async def test_dead_letters_are_read_in_stretches(store: Store) -> None:
    """In the order of deaths or against it, from a place on, to a limit."""
    dead = store.edge.dead_letters
    assert await dead.read(P, limit=9) == []
    letters = await bury(store, "a", "b", "c", "d")
    assert data_of(await dead.read(P, limit=3)) == ["a", "b", "c"]
    assert data_of(await dead.read(P, after=letters[1].place, limit=9)) == ["c", "d"]
    assert data_of(await dead.read(P, limit=2, newest_first=True)) == ["d", "c"]
    backwards = await dead.read(P, after=letters[1].place, limit=9, newest_first=True)
    assert data_of(backwards) == ["a"]
    assert await dead.get(P, "1-1") is None
    assert await dead.get(OTHER, letters[0].place) is None


async def test_dropped_letters_are_gone(store: Store) -> None:
    """Others stay; what was gone before is not counted."""
    dead = store.edge.dead_letters
    a, _, c = await bury(store, "a", "b", "c")
    assert await dead.drop(P, [a.place, c.place]) == 2
    assert await dead.drop(P, [a.place]) == 0
    assert await dead.drop(P, []) == 0
    assert data_of(await dead.read(P, limit=9)) == ["b"]


async def test_replayed_letters_are_queued_and_gone(store: Store) -> None:
    """They come to the end of the queue, in the order given, with data and meta as told."""
    dead = store.edge.dead_letters
    a, b, c = await bury(store, "a", "b", "c")
    (before,) = (await store.reader.applied([P])).values()
    await store.edge.enqueue(P, [NewMessage(CHANNEL, b"1")], entries_max=9)
    letters = [
        (c.place, NewMessage(CHANNEL, b'"c"', b'{"key":"k"}')),
        (a.place, NewMessage(CHANNEL, b'"a"')),
    ]
    assert await dead.replay(P, letters, entries_max=9) == [Replayed.QUEUED] * 2
    assert await dead.read(P, limit=9) == [b]
    (entries,) = await store.reader.read({P: before}, limit=9, block_s=1)
    assert [(e.channel, e.data, e.meta) for e in entries] == [
        (CHANNEL, b"1", b""),
        (CHANNEL, b'"c"', b'{"key":"k"}'),
        (CHANNEL, b'"a"', b""),
    ]


async def test_replays_of_one_letter_queue_it_once(store: Store) -> None:
    """Whether at the same time, in one call, or again because the answer was lost."""
    dead = store.edge.dead_letters
    (letter,) = await bury(store, "a")
    again = (letter.place, NewMessage(CHANNEL, b'"a"'))
    results = await asyncio.gather(*(dead.replay(P, [again, again], entries_max=9) for _ in "12"))
    flat = [result for each in results for result in each]
    assert sorted(flat, key=lambda r: r.value) == [Replayed.QUEUED, *[Replayed.GONE] * 3]
    assert await dead.replay(P, [again], entries_max=9) == [Replayed.GONE]
    assert (await store.edge.queue_lengths([P]))[P] == 1


async def test_replay_wakes_up_a_waiting_nozzle(store: Store) -> None:
    """A replayed letter goes on at once, like any message."""
    (letter,) = await bury(store, "a")
    after = await store.reader.applied([P])
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(store.reader.read(after, limit=9, block_s=60))
        message = NewMessage(CHANNEL, b'"a"')
        await store.edge.dead_letters.replay(P, [(letter.place, message)], entries_max=9)
    assert [e.data for entries in reading.result() for e in entries] == [b'"a"']


async def test_replay_into_a_full_queue_keeps_the_letter(store: Store) -> None:
    """What fits is queued, the rest stays a dead letter."""
    dead = store.edge.dead_letters
    letters = await bury(store, "a", "b")
    await store.edge.enqueue(P, [NewMessage(CHANNEL, b"1")], entries_max=9)
    both = [(each.place, NewMessage(CHANNEL, each.letter.data.encode())) for each in letters]
    assert await dead.replay(P, both, entries_max=1) == [Replayed.FULL] * 2
    assert await dead.replay(P, both, entries_max=2) == [Replayed.QUEUED, Replayed.FULL]
    assert data_of(await dead.read(P, limit=9)) == ["b"]
    assert (await store.edge.queue_lengths([P]))[P] == 2


async def test_replayed_letter_takes_effect_with_its_idempotency_key(store: Store) -> None:
    """A death uses up no key, a publication does: a second replay of it would change nothing."""
    (letter,) = await bury(store, "a")
    (after,) = (await store.reader.applied([P])).values()
    again = NewMessage(CHANNEL, b'"a"', b'{"key":"k"}')
    await store.edge.dead_letters.replay(P, [(letter.place, again)], entries_max=9)
    await store.edge.enqueue(P, [again], entries_max=9)
    (entries,) = await store.reader.read({P: after}, limit=9, block_s=1)
    publications = group(entries)
    publications.keys = {0: "k", 1: "k"}
    store.ledger.commit([own(entries, [publications], after)])
    history = await store.edge.history(CHANNEL, since=None, limit=None, meta_ttl_s=9)
    assert history.publications == [(1, b'{"data":"a"}')]


@pytest.mark.redis
async def test_letter_that_cannot_be_read_is_listed(valkey_url: str) -> None:
    """One that another version wrote does not hide the others, and can be dropped."""
    edge = RedisEdgeStore(valkey_url, Keys(), partitions=8)
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.xadd(Keys().dead(P), {"d": '{"what": 1}'})
        await client.xadd(Keys().dead(P), {"x": "y"})
    one, two = await edge.dead_letters.read(P, limit=9)
    assert "cannot be read" in one.letter.error
    assert one.letter.data == '{"what": 1}'
    assert await edge.dead_letters.drop(P, [one.place, two.place]) == 2
    await edge.close()


@pytest.mark.redis
async def test_oldest_dead_letters_go_first(valkey_url: str) -> None:
    """A partition keeps exactly as many as it is told."""
    ledger = RedisLedger(valkey_url, Keys(), dead_records_max=2)
    edge = RedisEdgeStore(valkey_url, Keys(), partitions=8)
    dead = [DeadLetter(P, f"{n}-0", CHANNEL, f"{n}", "", "s", "e", "", 1, 5.0) for n in (1, 2, 3)]
    ledger.commit([Commit(P, [Claim(P, FIRST_ID, "3-0")], [], [], dead, own=True)])
    assert data_of(await edge.dead_letters.read(P, limit=9)) == ["2", "3"]
    ledger.close()
    await edge.close()


async def test_notes_are_taken_in_order_and_once(store: Store) -> None:
    """By the edge they were left for, whichever way the calls were cut."""
    boxes = store.edge.boxes
    await boxes.open("e1", ttl_s=60)
    await boxes.open("e2", ttl_s=60)
    assert await boxes.post("e1", [b"1", b"2"]) == 2
    assert await boxes.post("e1", [b"\x00\xff", b"4"]) == 2
    assert await boxes.take("e1", limit=3, block_s=1) == [b"1", b"2", b"\x00\xff"]
    assert await boxes.take("e1", limit=3, block_s=1) == [b"4"]
    assert await boxes.take("e1", limit=3, block_s=0.01) == []
    assert await boxes.take("e2", limit=3, block_s=0.01) == []


async def test_taking_waits_for_a_note(store: Store) -> None:
    """It ends as soon as there is one."""
    boxes = store.edge.boxes
    await boxes.open("e1", ttl_s=60)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(boxes.take("e1", limit=1, block_s=4))
        await asyncio.sleep(0)
        await boxes.post("e1", [b"1"])
    assert taking.result() == [b"1"]


async def test_box_that_is_not_open_is_not_there(store: Store) -> None:
    """Never opened, closed, or not renewed in time."""
    boxes = store.edge.boxes
    assert await boxes.post("e1", [b"1"]) is None
    await boxes.open("e1", ttl_s=60)
    assert await boxes.post("e1", [b"1"]) == 1
    await boxes.close("e1")
    assert await boxes.post("e1", [b"1"]) is None
    await boxes.open("e1", ttl_s=0.05)
    async with asyncio.timeout(5):
        while await boxes.post("e1", [b"1"]) is not None:
            await asyncio.sleep(0.01)
    await boxes.open("e1", ttl_s=60)
    assert await boxes.take("e1", limit=3, block_s=0.01) == []


async def test_renewing_keeps_the_notes(store: Store) -> None:
    """And an unused box is renewed as well as any."""
    boxes = store.edge.boxes
    await boxes.open("e1", ttl_s=60)
    await boxes.post("e1", [b"1"])
    await boxes.open("e1", ttl_s=60)
    assert await boxes.take("e1", limit=3, block_s=1) == [b"1"]


async def test_full_box_accepts_as_much_as_fits(store: Store) -> None:
    """And again as soon as some of it was taken."""
    boxes = store.edge.boxes
    await boxes.open("e1", ttl_s=60)
    assert await boxes.post("e1", [b"x"] * (NOTES_MAX - 1)) == NOTES_MAX - 1
    assert await boxes.post("e1", [b"last", b"too many"]) == 1
    assert await boxes.post("e1", [b"too many"]) == 0
    await boxes.take("e1", limit=10, block_s=1)
    assert await boxes.post("e1", [b"y"]) == 1


async def test_parts_that_ended_are_forgotten(store: Store) -> None:
    """At once where they say so; after a day where they were killed, and say nothing."""
    now_s = time.time()
    for name, age_s in (("lives", 0.0), ("silent", 86_000.0), ("killed", 86_500.0), ("ended", 0.0)):
        store.stats.write_stats(name, {"at_s": now_s - age_s})
    store.stats.remove_stats("ended")
    assert set(await store.edge.read_stats()) == {"lives", "silent"}
    store.stats.write_stats("killed", {"at_s": now_s})
    assert set(await store.edge.read_stats()) == {"lives", "silent", "killed"}


@pytest.mark.redis
async def test_forgotten_parts_leave_nothing(valkey_url: str) -> None:
    """The hash would grow with each edge that is killed."""
    edge, stats = RedisEdgeStore(valkey_url, Keys(), partitions=8), RedisStats(valkey_url, Keys())
    stats.write_stats("killed", {"at_s": 1.0})
    assert await edge.read_stats() == {}
    assert stats.read_stats() == {}
    stats.close()
    await edge.close()
