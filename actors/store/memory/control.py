"""The control stream of the store in memory. See `interface_control.ControlStream`."""

from collections.abc import Awaitable, Callable

from actors.message import FIRST_ID, id_key
from actors.store.interface_control import RECORDS_MAX

_Records = list[tuple[str, bytes]]


class MemoryControl:
    """Implement `interface_control.ControlStream`.

    Args:
        next_id: Makes ids that grow.
        tell: Wakes up those who wait for news.
        wait_for: Waits until a look finds something, or some seconds have passed.
    """

    def __init__(
        self,
        *,
        next_id: Callable[[], str],
        tell: Callable[[], Awaitable[None]],
        wait_for: Callable[[Callable[[], _Records], float], Awaitable[_Records]],
    ) -> None:
        self._next_id = next_id
        self._tell = tell
        self._wait_for = wait_for
        self._records: _Records = []

    async def add(self, record: bytes) -> None:
        """See `ControlStream.add`."""
        self._records.append((self._next_id(), record))
        del self._records[:-RECORDS_MAX]
        await self._tell()

    async def end(self) -> str:
        """See `ControlStream.end`."""
        return self._records[-1][0] if self._records else FIRST_ID

    async def read(self, after: str, *, limit: int, block_s: float) -> _Records:
        """See `ControlStream.read`."""
        low = id_key(after)
        return await self._wait_for(
            lambda: [record for record in self._records if id_key(record[0]) > low][:limit],
            block_s,
        )
