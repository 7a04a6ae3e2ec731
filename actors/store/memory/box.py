"""The store in memory: what edges leave for one another. See `interface_box.Boxes`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from actors.store.interface_box import NOTES_MAX


class _Wait(Protocol):
    async def __call__(self, look: Callable[[], list[bytes]], block_s: float) -> list[bytes]: ...


class MemoryBoxes:
    """Implement `interface_box.Boxes`.

    Args:
        clock: Seconds.
        wait_for: Looks again when it is told, until there is something or the time is up.
        tell: Wakes up those who wait.
    """

    def __init__(
        self, *, clock: Callable[[], float], wait_for: _Wait, tell: Callable[[], Awaitable[None]]
    ) -> None:
        self._clock = clock
        self._wait_for = wait_for
        self._tell = tell
        self._open_until: dict[str, float] = {}
        self._notes: dict[str, list[bytes]] = {}

    async def open(self, edge: str, *, ttl_s: float) -> None:
        """See `Boxes.open`."""
        self._open_until[edge] = self._clock() + ttl_s

    async def close(self, edge: str) -> None:
        """See `Boxes.close`."""
        self._open_until.pop(edge, None)
        self._notes.pop(edge, None)

    async def post(self, edge: str, notes: Sequence[bytes]) -> int | None:
        """See `Boxes.post`."""
        if self._open_until.get(edge, 0) <= self._clock():
            self._notes.pop(edge, None)
            return None
        kept = self._notes.setdefault(edge, [])
        accepted = notes[: max(0, NOTES_MAX - len(kept))]
        kept += accepted
        await self._tell()
        return len(accepted)

    async def take(self, edge: str, *, limit: int, block_s: float) -> list[bytes]:
        """See `Boxes.take`."""
        notes = await self._wait_for(lambda: self._notes.get(edge, [])[:limit], block_s)
        del self._notes.get(edge, [])[: len(notes)]
        return notes
