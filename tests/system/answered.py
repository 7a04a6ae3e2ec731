"""Publishes that were answered while something ended."""

from collections.abc import Mapping, Sequence

from actors.message import decode_json
from actors.partition import Keys
from actors.store.redis.edge import RedisEdgeStore


async def assert_kept(redis_url: str, answered: Mapping[str, Sequence[int]]) -> None:
    """Make sure that each `n` that was answered is in its channel's history, once and in order."""
    store = RedisEdgeStore(redis_url, Keys("raywire"), partitions=8)
    try:
        for channel, numbers in answered.items():
            found = await store.history(channel, since=None, limit=None, meta_ttl_s=600)
            kept = [decode_json(body)["data"]["n"] for _, body in found.publications]
            assert kept == sorted(set(kept))
            assert set(numbers) <= set(kept)
    finally:
        await store.close()
