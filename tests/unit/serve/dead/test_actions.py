"""Dead letters found, replayed and dropped, over the partitions of a store."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from actors.errors import MessageError
from actors.message import DeadLetter
from actors.store.interface import DeadRecord, NewMessage, Replayed
from actors.store.memory.store import MemoryStore
from serve.dead.actions import PAGE, REFUSED_KEPT_MAX, Drop, Replay, Tally, Wanted, find
from serve.dead.facts import facts_of, summary_of

PARTITIONS = range(3)
ALL = Wanted()


def letter(data: str, channel: str = "news:a", stage: str = "clean", **more: str) -> DeadLetter:
    made = DeadLetter(0, "1000-0", channel, data, "", stage, "ValueError: no", "", 3, 5.0)
    return msgspec.structs.replace(made, **more)


def bury(store: MemoryStore, partition: int, *letters: DeadLetter) -> None:
    store.dead_letters.append(partition, letters)


async def found(store: MemoryStore, wanted: Wanted = ALL, **options: int) -> list[str]:
    records = find(store.dead_letters, PARTITIONS, wanted, **options)  # type: ignore[arg-type]
    return [record.letter.data async for record in records]


def queued(store: MemoryStore) -> list[str]:
    return [entry.data.decode() for queue in store._queues.values() for entry in queue]


async def test_letters_of_all_partitions_come_in_the_order_of_their_deaths() -> None:
    """Newest first, or oldest first, as far as the limit."""
    store = MemoryStore(3)
    for number in range(3 * PAGE):
        bury(store, number % 2, letter(str(number)))
    newest = [str(number) for number in reversed(range(3 * PAGE))]
    assert await found(store) == newest
    assert await found(store, oldest_first=True) == newest[::-1]
    assert await found(store, limit=3) == newest[:3]
    assert await found(MemoryStore(3)) == []


async def test_filters() -> None:
    """By the pattern of the whole channel's name, by stage, or by both."""
    store = MemoryStore(3)
    bury(store, 0, letter("1", "news:a"), letter("2", "news:b", "queue"), letter("3", "new"))
    assert await found(store, Wanted("news:*")) == ["2", "1"]
    assert await found(store, Wanted(stage="queue")) == ["2"]
    assert await found(store, Wanted("news:?", "clean")) == ["1"]
    assert await found(store, Wanted("news")) == []


async def test_replay_moves_what_is_wanted_in_the_order_of_deaths() -> None:
    """Everything else stays."""
    store = MemoryStore(3)
    letters = [letter(str(n), "odd" if n % 2 else "even") for n in range(2 * PAGE + 10)]
    bury(store, 1, *letters)
    tally = Tally()
    looked_at: list[int] = []
    replay = Replay(store.dead_letters, tally, entries_max=1000)
    await replay.wanted(PARTITIONS, Wanted("odd"), looked_at.append)
    assert queued(store) == [str(n) for n in range(1, 2 * PAGE + 10, 2)]
    assert tally.done == PAGE + 5
    assert {each.channel for each in store.dead} == {"even"}
    assert sum(looked_at) == 2 * PAGE + 10


async def test_replay_ends_though_letters_die_again() -> None:
    """What dies while it runs is left for the next time, so it cannot run for ever."""

    class DyingAgain:
        """Buries again at once what is replayed."""

        async def read(
            self, partition: int, *, after: str = "", limit: int, newest_first: bool = False
        ) -> list[DeadRecord]:
            return await store.dead_letters.read(
                partition, after=after, limit=limit, newest_first=newest_first
            )

        async def replay(
            self, partition: int, letters: Sequence[tuple[str, NewMessage]], *, entries_max: int
        ) -> list[Replayed]:
            again = [letter(message.data.decode()) for _, message in letters]
            results = await store.dead_letters.replay(partition, letters, entries_max=entries_max)
            bury(store, partition, *again)
            return results

    store = MemoryStore(3)
    bury(store, 1, *(letter(str(n)) for n in range(PAGE + 1)))
    tally = Tally()
    async with asyncio.timeout(5):
        await Replay(DyingAgain(), tally, entries_max=9999).wanted(PARTITIONS, ALL)  # type: ignore[arg-type]
    assert tally.done == len(store.dead) == PAGE + 1


