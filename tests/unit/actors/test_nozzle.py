"""The nozzle: order, the window, and beginning again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from actors.errors import CrashError, GapError, RaywireError, SuspectError, UnavailableError
from actors.message import Ack, Batch, DeadLetter, Entry, decode_batch
from actors.metrics import Numbers
from actors.nozzle import Nozzle
from actors.pacing import Backoff
from actors.settings.tree import NozzleSettings
from actors.store.interface import Claim, Commit, NewMessage
from actors.store.memory.store import MemoryStore

Commits = Callable[[Batch], Awaitable[None]]


def _data(batch: Batch) -> list[bytes]:
    return [entry.data for entry in batch.entries]


class Line:
    """A stand-in for the actors: commits batches in the order they were sent."""

    def __init__(self, store: MemoryStore, commit: Commits | None = None) -> None:
        self.sent: list[tuple[str, int, list[bytes]]] = []
        self.alone: list[list[bytes]] = []
        self.dead: list[DeadLetter] = []
        self.acks: list[Ack] = []
        self.poison: bytes | None = None
        self.deaths = 0
        self.committed: list[bytes] = []
        self._commit = commit
        self._store = store

    def send(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """Keep what is sent, and commit it."""
        decoded = decode_batch(batch)
        self.sent.append((run, number, _data(decoded)))
        return asyncio.ensure_future(self._finish(decoded, SuspectError("an actor failed")))

    async def send_alone(self, batch: bytes, run: str, number: int) -> None:
        """Do the same; dies of poison."""
        decoded = decode_batch(batch)
        self.alone.append(_data(decoded))
        await self._finish(decoded, CrashError("model", "killed by SIGSEGV"))

    async def commit(self, batch: bytes, run: str, number: int) -> None:
        """Commit without transforms."""
        await self._finish(decode_batch(batch), None)

    async def _finish(self, batch: Batch, death: RaywireError | None) -> None:
        if death is not None and self.poison is not None and self.poison in _data(batch):
            self.deaths += 1
            raise death
        if self._commit is not None:
            await self._commit(batch)
        for span in batch.spans:
            claim = Claim(span.partition, span.after, span.upto)
            (done,) = self._store.commit([Commit(span.partition, [claim], [], [], [], own=True)])
            if not done.done:
                raise GapError("not in turn")
        self.committed += _data(batch)
        self.dead += batch.dead
        self.acks += batch.acks


def nozzle(store: MemoryStore, line: Line, *, window: int = 8, **settings: float) -> Nozzle:
    """A nozzle for two partitions."""
    return Nozzle(
        store,
        line,
        [0, 1],
        NozzleSettings(**{"pace_s": 0, "block_s": 0.01, **settings}),  # type: ignore[arg-type]
        Numbers("nozzle"),
        window=window,
        message_bytes_max=1000,
        backoff=Backoff(first_s=0.001, max_s=0.001),
    )


async def enqueue(store: MemoryStore, *data: bytes, partition: int = 0) -> None:
    """Append messages."""
    await store.enqueue(partition, [NewMessage("c", d) for d in data], entries_max=1000)


async def empty(store: MemoryStore) -> None:
    """Wait until everything is applied."""
    while any((await store.queue_lengths([0, 1])).values()):
        await asyncio.sleep(0)


async def run_until_empty(one: Nozzle, store: MemoryStore) -> None:
    """Run a nozzle until its queue is empty, and drain it."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await empty(store)
        one.drain()
        await running


async def test_one_batch_spans_the_partitions() -> None:
    """More partitions do not mean more batches."""
    store = MemoryStore()
    await enqueue(store, b"1", b"2")
    await enqueue(store, b"3", partition=1)
    line = Line(store)
    await run_until_empty(nozzle(store, line), store)
    assert [data for _, _, data in line.sent] == [[b"1", b"2", b"3"]]


async def test_batches_are_numbered_without_holes() -> None:
    """Within a run the batches follow one another, each from where the last one ended."""
    store = MemoryStore()
    await enqueue(store, *[b"%d" % n for n in range(10)])
    line = Line(store)
    await run_until_empty(nozzle(store, line, batch_max=3), store)
    assert len({run for run, _, _ in line.sent}) == 1
    assert [number for _, number, _ in line.sent] == [0, 1, 2, 3]
    assert [d for _, _, data in line.sent for d in data] == [b"%d" % n for n in range(10)]


async def test_window_bounds_what_is_under_way() -> None:
    """With the window full nothing is read: the queue grows, not the process."""
    store = MemoryStore()
    release = asyncio.Event()
    full = asyncio.Event()

    async def slow(_: Batch) -> None:
        if len(line.sent) == 2:
            full.set()
        await release.wait()

    line = Line(store, slow)
    await enqueue(store, *[b"%d" % n for n in range(5)])
    one = nozzle(store, line, batch_max=1, window=2)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(one.run())
        await full.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(line.sent) == 2
        release.set()
        await empty(store)
        one.drain()


