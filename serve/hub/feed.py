"""Follows the feeds of all partitions and hands on what they say. Decides nothing else."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from actors.errors import UnavailableError
from actors.message import id_key
from actors.pacing import Backoff
from actors.store.interface import EdgeStore, FeedRecord

log = logging.getLogger(__name__)

_LIMIT: Final = 200
"""Records of one partition in one read."""


class FeedFollower:
    """Hands on feed records, in order within each partition, from the moment it started.

    A record may be missing, where the feed dropped it before it was read or the server lost it:
    `on_gap` is then called with the partition, before the records that come after the gap. It is
    also called for each partition once the follower has found where the feeds end, as nothing
    before that is handed on. No record is handed on twice.

    While the server is away the follower tries again, and goes on from the same ids; where the
    server that comes back is behind them (emptied, or a replica that lacks the last records), that
    is a gap, too, and it goes on from where that server's feed ends.
    """

    def __init__(
        self,
        store: EdgeStore,
        partitions: Sequence[int],
        on_records: Callable[[list[FeedRecord]], None],
        on_gap: Callable[[int], None],
        *,
        block_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare; nothing is read before `start`.

        Args:
            store: Where the feeds are.
            partitions: The feeds to follow.
            on_records: Gets the records of one read, at least one. Must not raise.
            on_gap: Gets the partition. Must not raise.
            block_s: How long one read waits for records.
            clock: Monotonic seconds.
            backoff: Waits between failed reads.
        """
        self._store = store
        self._partitions = tuple(partitions)
        self._on_records = on_records
        self._on_gap = on_gap
        self._block_s = block_s
        self._clock = clock
        self._backoff = Backoff() if backoff is None else backoff
        self._after: dict[int, str] = {}
        self._seqs: dict[int, int] = {}
        self._moved_at: dict[int, float] = {}
        self._failures = 0
        self._why = "the feeds have not been read yet"
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to follow, in a task of its own that `close` ends."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="feed follower")

    async def close(self) -> None:
        """Stop; nothing is handed on afterwards.

        Raises:
            Exception: What ended the follower before, if it had broken.
        """
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            try:
                await self._task
            except asyncio.CancelledError:
                # Ours, unless whoever waits here is being cancelled as well.
                if not self._task.cancelled():
                    raise
            self._task = None

    async def ready(self) -> None:
        """Wait until the ends of the feeds are known: what is committed from then on is seen."""
        await self._ready.wait()

    def check(self) -> None:
        """Make sure that the follower lives.

        Raises:
            Exception: What ended it: `on_records` or `on_gap` raised.
        """
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def trouble(self) -> str:
        """Say why the feeds cannot be read now; empty: the last read went well."""
        return self._why

    def moved_at(self, partition: int) -> float | None:
        """Return when the partition last had a committed batch, by the clock; None: not yet."""
        return self._moved_at.get(partition)

    async def _run(self) -> None:
        # The flag as well: redis-py takes a cancellation while it connects for a timeout, and
        # so what we get is an UnavailableError.
        while not self._closing:
            try:
                if not self._ready.is_set():
                    await self._find_ends()
                elif self._failures:
                    await self._compare_ends()
                records = await self._store.read_feed(
                    self._after, limit=_LIMIT, block_s=self._block_s
                )
            except UnavailableError as error:
                if not self._closing:
                    await self._pause(error)
                continue
            self._failures = 0
            self._why = ""
            if records:
                self._hand_on(records)

    async def _find_ends(self) -> None:
        for partition, (last, seq) in (await self._store.feed_ends(self._partitions)).items():
            self._after[partition] = last
            self._seqs[partition] = seq
        self._why = ""
        self._ready.set()
        for partition in self._partitions:
            self._on_gap(partition)

    async def _compare_ends(self) -> None:
        """Begin anew in feeds that end before what we have read of them.

        Ids are times: those of a server with a slower clock would stay below ours for long.
        """
        for partition, (last, seq) in (await self._store.feed_ends(self._partitions)).items():
            lost = id_key(last) < id_key(self._after[partition])
            if lost or seq < self._seqs[partition]:
                self._after[partition] = last
                self._tell_gap(partition, self._seqs[partition] + 1, seq)
                self._seqs[partition] = seq

    async def _pause(self, error: UnavailableError) -> None:
        if self._failures == 0:
            log.warning("feeds cannot be read", extra={"why": str(error)})
        self._why = str(error)
        self._failures += 1
        await asyncio.sleep(self._backoff.wait_s(self._failures))

    def _hand_on(self, records: list[FeedRecord]) -> None:
        """Hand on runs of records without a gap between them."""
        now = self._clock()
        start = 0
        for index, record in enumerate(records):
            partition = record.partition
            self._after[partition] = record.id
            known = self._seqs[partition]
            if record.seq:
                before = record.seq - 1
                self._moved_at[partition] = now
            else:  # joins and leaves are not counted
                before = record.last_seq or known
            self._seqs[partition] = record.seq or before
            if before != known:
                if index > start:
                    self._on_records(records[start:index])
                start = index
                self._tell_gap(partition, known + 1, before + 1)
        self._on_records(records[start:])

    def _tell_gap(self, partition: int, expected: int, found: int) -> None:
        # Lower than expected: the server lost records, or was emptied, and counts anew.
        log.warning(
            "gap in the feed",
            extra={"partition": partition, "expected": expected, "found": found},
        )
        self._on_gap(partition)
