"""One edge on real sockets, with a pipeline of plain classes and the store in memory."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from actors.errors import SettingsError
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

KEY = {"X-API-Key": "a key"}
SETTINGS = Settings(
    queue=QueueSettings(partitions=2),
    channels=ChannelSettings(history_size=10, history_ttl_s=60),
    client=ClientSettings(insecure=True),
    edge=EdgeSettings(listen="127.0.0.1:0", publish_timeout_s=5),
    auth=AuthSettings(api_key=SecretStr("a key"), token_secret=SecretStr("s" * 32)),
)


@asynccontextmanager
async def running_edge(store: MemoryStore, settings: Settings = SETTINGS) -> AsyncIterator[Edge]:
    edge = Edge(settings, store, store)
    async with asyncio.timeout(20):
        await edge.start()
        try:
            yield edge
        finally:
            await edge.close()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """An edge with a pipeline behind it."""
    store = MemoryStore(2)
    async with pipeline(store, SETTINGS), running_edge(store) as running:
        yield running


async def publish(edge: Edge, **request: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{edge.address}", timeout=10) as http:
        return await http.post("/api/publish", json=request, headers=KEY)


def websocket(edge: Edge) -> connect:
    return connect(f"ws://{edge.address}/connection/websocket")


async def command(client: ClientConnection, **what: Any) -> dict[str, Any]:
    """Send a command and return what comes next."""
    await client.send(json.dumps(what))
    reply: dict[str, Any] = json.loads(str(await client.recv()).split("\n")[0])
    return reply


async def test_published_message_reaches_a_websocket(edge: Edge) -> None:
    """The answer of the API and the push have the same offset."""
    async with websocket(edge) as client:
        await command(client, id=1, connect={})
        await command(client, id=2, subscribe={"channel": "news"})
        response = await publish(edge, channel="news", data={"n": 1})
        push = json.loads(await client.recv())

    assert response.json()["result"]["offset"] == 1
    assert push == {"push": {"channel": "news", "pub": {"offset": 1, "data": {"n": 1}}}}


async def test_client_may_publish(edge: Edge) -> None:
    """What a client publishes goes the same way."""
    async with websocket(edge) as client:
        await command(client, id=1, connect={})
        await command(client, id=2, subscribe={"channel": "news"})
        await client.send(json.dumps({"id": 3, "publish": {"channel": "news", "data": 5}}))
        received = "\n".join([str(await client.recv()), str(await client.recv())])

    assert '"data":5' in received
    assert '{"id":3,"publish":{}}' in received


async def test_published_message_reaches_an_event_source(edge: Edge) -> None:
    """The first event tells of the subscription, the next is the publication."""
    wanted = json.dumps({"subs": {"news": {}}})
    async with (
        httpx.AsyncClient(base_url=f"http://{edge.address}") as http,
        http.stream("GET", "/connection/uni_sse", params={"cf_connect": wanted}) as stream,
    ):
        events = (line async for line in stream.aiter_lines() if line.startswith("data: "))
        assert "news" in json.loads((await anext(events))[6:])["connect"]["subs"]
        await publish(edge, channel="news", data=7)
        assert json.loads((await anext(events))[6:])["pub"]["data"] == 7


async def test_close_sends_clients_away(edge: Edge) -> None:
    """Clients get 3001, which makes them come back, and nothing is taken any more."""
    async with websocket(edge) as client:
        await command(client, id=1, connect={})
        await edge.close()
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3001
    with pytest.raises(httpx.ConnectError):
        await publish(edge, channel="news", data=1)


async def test_publish_under_way_finishes_while_closing() -> None:
    """What was taken before the end still gets its result."""
    store = MemoryStore(2)
    async with running_edge(store) as edge:
        publishing = asyncio.create_task(publish(edge, channel="news", data=1))
        await store._wait_for(lambda: [q for q in store._queues.values() if q], 5)
        closing = asyncio.create_task(edge.close())
        async with pipeline(store, SETTINGS):
            response = await publishing
            await closing

    assert response.json()["result"]["offset"] == 1


async def test_publish_without_a_result_is_told_so_while_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long it might wait otherwise; it is not cut off."""
    monkeypatch.setattr("serve.edge.edge._RESULTS_WITHIN_S", 0.05)
    patient = EdgeSettings(listen="127.0.0.1:0", publish_timeout_s=60)
    store = MemoryStore(2)
    async with running_edge(store, SETTINGS.model_copy(update={"edge": patient})) as edge:
        publishing = asyncio.create_task(publish(edge, channel="news", data=1))
        await store._wait_for(lambda: [q for q in store._queues.values() if q], 5)
        await edge.close()
        response = await publishing

    assert response.status_code == 503
    assert "the message is accepted" in response.json()["error"]["message"]


