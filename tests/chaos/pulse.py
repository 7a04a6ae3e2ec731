"""Probes: a few messages at fixed times, whose way shows when the service is interrupted."""

import asyncio
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Final

from actors.partition import partition_of

PROBES_PER_S: Final = 5.0
"""Of each partition."""


def probe_source(partition: int, partitions: int) -> str:
    """Return the channel for the probes of a partition."""
    number = 0
    while partition_of(f"probe.{number}", partitions) != partition:
        number += 1
    return f"probe.{number}"


class Pulse:
    """When probes were due, and how late they came, for every subscriber.

    A probe that had to wait before it could be published counts from when it was due.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = array("d")
        self._late = array("d")
        self._newest: dict[tuple[str, str], float] = {}
        self._came = asyncio.Event()

    def expect(self, subscriber: str, channel: str) -> None:
        """Say that a subscriber is to get a channel's probes."""
        self._newest[subscriber, channel] = 0.0

    def note(self, subscriber: str, channel: str, due_s: float) -> None:
        """Note that a probe came, at this moment."""
        self._due.append(due_s)
        self._late.append(self._clock() - due_s)
        key = subscriber, channel
        self._newest[key] = max(self._newest[key], due_s)
        self._came.set()

    async def beats(self, since_s: float) -> None:
        """Wait until every subscriber has got, of every channel, a probe due after `since_s`."""
        while min(self._newest.values()) < since_s:
            self._came.clear()
            await self._came.wait()

    def silent(self, since_s: float) -> list[str]:
        """Return which of them have got none."""
        return [f"{c} at {s}" for (s, c), at_s in self._newest.items() if at_s < since_s]

    def worst_s(self, from_s: float, to_s: float) -> float:
        """Return the longest that a probe due within a time took."""
        return max((late for due, late in self._all() if from_s <= due < to_s), default=0.0)

    def typical_s(self) -> float:
        """Return the median of all."""
        late = sorted(self._late)
        return late[len(late) // 2] if late else 0.0

    def _all(self) -> Iterator[tuple[float, float]]:
        return zip(self._due, self._late, strict=True)
