"""The nozzle: reads the queue of its partitions and sends batches on their way, in order."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from actors.errors import GapError, RaywireError, UnavailableError
from actors.message import Batch, Entry, Span, encode_batch
from actors.metrics import Numbers
from actors.pacing import Backoff, read_limit, rest_s
from actors.settings import NozzleSettings
from actors.store import QueueReader

log = logging.getLogger(__name__)

# Batches travel inline between actors up to 2 MB (supervisor: max_direct_call_object_size); half
# of that leaves room for what transforms add.
BATCH_BYTES_MAX: Final = 1_000_000


class Send(Protocol):
    """How a batch is sent on its way.

    The call itself gives the batch its place in the order, before anything is awaited; the
    awaitable ends when the batch is committed, or raises `GapError` or `UnavailableError`.
    """

    def __call__(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """Send one batch, the `number`-th (from 0 on) of a run."""
        ...


class Nozzle:
    """Read some partitions from their checkpoints on and hand on what is there.

    Promises: batches of one run are sent in the order of the queue and without holes. After any
    failure a new run begins at the checkpoint, so a batch may be sent again; the commit makes the
    effect once. At most `window` batches are under way; when they are, nothing is read, and
    the queue grows instead of this process.
    """

    def __init__(
        self,
        reader: QueueReader,
        send: Send,
        partitions: Sequence[int],
        settings: NozzleSettings,
        numbers: Numbers,
        *,
        window: int,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self._reader = reader
        self._send = send
        self._partitions = list(partitions)
        self._settings = settings
        self._numbers = numbers
        self._window = window
        self._clock = clock
        self._backoff = Backoff() if backoff is None else backoff
        self._draining = asyncio.Event()
        self._failures = 0
        self._under_way = 0
        self._entry_bytes = 0.0

    def drain(self) -> None:
        """Read no more; `run` returns when what is under way has been committed."""
        self._draining.set()

    async def run(self) -> None:
        """Move entries until `drain` is called. Never gives up: waits longer between failures."""
        while not self._draining.is_set():
            try:
                await self._run()
            except* (GapError, UnavailableError) as failed:
                await self._after_failure(failed)

    async def _after_failure(self, failed: BaseExceptionGroup[RaywireError]) -> None:
        self._failures += 1
        self._numbers.count("rewinds")
        wait_s = self._backoff.wait_s(self._failures)
        log.warning(
            "nozzle begins again at the checkpoint",
            extra={"why": str(_first(failed)), "failures": self._failures, "wait_s": wait_s},
        )
        try:
            async with asyncio.timeout(wait_s):
                await self._draining.wait()
        except TimeoutError:
            return

    async def _run(self) -> None:
        run, number = uuid.uuid4().hex, 0
        after = await self._reader.applied(self._partitions)
        # The window belongs to the run: a task cancelled before it began gives nothing back.
        window = asyncio.Semaphore(self._window)
        self._under_way = 0
        async with asyncio.TaskGroup() as under_way:
            while not self._draining.is_set():
                await window.acquire()
                began_s = self._clock()
                batch = await self._read(after)
                if batch is None:
                    window.release()
                    continue
                for span in batch.spans:
                    after[span.partition] = span.upto
                # Sent here, not in the task: tasks may start in another order.
                committed = self._send(encode_batch(batch), run, number)
                number += 1
                self._tell_window(1)
                under_way.create_task(self._await(committed, batch, window))
                await asyncio.sleep(
                    rest_s(began_s=began_s, now_s=self._clock(), pace_s=self._settings.pace_s)
                )

    async def _read(self, after: dict[int, str]) -> Batch | None:
        lists = await self._reader.read(
            after,
            limit=read_limit(
                entry_bytes=self._entry_bytes,
                partitions=len(after),
                batch_max=self._settings.batch_max,
                batch_bytes_max=BATCH_BYTES_MAX,
            ),
            block_s=self._settings.block_s,
        )
        if not lists:
            return None
        read_at_s = time.time()
        spans = [Span(e[0].partition, after[e[0].partition], e[-1].id) for e in lists]
        entries = [entry for part in lists for entry in part]
        self._measure(lists, entries, read_at_s)
        return Batch(spans, entries, read_at_s=read_at_s)

    async def _await(
        self, committed: Awaitable[None], batch: Batch, window: asyncio.Semaphore
    ) -> None:
        await committed
        window.release()
        self._tell_window(-1)
        self._failures = 0
        self._numbers.count("committed", len(batch.entries))
        self._numbers.latency("pipeline").record(time.time() - batch.read_at_s)

    def _tell_window(self, change: int) -> None:
        self._under_way += change
        self._numbers.gauge("window_used", self._under_way)

    def _measure(self, lists: list[list[Entry]], entries: list[Entry], read_at_s: float) -> None:
        size = sum(len(entry.data) + len(entry.meta) for entry in entries) / len(entries) + 60
        self._entry_bytes = size if not self._entry_bytes else 0.8 * self._entry_bytes + 0.2 * size
        self._numbers.count("entries", len(entries))
        self._numbers.count("batches")
        queue = self._numbers.latency("queue")
        for part in lists:
            # The first and the last speak for those between: once per batch, not per entry.
            for entry, share in ((part[0], len(part) - len(part) // 2), (part[-1], len(part) // 2)):
                if share:
                    arrived_s = int(entry.id.partition("-")[0]) / 1000
                    queue.record(max(0.0, read_at_s - arrived_s), share)


def _first(group: BaseExceptionGroup[RaywireError]) -> BaseException:
    """Return one error of a group, which may hold groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
