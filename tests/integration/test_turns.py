"""Many calls at once: each is done in its turn."""

import asyncio
import signal

import pytest

from actors.errors import UnavailableError
from actors.partition import Keys
from actors.store.redis.client import async_client
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.turns import InTurn
from tests.integration.small_pipeline import OwnValkey

pytestmark = pytest.mark.redis

MANY = 1000


async def enter_and_leave(url: str) -> None:
    """Do `MANY` calls at once, and as many again, and see that each took effect."""
    store = RedisEdgeStore(url, Keys(), partitions=2)
    clients = [f"client{n}" for n in range(MANY)]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(store.enter("news", c, b"{}", ttl_s=60, announce=False) for c in clients)
            )
            there = await store.presence("news")
            await asyncio.gather(*(store.leave("news", c, b"{}", announce=True) for c in clients))
            left = await store.presence("news")
    finally:
        await store.close()
    assert sorted(there) == sorted(clients)
    assert left == {}


async def test_many_calls_at_once_are_all_done(valkey_url: str) -> None:
    """Far more than the library has connections."""
    await enter_and_leave(valkey_url)


async def test_many_calls_at_once_on_a_cluster(cluster_url: str) -> None:
    """There each server has connections of its own."""
    await enter_and_leave(cluster_url)


async def test_calls_begin_in_the_order_in_which_they_are_made(valkey_url: str) -> None:
    """Those that wait go one after the other."""
    client = async_client(valkey_url, timeout_s=5)
    async with asyncio.timeout(60):
        lengths = await asyncio.gather(*(client.rpush("list", n) for n in range(MANY)))
    await client.aclose()
    # Calls under way side by side may overtake one another, but none that waits behind them.
    assert all(abs(length - 1 - n) < 128 for n, length in enumerate(lengths))


async def test_the_feed_is_read_while_many_wait_at_boxes(valkey_url: str) -> None:
    """What blocks for long keeps only its like waiting."""
    store = RedisEdgeStore(valkey_url, Keys(), partitions=1, block_s_max=60)
    waiting = [
        asyncio.create_task(store.boxes.take(f"box{n}", limit=1, block_s=60)) for n in range(MANY)
    ]
    try:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            await store.enter("news", "client", b"{}", ttl_s=60, announce=True)
            (record,) = await store.read_feed({0: "0-0"}, limit=9, block_s=60)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await store.close()
    assert record.joins == [("news", "join", b"{}")]


async def test_server_that_hangs_does_not_keep_calls_waiting(
    valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for a turn has an end; the call was not sent, and says why."""
    monkeypatch.setattr(InTurn, "turn_s", 0.05)
    store = RedisEdgeStore(valkey.url, Keys(), partitions=1, timeout_s=1)
    valkey.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                *(store.presence("news") for _ in range(MANY)), return_exceptions=True
            )
    finally:
        valkey.signal(signal.SIGCONT)
        await store.close()
    said = [str(result) for result in results if isinstance(result, UnavailableError)]
    assert len(said) == MANY
    assert sum("did not answer in time" in text for text in said) == 64
    assert sum("has no connection left for us" in text for text in said) == MANY - 64
