"""The store on Valkey or Redis: what edges leave for one another. See `interface_box.Boxes`."""

from collections.abc import Sequence
from typing import Any

from actors.partition import Keys
from actors.store.interface_box import NOTES_MAX
from actors.store.redis.client import AsyncClient, Script, translated


class RedisBoxes:
    """Implement `interface_box.Boxes`.

    Args:
        client: For what does not block. Closed by whoever made it, as is the other one.
        blocking: For what waits.
        url: For errors.
        keys: Names of the keys.
    """

    def __init__(self, client: AsyncClient, blocking: AsyncClient, url: str, keys: Keys) -> None:
        self._client = client
        self._blocking = blocking
        self._url = url
        self._keys = keys
        self._post = Script("post")

    async def open(self, edge: str, *, ttl_s: float) -> None:
        """See `Boxes.open`."""
        with translated(self._url):
            await self._client.set(self._keys.box_open(edge), b"", px=round(ttl_s * 1000))

    async def close(self, edge: str) -> None:
        """See `Boxes.close`."""
        with translated(self._url):
            await self._client.delete(self._keys.box_open(edge), self._keys.box(edge))

    async def post(self, edge: str, notes: Sequence[bytes]) -> int | None:
        """See `Boxes.post`."""
        keys = [self._keys.box_open(edge), self._keys.box(edge)]
        with translated(self._url):
            found: Any = await self._post.run_async(self._client, keys, [NOTES_MAX, *notes])
        return None if found < 0 else int(found)

    async def take(self, edge: str, *, limit: int, block_s: float) -> list[bytes]:
        """See `Boxes.take`."""
        box = self._keys.box(edge)
        block_ms = max(1, round(block_s * 1000))
        with translated(self._url):
            found: Any = await self._blocking.execute_command(
                "XREAD", "COUNT", limit, "BLOCK", block_ms, "STREAMS", box, "0-0"
            )
            if not found:
                return []
            notes = found[0][1]
            # Before they are handed on: were the answer lost later, they would be taken twice.
            await self._client.xdel(box, *(note_id for note_id, _ in notes))
        return [fields[b"n"] for _, fields in notes]
