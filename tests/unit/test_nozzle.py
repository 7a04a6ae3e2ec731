"""The nozzle: order, the window, and beginning again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from actors.errors import GapError, UnavailableError
from actors.message import Batch, decode_batch
from actors.metrics import Numbers
from actors.nozzle import Nozzle
from actors.pacing import Backoff
from actors.settings import NozzleSettings
from actors.store import Claim, Commit, NewMessage
from actors.store_memory import MemoryStore

Commits = Callable[[Batch], Awaitable[None]]


class Line:
    """A stand-in for the actors: commits batches in the order they were sent."""

    def __init__(self, store: MemoryStore, commit: Commits | None = None) -> None:
        self.sent: list[tuple[str, int, list[bytes]]] = []
        self._commit = commit
        self._store = store

    def __call__(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        decoded = decode_batch(batch)
        self.sent.append((run, number, [entry.data for entry in decoded.entries]))
        return self._finish(decoded)

    async def _finish(self, batch: Batch) -> None:
        if self._commit is not None:
            await self._commit(batch)
        for span in batch.spans:
            claim = Claim(span.partition, span.after, span.upto)
            (done,) = self._store.commit([Commit(span.partition, [claim], [], [], [], own=True)])
            if not done.done:
                raise GapError("not in turn")


def nozzle(store: MemoryStore, line: Line, *, window: int = 8, **settings: float) -> Nozzle:
    """A nozzle for two partitions."""
    return Nozzle(
        store,
        line,
        [0, 1],
        NozzleSettings(**{"pace_s": 0, "block_s": 0.01, **settings}),  # type: ignore[arg-type]
        Numbers("nozzle"),
        window=window,
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


async def test_drain_waits_for_what_is_under_way() -> None:
    """`run` returns after the last commit."""
    store = MemoryStore()
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Batch) -> None:
        begun.set()
        await release.wait()

    await enqueue(store, b"1")
    one = nozzle(store, Line(store, slow))
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await begun.wait()
        one.drain()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not running.done()
        release.set()
    assert (await store.queue_lengths([0]))[0] == 0


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
        backoff=Backoff(first_s=3600, max_s=3600),
    )
    async with asyncio.timeout(5):
        await one.run()
    assert (await store.queue_lengths([0]))[0] == 1