@pytest.mark.parametrize("error", [UnavailableError("away"), GapError("gap")])
async def test_failure_begins_again_at_the_checkpoint(error: Exception) -> None:
    """After a failed batch a new run sends it again, and what came after it; nothing before."""
    store = MemoryStore()
    failures = [error]

    async def once(batch: Batch) -> None:
        if batch.entries[0].data == b"1" and failures:
            raise failures.pop()

    line = Line(store, once)
    await enqueue(store, b"0", b"1", b"2")
    await run_until_empty(nozzle(store, line, batch_max=1, window=1), store)
    first, *_, last = [run for run, _, _ in line.sent]
    assert [data for run, _, data in line.sent if run == first] == [[b"0"], [b"1"]]
    assert [data for run, _, data in line.sent if run == last] == [[b"1"], [b"2"]]
    assert line.sent[2][1] == 0


@pytest.mark.parametrize("window", [1, 8])
async def test_drain_waits_for_what_is_under_way(window: int) -> None:
    """`run` returns after the last commit, and begins no other read."""
    store = MemoryStore()
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Batch) -> None:
        begun.set()
        await release.wait()

    await enqueue(store, b"1")
    one = nozzle(store, Line(store, slow), window=window, block_s=60)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await begun.wait()
        one.drain()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not running.done()
        release.set()
    assert (await store.queue_lengths([0]))[0] == 0