async def test_closing_edge_ends_connections_with_an_answer() -> None:
    """A publisher that keeps its connection gets one 503, and its next try goes elsewhere."""
    store = MemoryStore(2)
    async with (
        running_edge(store) as edge,
        # Keeps the edge from ending: it does not answer the end of its socket.
        websocket(edge) as client,
        httpx.AsyncClient(base_url=f"http://{edge.address}", headers=KEY) as http,
    ):
        await command(client, id=1, connect={})
        assert (await http.get("/api/info")).status_code
        client.transport.pause_reading()
        closing = asyncio.create_task(edge.close())
        await asyncio.sleep(0)
        refused = await http.post("/api/publish", json={"channel": "news", "data": 1})
        with pytest.raises(httpx.ConnectError):
            await http.get("/health")
        client.transport.resume_reading()
        await closing
    assert refused.status_code == 503
    assert refused.headers["connection"] == "close"


async def test_address_in_use_is_one_clear_error() -> None:
    """The error names the setting and the remedy, and nothing stays behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = SETTINGS.model_copy(update={"edge": EdgeSettings(listen=listen)})
        edge = Edge(settings, MemoryStore(2), MemoryStore(2))
        async with asyncio.timeout(20):
            with pytest.raises(SettingsError, match=f"edge.listen: cannot listen on {listen}"):
                await edge.start()


async def test_edges_share_an_address(edge: Edge) -> None:
    """A second edge may listen on the same address."""
    shared = EdgeSettings(listen=edge.address)
    async with running_edge(MemoryStore(2), SETTINGS.model_copy(update={"edge": shared})) as second:
        assert second.address == edge.address


async def test_edge_that_broke_fails_its_check(edge: Edge) -> None:
    """A part that has ended is told to whoever checks, until the edge is closing anyway."""
    edge.check()
    server = edge._listener._server
    server.should_exit = True
    task = edge._listener._task
    assert task is not None
    await asyncio.wait([task])

    with pytest.raises(RuntimeError, match="listener has ended"):
        edge.check()
    await edge.close()
    edge.check()


async def test_numbers_of_the_edge_are_written() -> None:
    """While it runs, its numbers stand in the store under its name."""
    store = MemoryStore(2)
    async with pipeline(store, SETTINGS), running_edge(store) as edge:
        async with websocket(edge) as client:
            await command(client, id=1, connect={})
            await command(client, id=2, subscribe={"channel": "news"})
            await publish(edge, channel="news", data=1)
            await client.recv()
            numbers = edge.snapshot()
        name = f"edge:{edge.uid}"
        assert name in store.stats

    assert name not in store.stats
    assert numbers["counters"]["publications"] == 1
    assert numbers["counters"]["delivered"] == 1
    assert numbers["counters"]["api_publishes"] == 1
    assert numbers["gauges"]["num_clients"] == 1
    assert numbers["latencies"]["end_to_end"]["count"] == 1


@pytest.mark.parametrize("demo", [False, True])
async def test_page_is_there_only_if_asked_for(demo: bool) -> None:
    """The discussion is served where the setting says so."""
    store = MemoryStore(2)
    async with (
        running_edge(store, SETTINGS.model_copy(update={"demo": demo})) as edge,
        httpx.AsyncClient(base_url=f"http://{edge.address}") as http,
    ):
        response = await http.get("/")

    assert response.status_code == (200 if demo else 404)


async def test_idempotency_key_holds_at_every_edge() -> None:
    """Repeated at another edge, also while the first attempt is under way: the first result."""
    store = MemoryStore(2)
    request = {"channel": "news", "data": {"n": 1}, "idempotency_key": "once"}

    async def publish(edge: Edge) -> Any:
        async with httpx.AsyncClient(base_url=f"http://{edge.address}") as http:
            answer = await http.post(
                "/api/publish", json=request, headers={"X-API-Key": "a key"}, timeout=10
            )
            return answer.json()["result"]

    async with running_edge(store) as one, running_edge(store) as two:
        # Nothing commits yet, and whoever asked gives up: the answer is lost.
        lost = asyncio.create_task(publish(one))
        async with asyncio.timeout(5):
            while not any((await store.queue_lengths(range(2))).values()):
                await asyncio.sleep(0.01)
        lost.cancel()
        async with pipeline(store, SETTINGS):
            results = await asyncio.gather(publish(two), publish(one), publish(two))
    assert list(results) == [results[0]] * 3
    assert results[0]["offset"] == 1
    found = await store.history("news", since=None, limit=None, meta_ttl_s=60)
    assert found.offset == 1
