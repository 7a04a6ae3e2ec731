"""The follower hands on every record once, in order, and tells of gaps."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from actors.errors import UnavailableError
from actors.pacing import Backoff
from actors.store.interface import FeedRecord
from actors.store.memory.store import MemoryStore
from serve.hub.feed import FeedFollower


def record(partition: int, seq: int, *, at: int = 0, last_seq: int = 0) -> FeedRecord:
    return FeedRecord(partition, f"{at or 1000 + seq}-0", seq, 0.0, [], [], [], last_seq=last_seq)


class ScriptedStore(MemoryStore):
    """Answers `read_feed` from a list; an exception in it is raised; then waits for ever."""

    def __init__(
        self, reads: Sequence[list[FeedRecord] | Exception], *, seqs: Mapping[int, int]
    ) -> None:
        super().__init__(len(seqs))
        self.reads = list(reads)
        self.seqs = seqs
        self.asked: list[dict[int, str]] = []
        self.ends_fail = 0
        self.ends = {p: (f"{1000 + seq}-0", seq) for p, seq in seqs.items()}
        self.exhausted = asyncio.Event()

    async def feed_ends(self, partitions: Sequence[int]) -> dict[int, tuple[str, int]]:
        if self.ends_fail:
            self.ends_fail -= 1
            raise UnavailableError("away")
        return {p: self.ends[p] for p in partitions}

    async def read_feed(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[FeedRecord]:
        self.asked.append(dict(after))
        if not self.reads:
            self.exhausted.set()
            await asyncio.Event().wait()
        step = self.reads.pop(0)
        if isinstance(step, Exception):
            raise step
        self.ends |= {r.partition: (r.id, r.seq) for r in step}
        return step


class Log:
    """What a follower told, in order, and an event for each amount of it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._changed = asyncio.Condition()

    def on_records(self, records: list[FeedRecord]) -> None:
        self.told += [f"{r.partition}:{r.seq}" for r in records]

    def on_gap(self, partition: int) -> None:
        self.told.append(f"gap {partition}")


async def read_all(store: ScriptedStore) -> None:
    """Wait until the script is read, and asked for more."""
    async with asyncio.timeout(2):
        await store.exhausted.wait()
        await asyncio.sleep(0)


async def follow(store: ScriptedStore) -> tuple[list[str], FeedFollower]:
    """Follow until all of the script is read."""
    log = Log()
    follower = FeedFollower(
        store, list(store.seqs), log.on_records, log.on_gap, backoff=Backoff(0.0)
    )
    follower.start()
    await read_all(store)
    return log.told, follower


async def test_records_come_in_order_and_the_next_read_goes_on_after_them() -> None:
    """Reading begins at the end of the feeds, and goes on after the last record of each."""
    store = ScriptedStore([[record(0, 6), record(0, 7), record(1, 1)], []], seqs={0: 5, 1: 0})

    told, follower = await follow(store)
    await follower.close()

    assert told == ["gap 0", "gap 1", "0:6", "0:7", "1:1"]
    assert store.asked[0] == {0: "1005-0", 1: "1000-0"}
    assert store.asked[1] == {0: "1007-0", 1: "1001-0"}


async def test_jump_is_told_before_the_records_after_it() -> None:
    """Records that are missing between two are told in their place, by partition."""
    store = ScriptedStore(
        [[record(0, 1), record(0, 2), record(0, 5), record(1, 1)]], seqs={0: 0, 1: 0}
    )

    told, follower = await follow(store)
    await follower.close()

    assert told[2:] == ["0:1", "0:2", "gap 0", "0:5", "1:1"]


async def test_gap_at_the_first_record_of_a_read() -> None:
    """A gap between two reads is noticed as well."""
    store = ScriptedStore([[record(0, 1)], [record(0, 4)], [record(0, 5)]], seqs={0: 0})

    told, follower = await follow(store)
    await follower.close()

    assert told[1:] == ["0:1", "gap 0", "0:4", "0:5"]


async def test_server_that_counts_anew_is_a_gap() -> None:
    """A lower number than expected means that the server was emptied."""
    store = ScriptedStore(
        [[record(0, 8)], [record(0, 1, at=3000)], [record(0, 2, at=3001)]], seqs={0: 7}
    )

    told, follower = await follow(store)
    await follower.close()

    assert told[1:] == ["0:8", "gap 0", "0:1", "0:2"]


