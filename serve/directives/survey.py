"""Which channels the clients of all edges are subscribed to, asked over the control stream."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from actors.errors import MessageError, UnavailableError
from actors.store.interface import EdgeStore
from serve.directives.directive import AskChannels, encode

log = logging.getLogger(__name__)

CHANNELS_MAX: Final = 20_000
"""Channels that one edge tells; with more the caller must narrow the pattern."""
FRESH_S: Final = 10.0
"""An edge that has not written its numbers for so long is taken for dead."""
_WITHIN_S: Final = 5.0
_BLOCK_S: Final = 1.0


class _Answer(msgspec.Struct):
    """Channel -> subscribers at one edge. `cut`: there are more than may be told."""

    edge: str
    channels: dict[str, int] = {}
    cut: bool = False


_decode: Final = msgspec.json.Decoder(_Answer).decode


class Survey:
    """Ask all edges that live, and answer when others ask.

    A question goes over the control stream, as every edge must hear it. The answers come to a box
    of the question's own, which is there for seconds: they may be large, and are for one alone.

    Args:
        store: The control stream, the boxes, and the numbers by which edges are known to live.
        edge: The id of this one.
        count: Return channel -> subscribers here, for a pattern (empty: all).
        within_s: How long the edges may take together.
        wall: Seconds since the epoch.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: EdgeStore,
        edge: str,
        count: Callable[[str], dict[str, int]],
        *,
        within_s: float = _WITHIN_S,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._edge = edge
        self._count = count
        self._within_s = within_s
        self._wall = wall
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def channels(self, pattern: str) -> dict[str, int]:
        """Return channel -> subscribers of all edges, each as it was during the call.

        An edge that died without a word makes calls fail until it has been silent for `FRESH_S`:
        without it the answer might be half of the truth, and look like the whole.

        Raises:
            UnavailableError: Not all edges answered in time, or the server is away.
            MessageError: There are more channels than may be told.
        """
        deadline = self._clock() + self._within_s
        wanted = await self._edges()
        ask = AskChannels(id=secrets.token_hex(8), pattern=pattern)
        await self._store.boxes.open(ask.id, ttl_s=2 * self._within_s)
        try:
            await self._store.control.add(encode(ask))
            answers = await self._collect(ask, wanted, deadline)
        finally:
            with contextlib.suppress(UnavailableError):  # It goes by itself, if later.
                await self._store.boxes.close(ask.id)
        missing = len(wanted - set(answers))
        if missing:
            raise UnavailableError(f"{missing} edges did not say which channels they have")
        if any(answer.cut for answer in answers.values()):
            raise MessageError(f"an edge has more than {CHANNELS_MAX} such channels")
        total: Counter[str] = Counter()
        for answer in answers.values():
            total.update(answer.channels)
        return dict(total)

    async def _edges(self) -> set[str]:
        parts = await self._store.read_stats()
        oldest = self._wall() - FRESH_S
        return {self._edge} | {
            part.partition(":")[2]
            for part, numbers in parts.items()
            if numbers.get("kind") == "edge" and numbers.get("at_s", 0) >= oldest
        }

    async def _collect(
        self, ask: AskChannels, wanted: set[str], deadline: float
    ) -> dict[str, _Answer]:
        answers: dict[str, _Answer] = {}
        while wanted - set(answers) and (left_s := deadline - self._clock()) > 0:
            notes = await self._store.boxes.take(
                ask.id, limit=len(wanted), block_s=min(left_s, _BLOCK_S)
            )
            for answer in map(_decode, notes):
                answers[answer.edge] = answer
        return answers

    def take(self, ask: AskChannels) -> None:
        """Answer another edge, or this one itself. Does not raise."""
        task = asyncio.get_running_loop().create_task(self._answer(ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, ask: AskChannels) -> None:
        channels = self._count(ask.pattern)
        cut = len(channels) > CHANNELS_MAX
        answer = _Answer(self._edge, {} if cut else channels, cut)
        try:
            await self._store.boxes.post(ask.id, [msgspec.json.encode(answer)])
        except UnavailableError as error:
            # Whoever asked gives up in time, and says so.
            log.warning("channels not told", extra={"why": str(error)})

    async def close(self) -> None:
        """End the answers under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
