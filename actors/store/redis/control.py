"""The control stream on Valkey or Redis. See `interface_control.ControlStream`."""

from typing import Any

from actors.message import FIRST_ID
from actors.partition import Keys
from actors.store.interface_control import RECORDS_MAX
from actors.store.redis.client import AsyncClient, translated


class RedisControl:
    """Implement `interface_control.ControlStream` on connections that others close.

    Args:
        client: For what answers at once.
        blocking: For reads that wait.
        url: For errors' texts.
        keys: The names.
    """

    def __init__(self, client: AsyncClient, blocking: AsyncClient, url: str, keys: Keys) -> None:
        self._client = client
        self._blocking = blocking
        self._url = url
        self._key = keys.control

    async def add(self, record: bytes) -> None:
        """See `ControlStream.add`."""
        with translated(self._url):
            await self._client.xadd(self._key, {"d": record}, maxlen=RECORDS_MAX, approximate=True)

    async def end(self) -> str:
        """See `ControlStream.end`."""
        with translated(self._url):
            last: Any = await self._client.xrevrange(self._key, count=1)
        return last[0][0].decode() if last else FIRST_ID

    async def read(self, after: str, *, limit: int, block_s: float) -> list[tuple[str, bytes]]:
        """See `ControlStream.read`."""
        block_ms = max(1, round(block_s * 1000))
        with translated(self._url):
            reply: Any = await self._blocking.execute_command(
                "XREAD", "COUNT", limit, "BLOCK", block_ms, "STREAMS", self._key, after
            )
        return [
            (record_id.decode(), fields[b"d"])
            for _, items in reply or ()
            for record_id, fields in items
        ]
