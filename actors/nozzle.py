"""The nozzle: reads the queue of its partitions and sends batches on their way, in order."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from actors.errors import CrashError, GapError, RaywireError, SuspectError, UnavailableError
from actors.message import (
    Ack,
    Batch,
    Entry,
    Span,
    bury,
    dead_letter,
    encode_batch,
    id_key,
    token_of,
)
from actors.metrics import Numbers
from actors.pacing import Backoff, read_limit, rest_s
from actors.settings.tree import NozzleSettings
from actors.store.interface import QueueReader
from actors.suspects import Suspects

log = logging.getLogger(__name__)

# Batches travel inline between actors up to 2 MB (supervisor: max_direct_call_object_size); half
# of that leaves room for what transforms add.
BATCH_BYTES_MAX: Final = 1_000_000


class Way(Protocol):
    """How batches travel. A run's batches are numbered from 0 on, and take effect in that order.

    Errors of all: `GapError`, `UnavailableError` (`SuspectError` where an actor died).
    """

    def send(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """Send a batch on its way.

        The call itself gives the batch its place in the order, before anything is awaited; the
        awaitable ends when the batch is committed.
        """
        ...

    async def send_alone(self, batch: bytes, run: str, number: int) -> None:
        """Send a batch with nothing else under way, and return when it is committed.

        Raises:
            CrashError: It ended the process of a transformer. It is not committed, and the next
                batch has the same number.
        """
        ...

    async def commit(self, batch: bytes, run: str, number: int) -> None:
        """Commit a batch that passes no stage."""
        ...


class Nozzle:
    """Read some partitions from their checkpoints on and hand on what is there.

    Promises: batches of one run are sent in the order of the queue and without holes. After any
    failure a new run begins at the checkpoint, so a batch may be sent again; the commit makes the
    effect once. At most `window` batches are under way; when they are, nothing is read, and
    the queue grows instead of this process.

    A batch that kills transformers is found, and so is the entry in it (see `Suspects`): that one
    becomes a dead letter, the rest goes on, in order. Until then the nozzle does nothing else.
    """

    def __init__(
        self,
        reader: QueueReader,
        way: Way,
        partitions: Sequence[int],
        settings: NozzleSettings,
        numbers: Numbers,
        *,
        window: int,
        message_bytes_max: int,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self._reader = reader
        self._way = way
        self._partitions = list(partitions)
        self._settings = settings
        self._numbers = numbers
        self._window = window
        self._message_bytes_max = message_bytes_max
        self._clock = clock
        self._backoff = Backoff() if backoff is None else backoff
        self._draining = asyncio.Event()
        self._reading: asyncio.Timeout | None = None
        self._failures = 0
        self._under_way = 0
        self._entry_bytes = 0.0
        self._sent: dict[int, str] = {}
        self._suspects: Suspects | None = None

    def drain(self) -> None:
        """Read no more; `run` returns when what is under way has been committed.

        Of the event loop that runs it. A read that waits is given up: what it would have brought
        stays in the queue.
        """
        self._draining.set()
        if self._reading is not None:
            self._reading.reschedule(0)

    async def run(self) -> None:
        """Move entries until `drain` is called. Never gives up: waits longer between failures."""
        while not self._draining.is_set():
            try:
                await (self._run() if self._suspects is None else self._run_alone(self._suspects))
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
        # Actors die for many reasons; the second time without a commit between is suspect.
        lost_actor = failed.subgroup(SuspectError) is not None
        if lost_actor and self._failures > 1 and self._suspects is None and self._sent:
            self._suspects = Suspects(
                self._sent,
                batch_max=self._settings.batch_max,
                crashes_max=self._settings.crashes_max,
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
        self._sent = {}
        async with asyncio.TaskGroup() as under_way:
            while not self._draining.is_set():
                await window.acquire()
                began_s = self._clock()
                batch = await self._read(after, self._settings.batch_max)
                _end_if_cancelled()
                if batch is None:
                    window.release()
                    await self._check_nothing_lost(after)
                    continue
                for span in batch.spans:
                    after[span.partition] = self._sent[span.partition] = span.upto
                # Sent here, not in the task: tasks may start in another order.
                committed = self._way.send(encode_batch(batch), run, number)
                number += 1
                self._tell_window(1)
                under_way.create_task(self._await(committed, batch, window))
                await asyncio.sleep(
                    rest_s(began_s=began_s, now_s=self._clock(), pace_s=self._settings.pace_s)
                )

    async def _check_nothing_lost(self, after: Mapping[int, str]) -> None:
        """Notice a server that came back with less: its new entries may have lower ids than ours.

        Raises:
            GapError: It has.
        """
        if self._under_way:
            return
        for partition, found in (await self._reader.applied(self._partitions)).items():
            if id_key(found) < id_key(after[partition]):
                raise GapError(
                    f"partition {partition} has applied {found}, not {after[partition]}: "
                    "the server has lost data"
                )

    async def _run_alone(self, suspects: Suspects) -> None:
        """Send suspects, one batch at a time, until there are none."""
        run, number = uuid.uuid4().hex, 0
        after = await self._reader.applied(self._partitions)
        for partition in suspects.partitions():
            # Committed before somebody died: a read would wait for what comes next.
            if suspects.is_through(partition, after[partition]):
                suspects.cleared(partition)
            while partition in suspects.partitions():
                if self._draining.is_set():
                    return
                batch = await self._read({partition: after[partition]}, suspects.limit)
                if batch is None:
                    suspects.cleared(partition)
                elif await self._sent_alone(batch, run, number, suspects):
                    number += 1
                    after[partition] = batch.spans[0].upto
                    suspects.passed(partition, after[partition])
                    self._tell_committed(batch)
        self._suspects = None

    async def _sent_alone(self, batch: Batch, run: str, number: int, suspects: Suspects) -> bool:
        """Return whether a batch is committed, or else buried."""
        if not batch.entries:
            await self._way.commit(encode_batch(batch), run, number)
            return True
        try:
            await self._way.send_alone(encode_batch(batch), run, number)
        except CrashError as error:
            self._numbers.count("crashes")
            entries = batch.entries
            log.warning(
                "transformer died of a batch",
                extra={"stage": error.stage, "size": len(entries), "why": error.why},
            )
            if not suspects.crashed(len(entries)):
                return False
            log.exception(
                "entry becomes a dead letter: it kills its transformer",
                extra={"partition": entries[0].partition, "id": entries[0].id},
            )
            buried = _buried(batch, error, self._settings.crashes_max)
            await self._way.commit(encode_batch(buried), run, number)
        return True

    async def _read(self, after: dict[int, str], batch_max: int) -> Batch | None:
        limit = read_limit(
            entry_bytes=self._entry_bytes,
            partitions=len(after),
            batch_max=batch_max,
            batch_bytes_max=BATCH_BYTES_MAX,
        )
        lists = await self._read_unless_drained(after, limit)
        if not lists:
            return None
        read_at_s = time.time()
        spans = [Span(e[0].partition, after[e[0].partition], e[-1].id) for e in lists]
        entries = [entry for part in lists for entry in part]
        self._measure(lists, entries, read_at_s)
        return self._batch(spans, entries, read_at_s)

    def _batch(self, spans: list[Span], entries: list[Entry], read_at_s: float) -> Batch:
        """Make a batch; what is larger than producers may send is a dead letter in it.

        The API refuses such data, but anybody may append with XADD. No transform sees it.
        """
        limit = self._message_bytes_max
        kept = [entry for entry in entries if len(entry.data) <= limit]
        batch = Batch(spans, kept, [], [], read_at_s)
        if len(kept) < len(entries):
            for entry in entries:
                if len(entry.data) > limit:
                    why = f"data has {len(entry.data)} bytes, more than queue.message_bytes_max"
                    bury(batch, entry, why, died_at_s=read_at_s)
        return batch

    async def _read_unless_drained(self, after: dict[int, str], limit: int) -> list[list[Entry]]:
        if self._draining.is_set():  # while there was no room for another batch
            return []
        # A time limit that `drain` sets: it may block for longer than anybody waits for a drain.
        try:
            async with asyncio.timeout(None) as self._reading:
                return await self._reader.read(after, limit=limit, block_s=self._settings.block_s)
        except TimeoutError:
            return []
        finally:
            self._reading = None

    async def _await(
        self, committed: Awaitable[None], batch: Batch, window: asyncio.Semaphore
    ) -> None:
        await committed
        window.release()
        self._tell_window(-1)
        self._tell_committed(batch)

    def _tell_committed(self, batch: Batch) -> None:
        self._failures = 0
        self._numbers.count("committed", len(batch.entries) + len(batch.dead))
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


def _end_if_cancelled() -> None:
    """Notice a cancellation that was lost on its way here, as when a batch under way has failed.

    Raises:
        asyncio.CancelledError: There was one.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _buried(batch: Batch, error: CrashError, attempts: int) -> Batch:
    """Return the batch of an entry that is to be a dead letter and nothing else."""
    (entry,) = batch.entries
    why = f"the transformer's process ended on it {attempts} times: {error.why}"
    letter = dead_letter(
        entry, stage=error.stage, error=why, died_at_s=time.time(), attempts=attempts
    )
    token = token_of(entry)
    acks = [Ack(entry.partition, token, error=why)] if token else []
    return Batch(batch.spans, [], [*batch.dead, letter], [*batch.acks, *acks], batch.read_at_s)


def _first(group: BaseExceptionGroup[RaywireError]) -> BaseException:
    """Return one error of a group, which may hold groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
