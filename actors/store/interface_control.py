"""What edges need of Valkey to tell one another what is to be done to clients.

Part of `interface`. Nothing here is durable: the stream keeps the last `RECORDS_MAX` records, and a
reader that falls behind them misses the rest without a sign.
"""

from typing import Final, Protocol

RECORDS_MAX: Final = 1_000
"""Records that the control stream keeps, about; the oldest go."""


class ControlStream(Protocol):
    """One small stream that every edge follows from its end on."""

    async def add(self, record: bytes) -> None:
        """Append a record; those who read get it in the order of the stream."""
        ...

    async def end(self) -> str:
        """Return the id of the last record; `0-0` where there is none."""
        ...

    async def read(self, after: str, *, limit: int, block_s: float) -> list[tuple[str, bytes]]:
        """Return (id, record) of what comes after an id, oldest first, at most `limit`.

        Waits up to `block_s` seconds for the first.
        """
        ...