async def test_joins_are_not_counted() -> None:
    """Records with number 0 are handed on and make no gap."""
    store = ScriptedStore([[record(0, 1), record(0, 0, at=1002), record(0, 2)]], seqs={0: 0})

    told, follower = await follow(store)
    await follower.close()

    assert told[1:] == ["0:1", "0:0", "0:2"]
    assert follower.moved_at(0) is not None


@pytest.mark.parametrize(("last_seq", "gap"), [(1, False), (3, True), (0, False)])
async def test_joins_tell_of_commits_that_they_pushed_out(last_seq: int, gap: bool) -> None:
    """They take places in the feed; those of an older version do not say what is before them."""
    join = record(0, 0, at=1003, last_seq=last_seq)
    after = record(0, last_seq + 1 if last_seq else 2, at=1004)
    store = ScriptedStore([[record(0, 1)], [join, after]], seqs={0: 0})

    told, follower = await follow(store)
    await follower.close()

    assert told[1:] == ["0:1", *(["gap 0"] if gap else []), "0:0", f"0:{after.seq}"]


async def test_outage_is_waited_out() -> None:
    """While the server is away nothing is lost: reading goes on from the same ids."""
    away = UnavailableError("away")
    store = ScriptedStore([[record(0, 1)], away, away, [record(0, 2)]], seqs={0: 0})
    store.ends_fail = 2

    told, follower = await follow(store)
    trouble = follower.trouble()
    await follower.close()

    assert told == ["gap 0", "0:1", "0:2"]
    assert store.asked[1] == store.asked[3] == {0: "1001-0"}
    assert trouble == ""


@pytest.mark.parametrize("end", [("0-0", 0), ("900-0", 3), ("1004-0", 2), ("900-0", 4)])
async def test_server_that_comes_back_behind_us_is_a_gap(end: tuple[str, int]) -> None:
    """Emptied, or without its last records: told at once, and read from where it stands.

    Its clock may be slow, so that ids after its end are still below those that we have read.
    """

    class Emptied(ScriptedStore):
        async def feed_ends(self, partitions: Sequence[int]) -> dict[int, tuple[str, int]]:
            return {0: end} if len(self.asked) > 1 else await super().feed_ends(partitions)

    store = Emptied([[record(0, 3)], UnavailableError("away"), []], seqs={0: 2})
    told, follower = await follow(store)
    await follower.close()

    assert told == ["gap 0", "0:3", "gap 0"]
    assert store.asked[-1] == {0: end[0]}


async def test_trouble_says_why_nothing_is_read() -> None:
    """The reason stands as long as reads fail."""
    store = ScriptedStore([[record(0, 1)], UnavailableError("no route")], seqs={0: 0})

    _, follower = await follow(store)

    assert follower.trouble() == "no route"
    await follower.close()


@pytest.mark.parametrize("times", [1, 2])
async def test_close_ends_the_follower(times: int) -> None:
    """Close may be called before start and again."""
    store = ScriptedStore([], seqs={0: 0})
    _, follower = await follow(store)

    for _ in range(times):
        await follower.close()

    follower.check()


async def test_close_ends_a_read_that_swallows_the_cancellation() -> None:
    """Some clients take a cancellation for a timeout; the follower ends all the same."""

    class DeafStore(ScriptedStore):
        async def read_feed(
            self, after: Mapping[int, str], *, limit: int, block_s: float
        ) -> list[FeedRecord]:
            try:
                return await super().read_feed(after, limit=limit, block_s=block_s)
            except asyncio.CancelledError as error:
                raise UnavailableError("timeout") from error

    _, follower = await follow(DeafStore([], seqs={0: 0}))

    async with asyncio.timeout(2):
        await follower.close()


async def test_check_tells_what_broke_the_follower() -> None:
    """An error in a callback ends the follower, and whoever checks it is told."""

    def broken(_: object) -> None:
        raise ValueError("broken")

    on_gap: Callable[[int], None] = Log().on_gap
    store = ScriptedStore([[record(0, 1)]], seqs={0: 0})
    follower = FeedFollower(store, [0], broken, on_gap)
    follower.start()
    follower.check()
    task = follower._task
    assert task is not None
    async with asyncio.timeout(2):
        await asyncio.wait([task])

    with pytest.raises(ValueError, match="broken"):
        follower.check()
    with pytest.raises(ValueError, match="broken"):
        await follower.close()
