"""Two real edges on one store in memory: what is said at one must be heard at the other."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from actors.settings.client import ClientSettings
from actors.settings.tree import (
    AuthSettings,
    ChannelSettings,
    EdgeSettings,
    QueueSettings,
    Settings,
)
from actors.store.memory.store import MemoryStore
from serve.edge.edge import Edge
from tests.in_process import pipeline

SECRET = "s" * 32
KEPT = ChannelSettings(
    history_size=10,
    history_ttl_s=60,
    presence=True,
    allow_subscribe_for_client=True,
)
SETTINGS = Settings(
    queue=QueueSettings(partitions=2),
    channels=KEPT,
    client=ClientSettings(allow_anonymous=True),
    namespaces={
        "recover": KEPT.model_copy(update={"force_recovery": True}),
        "plain": ChannelSettings(),
    },
    edge=EdgeSettings(listen="127.0.0.1:0", publish_timeout_s=5),
    auth=AuthSettings(api_key=SecretStr("a key"), token_secret=SecretStr(SECRET)),
)


class Two:
    """Two edges: the API is asked at one, clients are at the other."""

    def __init__(self, asked: Edge, clients: Edge, store: MemoryStore) -> None:
        self.asked = asked
        self.clients = clients
        self.store = store
        self.http = httpx.AsyncClient(
            base_url=f"http://{asked.address}", headers={"X-API-Key": "a key"}, timeout=10
        )

    async def call(self, method: str, /, **request: Any) -> Any:
        """Call the API; return the result."""
        response = await self.http.post(f"/api/{method}", json=request)
        assert response.status_code == 200, response.text
        return response.json()["result"]

    def token(self, user: str, **claims: Any) -> str:
        """Make a token for a user; none for the anonymous one."""
        return jwt.encode({"sub": user, **claims}, SECRET, algorithm="HS256") if user else ""

    @asynccontextmanager
    async def client(self, user: str = "ann") -> AsyncIterator["Client"]:
        """Connect a client to the other edge."""
        async with connect(f"ws://{self.clients.address}/connection/websocket") as socket:
            client = Client(socket)
            await client.say({"id": 1, "connect": {"token": self.token(user)}})
            client.id = (await client.hear())["connect"]["client"]
            yield client


class Client:
    """A WebSocket, message by message."""

    def __init__(self, socket: ClientConnection) -> None:
        self.id = ""
        self._socket = socket
        self._lines: list[str] = []

    async def say(self, command: dict[str, Any]) -> None:
        """Send a command."""
        await self._socket.send(json.dumps(command))

    async def hear(self) -> Any:
        """Return the next message."""
        if not self._lines:
            async with asyncio.timeout(5):
                self._lines = str(await self._socket.recv()).split("\n")
        return json.loads(self._lines.pop(0))

    async def push(self) -> Any:
        """Return the next message, which is a push."""
        return (await self.hear())["push"]

    async def closed(self) -> tuple[int, str]:
        """Wait for the end, and return why."""
        with pytest.raises(ConnectionClosed) as end:
            await self.hear()
        assert end.value.rcvd is not None
        return end.value.rcvd.code, end.value.rcvd.reason

    async def answers(self) -> bool:
        """Make sure that the connection goes on, and nothing came meanwhile."""
        await self.say({"id": 9, "unsubscribe": {"channel": "never"}})
        reply: Any = await self.hear()
        return bool(reply == {"id": 9, "unsubscribe": {}})


@asynccontextmanager
async def two_edges(settings: Settings = SETTINGS) -> AsyncIterator[Two]:
    """Run two edges with a pipeline behind them."""
    store = MemoryStore(2)
    edges = [Edge(settings, store, store) for _ in range(2)]
    async with asyncio.timeout(30), pipeline(store, settings):
        try:
            for edge in edges:
                await edge.start()
            while len(store.stats) < 2:
                await asyncio.sleep(0.005)
            pair = Two(edges[0], edges[1], store)
            async with pair.http:
                yield pair
        finally:
            for edge in edges:
                await edge.close()
