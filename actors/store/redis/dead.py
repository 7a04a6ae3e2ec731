"""The store on Valkey or Redis: the dead letters. See `interface.DeadLetters`."""

from collections.abc import Sequence
from typing import Any, Final

from actors.partition import Keys
from actors.store.dead_letter import decode_letter
from actors.store.interface import DeadRecord, NewMessage, Replayed
from actors.store.redis.client import AsyncClient, Script, pack, translated

_REPLAYED: Final = (Replayed.GONE, Replayed.QUEUED, Replayed.FULL)
"""By the number that the script returns."""


class RedisDeadLetters:
    """Implement `interface.DeadLetters`.

    Args:
        client: Closed by whoever made it.
        url: For errors.
        keys: Names of the keys.
    """

    def __init__(self, client: AsyncClient, url: str, keys: Keys) -> None:
        self._client = client
        self._url = url
        self._keys = keys
        self._replay = Script("replay")

    async def read(
        self, partition: int, *, after: str = "", limit: int, newest_first: bool = False
    ) -> list[DeadRecord]:
        """See `DeadLetters.read`."""
        dead, edge = self._keys.dead(partition), f"({after}" if after else ""
        with translated(self._url):
            if newest_first:
                found: Any = await self._client.xrevrange(dead, max=edge or "+", count=limit)
            else:
                found = await self._client.xrange(dead, min=edge or "-", count=limit)
        return [_record(partition, place, fields) for place, fields in found]

    async def get(self, partition: int, place: str) -> DeadRecord | None:
        """See `DeadLetters.get`."""
        with translated(self._url):
            found: Any = await self._client.xrange(self._keys.dead(partition), place, place)
        return _record(partition, *found[0]) if found else None

    async def replay(
        self, partition: int, letters: Sequence[tuple[str, NewMessage]], *, entries_max: int
    ) -> list[Replayed]:
        """See `DeadLetters.replay`."""
        keys = [self._keys.queue(partition), self._keys.dead(partition)]
        body = pack([(place, m.channel, m.data, m.meta) for place, m in letters])
        with translated(self._url):
            results: Any = await self._replay.run_async(self._client, keys, [entries_max, body])
        return [_REPLAYED[int(result)] for result in results]

    async def drop(self, partition: int, places: Sequence[str]) -> int:
        """See `DeadLetters.drop`."""
        if not places:
            return 0
        with translated(self._url):
            dropped: Any = await self._client.xdel(self._keys.dead(partition), *places)
        return int(dropped)

    async def count(self, partitions: Sequence[int]) -> dict[int, int]:
        """See `DeadLetters.count`."""
        with translated(self._url):
            return {p: int(await self._client.xlen(self._keys.dead(p))) for p in partitions}


def _record(partition: int, place: bytes, fields: dict[bytes, bytes]) -> DeadRecord:
    return DeadRecord(partition, place.decode(), decode_letter(partition, fields.get(b"d", b"")))
