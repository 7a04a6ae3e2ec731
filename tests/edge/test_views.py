"""Deltas and tag filters on real sockets: from the publishing API to what clients make of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from actors.settings.tree import ChannelSettings
from actors.store.memory.store import MemoryStore
from serve.edge.edge import Edge
from tests.edge.test_edge import SETTINGS, publish, running_edge, websocket
from tests.fossil_apply import apply
from tests.in_process import pipeline

KEPT = ChannelSettings(
    history_size=100,
    history_ttl_s=60,
    force_recovery=True,
    allowed_delta_types=("fossil",),
    allow_tags_filter=True,
)
VIEWS = SETTINGS.model_copy(
    update={
        "namespaces": {
            "d": KEPT,
            "asked": KEPT.model_copy(update={"delta_publish": False}),
        }
    }
)
RED = {"key": "color", "cmp": "eq", "val": "red"}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """An edge with a pipeline behind it."""
    store = MemoryStore(2)
    async with pipeline(store, VIEWS), running_edge(store, VIEWS) as running:
        yield running


def rows(changed: int) -> list[dict[str, Any]]:
    """Make data of which each publication changes two rows far apart, one of them not in ASCII."""
    table = [{"id": n, "name": f"row {n} řádek", "value": n * 7919} for n in range(100)]
    table[3]["value"] = changed
    table[90]["name"] = "ž" * changed + "š🐎"
    return table


@asynccontextmanager
async def subscriber(edge: Edge, channel: str, **wishes: Any) -> AsyncIterator["Reader"]:
    """Connect and subscribe."""
    async with websocket(edge) as socket, asyncio.timeout(10):
        reader = Reader(socket)
        commands = [
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": channel, **wishes}},
        ]
        await socket.send("\n".join(map(json.dumps, commands)))
        await reader.next()
        reader.result = (await reader.next())["subscribe"]
        yield reader


class Reader:
    """Reads what a socket brings, as the SDKs do."""

    def __init__(self, socket: ClientConnection) -> None:
        self.result: dict[str, Any] = {}
        self.sizes: list[int] = []
        self._socket = socket
        self._lines: list[str] = []
        self._base = b""

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        while not self._lines:
            self._lines = str(await self._socket.recv()).split("\n")
        self.sizes.append(len(self._lines[0]))
        message: dict[str, Any] = json.loads(self._lines.pop(0))
        return message

    async def publication(self) -> dict[str, Any]:
        """Return the next publication."""
        publication: dict[str, Any] = (await self.next())["push"]["pub"]
        return publication

    def data(self, publication: dict[str, Any]) -> Any:
        """Return what was published, of a publication that may be a delta."""
        text = publication["data"].encode()
        self._base = apply(self._base, text) if publication.get("delta") else text
        return json.loads(self._base)


async def test_deltas_save_most_of_what_is_sent(edge: Edge) -> None:
    """Live and recovered; who did not ask for them gets all as ever."""
    async with subscriber(edge, "d:a", delta="fossil") as deltas, subscriber(edge, "d:a") as plain:
        assert deltas.result["delta"]
        assert "delta" not in plain.result
        for n in range(3):
            await publish(edge, channel="d:a", data=rows(n))
        got = [await deltas.publication() for _ in range(3)]
        assert [deltas.data(item) for item in got] == [rows(n) for n in range(3)]
        assert [item.get("delta", False) for item in got] == [False, True, True]
        assert max(deltas.sizes[-2:]) < deltas.sizes[-3] / 20
        assert [(await plain.publication())["data"] for n in range(3)] == [
            rows(n) for n in range(3)
        ]

        since = {"recover": True, "offset": 1, "epoch": deltas.result["epoch"]}
        async with subscriber(edge, "d:a", delta="fossil", **since) as back:
            await publish(edge, channel="d:a", data=rows(3))
            items = [*back.result["publications"], await back.publication()]
            assert [item["offset"] for item in items] == [2, 3, 4]
            assert [back.data(item) for item in items] == [rows(1), rows(2), rows(3)]


async def test_publisher_chooses_deltas_where_the_namespace_lets_it(edge: Edge) -> None:
    """Without `delta` a publication comes whole, as text; history never has any of this."""
    async with subscriber(edge, "asked:a", delta="fossil") as deltas:
        for n, wish in enumerate([None, True, False, True]):
            await publish(edge, channel="asked:a", data=rows(n), delta=wish)
        got = [await deltas.publication() for _ in range(4)]
        assert [item.get("delta", False) for item in got] == [False, True, False, True]
        assert [deltas.data(item) for item in got] == [rows(n) for n in range(4)]
        request = {"id": 3, "history": {"channel": "asked:a", "limit": 9}}
        await deltas._socket.send(json.dumps(request))
        found = (await deltas.next())["history"]["publications"]
        assert found == [{"offset": n + 1, "data": rows(n)} for n in range(4)]


async def test_filter_lets_through_what_was_tagged_so(edge: Edge) -> None:
    """Live and recovered; what is left out is no gap."""
    async with subscriber(edge, "d:b", tf=RED) as red, subscriber(edge, "d:b") as plain:
        for n, color in enumerate(["red", "blue", "red"], 1):
            await publish(edge, channel="d:b", data=n, tags={"color": color})
        assert [(await red.publication())["offset"] for _ in range(2)] == [1, 3]
        assert [(await plain.publication())["offset"] for _ in range(3)] == [1, 2, 3]

        since = {"recover": True, "offset": 1, "epoch": red.result["epoch"]}
        async with subscriber(edge, "d:b", tf=RED, **since) as back:
            assert back.result["recovered"]
            assert [item["offset"] for item in back.result["publications"]] == [3]
