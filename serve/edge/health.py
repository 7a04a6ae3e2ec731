"""Tells whether a message would get through."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from actors.errors import QueueFullError, RaywireError
from serve.api.intake import Intake, NoResultError
from serve.hub.feed import FeedFollower

log = logging.getLogger(__name__)

_FRESH_S: Final = 2.0
"""A partition that committed a batch so recently is healthy without a probe."""
_PROBE_S: Final = 2.0
"""How long a probe may take."""
_KEEP_S: Final = 1.0
"""How long a result stands."""
_AGAIN_S: Final = 30.0
"""When a probe that is accepted but has no result yet is given up. Until then no other is sent,
so that asking often does not fill the queue of a pipeline that stands still."""
_PROBES_MAX: Final = 16
"""Partitions that one check probes: those that have not moved for longest."""


class Health:
    """Answers from what the feed shows, and by probes where it shows nothing.

    Those who ask at the same time share one check, and its result stands for a second.
    """

    def __init__(
        self,
        intake: Intake,
        follower: FeedFollower,
        partitions: Sequence[int],
        *,
        probe_s: float = _PROBE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._follower = follower
        self._partitions = tuple(partitions)
        self._probe_s = probe_s
        self._clock = clock
        self._pending: dict[int, float] = {}
        self._problems: list[str] = []
        self._whys: set[str] = set()
        """What the log was told last; empty: all was well since."""
        self._checked_at: float | None = None
        self._check: asyncio.Task[list[str]] | None = None

    async def problems(self) -> list[str]:
        """Return what is wrong, a line each; empty: a message would get through.

        Anybody may read them: which server it is, and why, stands in the log alone.
        """
        if self._check is None:
            if self._checked_at is not None and self._clock() - self._checked_at < _KEEP_S:
                return self._problems
            self._check = asyncio.get_running_loop().create_task(self._find())
        # Shielded: others may wait for it when this caller goes away.
        return await asyncio.shield(self._check)

    async def close(self) -> None:
        """End a check that is under way."""
        if self._check is not None:
            self._check.cancel()
            await asyncio.gather(self._check, return_exceptions=True)

    async def _find(self) -> list[str]:
        try:
            self._problems = await self._look()
            if not self._problems:
                self._whys = set()
            return self._problems
        finally:
            self._checked_at = self._clock()
            self._check = None

    async def _look(self) -> list[str]:
        if self._follower.trouble():  # It has a line in the log.
            return ["the feeds cannot be read"]
        now = self._clock()
        stale = [p for p in self._partitions if self._age_s(p, now) > _FRESH_S]
        stale.sort(key=lambda p: -self._age_s(p, now))
        waiting = [p for p in stale if self._is_pending(p, now)]
        to_probe = [p for p in stale if p not in waiting][:_PROBES_MAX]
        problems = [
            f"partition {p}: no result of a probe for {now - self._pending[p]:.0f} s"
            for p in waiting
        ]
        if to_probe:
            results = await self._intake.probe(to_probe, timeout_s=self._probe_s)
            for partition, result in zip(to_probe, results, strict=True):
                if isinstance(result, NoResultError):
                    self._pending[partition] = now
                if isinstance(result, RaywireError):
                    problems.append(f"partition {partition}: {_told(result)}")
            self._log({str(each) for each in results if isinstance(each, RaywireError)})
        return problems

    def _log(self, whys: set[str]) -> None:
        for why in sorted(whys - self._whys):
            log.warning("a message would not get through", extra={"why": why})
        self._whys = whys

    def _is_pending(self, partition: int, now: float) -> bool:
        """Return whether a probe is in the queue: one answers all who ask."""
        sent_at = self._pending.get(partition)
        if sent_at is None:
            return False
        moved_at = self._follower.moved_at(partition)
        if now - sent_at > _AGAIN_S or (moved_at is not None and moved_at >= sent_at):
            del self._pending[partition]
            return False
        return True

    def _age_s(self, partition: int, now: float) -> float:
        moved_at = self._follower.moved_at(partition)
        return float("inf") if moved_at is None else now - moved_at


def _told(error: RaywireError) -> str:
    """Say what anybody may know of an error."""
    if isinstance(error, NoResultError | QueueFullError):
        return str(error)
    return "the queue does not answer"
