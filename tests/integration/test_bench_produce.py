"""The producer of `raywire bench` on a real Valkey."""

import asyncio
import multiprocessing
import time

import pytest

from actors.errors import SettingsError, UnavailableError
from actors.message import decode_json
from actors.partition import Keys, partition_of
from actors.store.redis.pipeline import RedisQueueReader
from serve.cli.bench_payload import Load
from serve.cli.bench_produce import _produce, open_server

pytestmark = pytest.mark.redis


def _load(url: str, **changes: float) -> Load:
    channels = ("bench0", "bench1")
    return Load(
        redis_url=url,
        websocket_url="",
        channels=channels,
        queues=tuple(Keys().queue(partition_of(channel, 8)) for channel in channels),
        tokens=("", ""),
        rate=changes.get("rate", 500),
        secs=changes.get("secs", 0.2),
        size=200,
        warmup_s=0,
    )


async def test_offers_every_message_once_in_order_in_the_queues(valkey_url: str) -> None:
    """What is written is what a producer in any language would write."""
    ours, theirs = multiprocessing.Pipe()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        producing = asyncio.ensure_future(_produce(theirs, _load(valkey_url)))
        word, pid = await loop.run_in_executor(None, ours.recv)
        assert word == "ready"
        assert pid > 0
        ours.send(time.monotonic_ns())
        await producing
    result = ours.recv()
    assert result["sent"] == 100
    assert result["error"] == ""

    reader = RedisQueueReader(valkey_url, Keys())
    for number, channel in enumerate(("bench0", "bench1")):
        after = {partition_of(channel, 8): "0-0"}
        found = await reader.read(after, limit=1000, block_s=1)
        entries = [entry for entry in found[0] if entry.channel == channel]
        assert [decode_json(entry.data)["n"] for entry in entries] == list(range(50)), number
    await reader.close()


async def test_a_server_that_is_not_there_is_said() -> None:
    """One clear error, no traceback."""
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await open_server("redis://127.0.0.1:1/0")


async def test_a_wrong_password_is_said(valkey_url: str) -> None:
    """The server's own words."""
    url = valkey_url.replace("redis://", "redis://nobody:wrong@")
    with pytest.raises(SettingsError, match="refused"):
        await open_server(url)


async def test_other_kinds_of_urls_are_refused() -> None:
    """Sentinel and Cluster need more than one connection."""
    with pytest.raises(SettingsError, match="redis\\+cluster"):
        await open_server("redis+cluster://127.0.0.1:1")