async def test_what_would_die_again_is_refused_and_the_rest_goes_on() -> None:
    """Each has its reason, up to a limit; all are counted."""
    store = MemoryStore(3)
    bury(store, 0, *(letter("{") for _ in range(REFUSED_KEPT_MAX + 1)), letter("1"))
    tally = Tally()
    await Replay(store.dead_letters, tally, entries_max=9).wanted(PARTITIONS, ALL)
    assert (tally.done, tally.refused) == (1, REFUSED_KEPT_MAX + 1)
    assert len(tally.reasons) == REFUSED_KEPT_MAX
    assert "not JSON" in tally.reasons[0][1]
    assert len(store.dead) == REFUSED_KEPT_MAX + 1


async def test_full_queue_keeps_the_rest_and_does_not_stop_other_partitions() -> None:
    """Nothing is lost, and the partition is named."""
    store = MemoryStore(3)
    bury(store, 0, *(letter(str(n)) for n in range(3)))
    bury(store, 1, letter("9"))
    await store.enqueue(0, [NewMessage("news:a", b"0")], entries_max=9)
    tally = Tally()
    await Replay(store.dead_letters, tally, entries_max=2).wanted(PARTITIONS, ALL)
    assert (tally.done, tally.kept, tally.full) == (2, 2, {0})
    assert [each.data for each in store.dead] == ["1", "2"]


async def test_replay_by_id_says_which_are_not_there() -> None:
    """In the order given; an id given twice is one letter."""
    store = MemoryStore(3)
    bury(store, 1, letter("1"), letter("2"))
    newest, oldest = [r.id async for r in find(store.dead_letters, PARTITIONS, ALL)]
    tally = Tally()
    replay = Replay(store.dead_letters, tally, entries_max=9)
    assert await replay.by_ids([newest, "2-1-1", oldest, newest]) == ["2-1-1"]
    assert queued(store) == ["2", "1"]
    assert (tally.done, tally.gone) == (2, 1)


async def test_nothing_is_done_where_one_of_the_ids_is_none() -> None:
    """A slip of the hand does not leave half of it done."""
    store = MemoryStore(3)
    bury(store, 1, letter("a"))
    (record,) = await store.dead_letters.read(1, limit=9)
    for job in (
        Replay(store.dead_letters, Tally(), entries_max=9),
        Drop(store.dead_letters, Tally()),
    ):
        with pytest.raises(MessageError):
            await job.by_ids([record.id, "oops"])
    assert (len(store.dead), queued(store)) == (1, [])


async def test_drop_deletes_what_is_wanted() -> None:
    """By filter or by id; what is gone is counted."""
    store = MemoryStore(3)
    bury(store, 0, letter("1", "a"), letter("2", "b"))
    bury(store, 2, letter("3", "a"), letter("4", "c"))
    tally = Tally()
    drop = Drop(store.dead_letters, tally)
    await drop.wanted(PARTITIONS, Wanted("a"))
    assert (tally.done, tally.gone) == (2, 0)
    (record,) = await store.dead_letters.read(2, limit=9)
    assert await drop.by_ids([record.id]) == []
    assert await drop.by_ids([record.id]) == [record.id]
    assert (tally.done, tally.gone) == (3, 1)
    assert [each.data for each in store.dead] == ["2"]


def test_facts_show_data_meta_and_times() -> None:
    """JSON as it came, but on one line; the token of who waited is left out."""
    meta = '{"tags":{"k":"v"},"info":{"user":"u"},"key":"once","wait":"t"}'
    record = DeadRecord(2, "7-0", letter('{"n":\n12345678901234567890123.10}', meta=meta))
    facts = facts_of(record)
    assert (facts.id, facts.entry, facts.queued_at_s, facts.obstacle) == (
        "2-7-0",
        "1000-0",
        1.0,
        None,
    )
    assert (facts.tags, facts.info) == ({"k": "v"}, {"user": "u"})
    assert facts.meta == {"tags": {"k": "v"}, "info": {"user": "u"}, "key": "once"}
    line = msgspec.json.encode(facts)
    assert b'"data":{"n": 12345678901234567890123.10}' in line
    assert b"\n" not in line
    assert summary_of(record).error == "ValueError: no"


def test_facts_show_what_cannot_be_read_as_text() -> None:
    """And say why it cannot be replayed."""
    facts = facts_of(DeadRecord(2, "7-0", letter('{"', stage="queue", meta="[")))
    assert (msgspec.json.decode(facts.data), facts.is_json, facts.meta) == ('{"', False, "[")
    assert "not JSON" in str(facts.obstacle)