class WaitingStore(MemoryStore):
    """Tells when a read waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()

    async def read(self, after: Mapping[int, str], **how: Any) -> list[list[Entry]]:
        """Tell, and read."""
        self.waits.set()
        return await super().read(after, **how)


async def test_drain_ends_a_read_that_waits() -> None:
    """It may be set to wait longer than the supervisor waits for the drain. Nothing is lost."""
    store = WaitingStore()
    line = Line(store)
    one = nozzle(store, line, block_s=60)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await store.waits.wait()
        one.drain()
        await running
    await enqueue(store, b"1")
    await run_until_empty(nozzle(store, line), store)
    assert line.committed == [b"1"]


async def test_drain_ends_the_wait_after_a_failure() -> None:
    """A nozzle that waits to try again ends at once."""
    store = MemoryStore()

    async def away(_: Batch) -> None:
        one.drain()
        raise UnavailableError("away")

    await enqueue(store, b"1")
    one = Nozzle(
        store,
        Line(store, away),
        [0],
        NozzleSettings(),
        Numbers("nozzle"),
        window=1,
        message_bytes_max=1000,
        backoff=Backoff(first_s=3600, max_s=3600),
    )
    async with asyncio.timeout(5):
        await one.run()
    assert (await store.queue_lengths([0]))[0] == 1


@pytest.mark.parametrize("poison", [0, 7, 12, 19])
async def test_entry_that_kills_transformers_becomes_a_dead_letter(poison: int) -> None:
    """The batch is halved until the entry is alone; the rest goes on, in order, once."""
    store = MemoryStore()
    line = Line(store)
    line.poison = b"%d" % poison
    await enqueue(store, *[b"%d" % n for n in range(20)])
    await enqueue(store, b"other", partition=1)
    await run_until_empty(nozzle(store, line, window=3, batch_max=20, crashes_max=2), store)
    numbers = [data for data in line.committed if data != b"other"]
    assert numbers == [b"%d" % n for n in range(20) if n != poison]
    assert b"other" in line.committed
    (dead,) = line.dead
    assert (dead.data, dead.stage, dead.attempts) == (str(poison), "model", 2)
    assert "SIGSEGV" in dead.error
    # Twice in a batch of many, then log2(20) halves, then twice alone.
    assert line.deaths <= 2 + 5 + 2


async def test_who_waits_for_an_entry_that_kills_is_told() -> None:
    """The ack of a buried entry carries the reason."""
    store = MemoryStore()
    line = Line(store)
    line.poison = b"x"
    await store.enqueue(0, [NewMessage("c", b"x", b'{"wait":"token"}')], entries_max=10)
    await run_until_empty(nozzle(store, line), store)
    (ack,) = line.acks
    assert ack.token == "token"
    assert "2 times" in ack.error


async def test_entry_that_is_too_large_becomes_a_dead_letter() -> None:
    """Before any transform sees it; who waits is told, and the rest goes on."""
    store = MemoryStore()
    line = Line(store)
    large = NewMessage("c", b'"' + b"x" * 999 + b'"', b'{"wait":"token"}')
    await enqueue(store, b"1")
    await store.enqueue(0, [large], entries_max=10)
    await enqueue(store, b'"' + b"y" * 998 + b'"')
    await store.enqueue(1, [large], entries_max=10)
    await run_until_empty(nozzle(store, line), store)
    assert line.committed == [b"1", b'"' + b"y" * 998 + b'"']
    assert [(letter.partition, letter.stage) for letter in line.dead] == [
        (0, "queue"),
        (1, "queue"),
    ]
    assert [(ack.token, "message_bytes_max" in ack.error) for ack in line.acks] == [
        ("token", True),
        ("token", True),
    ]


async def test_entry_that_is_too_large_outlives_the_search_for_one_that_kills() -> None:
    """Also alone in its batch, and where the one beside it is buried."""
    store = MemoryStore()
    line = Line(store)
    line.poison = b"2"
    await enqueue(store, b"1", b"2", b"x" * 1001)
    await enqueue(store, b"x" * 1001, partition=1)
    await run_until_empty(nozzle(store, line), store)
    assert line.committed == [b"1"]
    assert sorted((letter.partition, letter.data[:1]) for letter in line.dead) == [
        (0, "2"),
        (0, "x"),
        (1, "x"),
    ]


async def test_actor_that_dies_for_another_reason_buries_nobody() -> None:
    """Entries under way at a death are sent alone, once, and then all is as before."""
    store = MemoryStore()
    failures = [SuspectError("killed"), SuspectError("not back yet")]

    async def twice(_: Batch) -> None:
        if failures:
            raise failures.pop()

    line = Line(store, twice)
    await enqueue(store, *[b"%d" % n for n in range(6)])
    one = nozzle(store, line, batch_max=2, window=1)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await empty(store)
        await enqueue(store, b"last")
        await empty(store)
        one.drain()
        await running
    assert line.committed == [b"%d" % n for n in range(6)] + [b"last"]
    assert line.alone
    assert line.dead == []
    assert line.sent[-1][2] == [b"last"]


async def test_suspects_that_were_committed_are_not_waited_for() -> None:
    """Their batch was committed before the publisher died: a read would wait for news."""
    store = MemoryStore()

    class Dying(Line):
        """Its publisher dies before the first commit, and after the second."""

        def send(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
            return self._send(super().send(batch, run, number), len(self.sent))

        async def _send(self, sent: Awaitable[None], count: int) -> None:
            await sent
            if count == 2:
                raise SuspectError("an actor failed")

    async def first(_: Batch) -> None:
        if len(line.sent) == 1:
            raise SuspectError("an actor failed")

    line = Dying(store, first)
    await enqueue(store, b"1")
    await enqueue(store, b"2", partition=1)
    one = nozzle(store, line, block_s=60)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await empty(store)
        await enqueue(store, b"new", partition=1)
        await empty(store)
        one.drain()
        await running
    assert line.committed == [b"1", b"2", b"new"]
    assert line.alone == []


async def test_failures_while_suspects_are_sent_do_not_clear_them() -> None:
    """Valkey may go away in the middle; the search goes on where it was."""
    store = MemoryStore()
    failures = [UnavailableError("away")] * 3

    async def now_and_then(_: Batch) -> None:
        if line.alone and failures:
            raise failures.pop()

    line = Line(store, now_and_then)
    line.poison = b"3"
    await enqueue(store, *[b"%d" % n for n in range(8)])
    await run_until_empty(nozzle(store, line), store)
    assert line.committed == [b"%d" % n for n in range(8) if n != 3]
    assert [letter.data for letter in line.dead] == ["3"]


async def test_server_that_came_back_with_less_is_noticed_by_an_idle_nozzle() -> None:
    """Ids of an emptied server may be lower than what was read: reading on would find nothing."""

    class Emptied(MemoryStore):
        """Knows of what is applied in another, until that is emptied."""

        async def applied(self, partitions: Sequence[int]) -> dict[int, str]:
            if emptied:
                return await super().applied(partitions)
            return {0: "99999999999999-0", 1: "0-0"}

    store = Emptied()
    emptied: list[bool] = []
    line = Line(store)
    one = nozzle(store, line)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await enqueue(store, b"new")
        for _ in range(20):
            await asyncio.sleep(0)
        assert line.committed == []
        emptied.append(True)
        await empty(store)
        one.drain()
        await running
    assert line.committed == [b"new"]


class DeafStore(MemoryStore):
    """Its second read waits for what ends others, and does not notice that it is to end."""

    reads = 0

    async def read(self, after: dict[str, str], **how: Any) -> Any:  # type: ignore[override]
        """Return what is there, whatever happens."""
        self.reads += 1
        if self.reads == 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return await super().read(after, **how)  # type: ignore[arg-type]


async def test_read_that_loses_the_cancellation_does_no_harm() -> None:
    """A batch fails while the next one is read: the nozzle begins again, as ever."""
    store = DeafStore()
    failures = [UnavailableError("away")]

    async def fails_once(_: Batch) -> None:
        if failures:
            raise failures.pop()

    line = Line(store, fails_once)
    await enqueue(store, b"1", b"2", b"3")
    await run_until_empty(nozzle(store, line, batch_max=1), store)
    assert line.committed == [b"1", b"2", b"3"]
    assert len({run for run, _, _ in line.sent}) == 2
