"""Limits of clients on real sockets: past one there is a code, and others feel nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings
from actors.store.memory.store import MemoryStore
from serve.auth.tokens import make_token
from serve.edge.edge import Edge
from tests.edge.test_edge import SETTINGS, publish, running_edge, websocket
from tests.in_process import pipeline

LIMITED = SETTINGS.model_copy(
    update={
        "channels": ChannelSettings(history_size=10, history_ttl_s=60, force_recovery=True),
        "client": ClientSettings(
            insecure=True,
            channels_max=1,
            channel_length_max=9,
            frame_bytes_max=512,
            history_max=2,
            recovery_max=2,
            user_connections_max=1,
            stale_close_delay_s=0.1,
        ),
    }
)
TOKEN = make_token("s" * 32, "ann", now_s=1)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """An edge with low limits and a pipeline behind it."""
    store = MemoryStore(2)
    async with pipeline(store, LIMITED), running_edge(store, LIMITED) as running:
        yield running


async def ask(client: ClientConnection, *commands: dict[str, Any]) -> list[Any]:
    """Send commands in one frame; return as many messages."""
    await client.send("\n".join(map(json.dumps, commands)))
    found: list[Any] = []
    while len(found) < len(commands):
        found += map(json.loads, str(await client.recv()).split("\n"))
    return found


def connect(token: str = "") -> dict[str, Any]:
    """Make the command."""
    return {"id": 1, "connect": {"token": token}}


def subscribe(channel: str, **wishes: Any) -> dict[str, Any]:
    """Make the command."""
    return {"id": 2, "subscribe": {"channel": channel, **wishes}}


async def error_of(client: ClientConnection, *commands: dict[str, Any]) -> int:
    """Return the error of the last command."""
    code: int = (await ask(client, connect(), *commands))[-1]["error"]["code"]
    return code


async def close_of(client: ClientConnection, *commands: dict[str, Any]) -> int:
    """Return the close code that commands, or none, lead to."""
    for command in commands:
        await client.send(json.dumps(command))
    await client.wait_closed()
    assert client.close_code is not None
    return client.close_code


async def recovered(client: ClientConnection) -> int:
    """Return how many publications come of more than may be recovered."""
    result = (await ask(client, connect(), subscribe("news", recover=True)))[1]["subscribe"]
    assert result["was_recovering"]
    assert "recovered" not in result
    return len(result.get("publications", []))


async def history(client: ClientConnection) -> int:
    """Return how many publications come where all are asked for."""
    request = {"id": 2, "history": {"channel": "news", "limit": -1}}
    return len((await ask(client, connect(), request))[1]["history"]["publications"])


@pytest.mark.parametrize(
    ("breach", "answer"),
    [
        (lambda c: error_of(c, subscribe("one"), subscribe("two")), 106),
        (lambda c: error_of(c, subscribe("0123456789")), 107),
        (lambda c: close_of(c, connect("x" * 600)), 1009),
        (close_of, 3502),
        (lambda c: close_of(c, connect(TOKEN)), 3504),
        (recovered, 0),
        (history, 2),
    ],
    ids=["channels", "name", "frame", "stale", "connections", "recovery", "history"],
)
async def test_past_a_limit(
    edge: Edge, breach: Callable[[ClientConnection], Awaitable[int]], answer: int
) -> None:
    """Each has its code, and another client of the channel goes on as if nothing were."""
    async with websocket(edge) as other, asyncio.timeout(10):
        await ask(other, connect(TOKEN), subscribe("news"))
        for n in range(3):
            await publish(edge, channel="news", data=n)
        async with websocket(edge) as client:
            assert await breach(client) == answer
            await publish(edge, channel="news", data="still here")
        heard: list[Any] = []
        while "still here" not in heard:
            messages = map(json.loads, str(await other.recv()).split("\n"))
            heard += [message["push"]["pub"]["data"] for message in messages]
        assert heard == [0, 1, 2, "still here"]
