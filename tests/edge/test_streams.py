"""SSE and HTTP streaming on real sockets: what is told in a response, said by other requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings
from actors.store.memory.store import MemoryStore
from serve.edge.edge import Edge
from tests.edge.test_edge import SETTINGS, publish, running_edge
from tests.in_process import pipeline

KINDS = ("sse", "sse by POST", "http_stream")
SEEN = SETTINGS.model_copy(
    update={"channels": ChannelSettings(history_size=10, history_ttl_s=60, presence=True)}
)
PAGE = "https://page.example"


def with_client(**limits: Any) -> Any:
    """The same settings, with other limits for clients."""
    client = ClientSettings(insecure=True, **limits)
    return SEEN.model_copy(update={"client": client})


class Stream:
    """A response that goes on, and requests about it."""

    def __init__(self, http: httpx.AsyncClient, response: httpx.Response, edge: Edge) -> None:
        self.http = http
        self.response = response
        self.edge = edge
        self.session = self.node = ""
        self._events = response.headers["content-type"].startswith("text/event-stream")
        self._lines = response.aiter_lines()

    async def hear(self) -> Any:
        """Return the next message; None: the body has ended."""
        async with asyncio.timeout(5):
            async for line in self._lines:
                if line:
                    assert line.startswith("data: ") is self._events
                    return json.loads(line.removeprefix("data: "))
        return None

    async def say(self, *commands: Any, at: Edge | None = None) -> int:
        """Send commands by a request of their own, perhaps to another edge; return the status."""
        data = "\n".join(map(json.dumps, commands))
        body = {"session": self.session, "node": self.node, "data": data}
        url = f"http://{(at or self.edge).address}/emulation"
        return (await self.http.post(url, content=json.dumps(body))).status_code


@asynccontextmanager
async def opened(edge: Edge, kind: str, *commands: Any) -> AsyncIterator[Stream]:
    """Open a stream with these commands."""
    text = "\n".join(map(json.dumps, commands))
    url = f"http://{edge.address}/connection/{kind.partition(' ')[0]}"
    request: dict[str, Any] = {"method": "POST", "url": url, "content": text}
    if kind == "sse":
        request = {"method": "GET", "url": url, "params": {"cf_connect": text}}
    async with httpx.AsyncClient(timeout=10) as http, http.stream(**request) as response:
        assert response.status_code == 200
        yield Stream(http, response, edge)


@asynccontextmanager
async def connected(edge: Edge, kind: str, connect: Any = None) -> AsyncIterator[Stream]:
    """Open a stream and connect."""
    async with opened(edge, kind, {"id": 1, "connect": connect or {}}) as stream:
        reply = await stream.hear()
        assert reply["id"] == 1
        stream.session, stream.node = reply["connect"]["session"], reply["connect"]["node"]
        assert stream.node == edge.uid
        assert stream.session not in ("", reply["connect"]["client"])
        yield stream


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each way of asking for a stream that is spoken to."""
    return str(request.param)


@pytest.fixture
async def edges() -> AsyncIterator[tuple[Edge, Edge]]:
    """Two edges of one system."""
    store = MemoryStore(2)
    settings = with_client(allowed_origins=(PAGE,))
    async with (
        pipeline(store, SETTINGS),
        running_edge(store, settings) as one,
        running_edge(store, settings) as two,
    ):
        yield one, two


@pytest.mark.parametrize("other", [False, True], ids=["its edge", "another edge"])
async def test_whole_conversation(edges: tuple[Edge, Edge], kind: str, other: bool) -> None:
    """Subscribe, publish, be told, see who is there, unsubscribe: all through either edge."""
    edge, at = edges[0], edges[int(other)]
    async with connected(edge, kind) as stream:
        assert await stream.say({"id": 2, "subscribe": {"channel": "news"}}, at=at) == 204
        assert "subscribe" in await stream.hear()
        assert (
            await stream.say({"id": 3, "publish": {"channel": "news", "data": "é"}}, at=at) == 204
        )
        messages = [await stream.hear(), await stream.hear()]
        assert {"id": 3, "publish": {}} in messages
        (push,) = [message["push"] for message in messages if "push" in message]
        assert push["pub"]["data"] == "é"
        await publish(edges[1], channel="news", data=2)
        assert (await stream.hear())["push"]["pub"]["offset"] == 2
        both = ({"id": 4, "presence_stats": {"channel": "news"}}, {"id": 5, "rpc": {}})
        assert await stream.say(*both, at=at) == 204
        assert (await stream.hear())["presence_stats"] == {"num_clients": 1, "num_users": 1}
        assert (await stream.hear())["error"]["code"] == 108
        assert await stream.say({"id": 6, "unsubscribe": {"channel": "news"}}, at=at) == 204
        assert await stream.hear() == {"id": 6, "unsubscribe": {}}


async def test_first_request_may_hold_several_commands(edges: tuple[Edge, Edge], kind: str) -> None:
    """Each is answered, in order."""
    subscribe = {"id": 2, "subscribe": {"channel": "news"}}
    async with opened(edges[0], kind, {"id": 1, "connect": {}}, subscribe) as stream:
        assert "connect" in await stream.hear()
        assert "subscribe" in await stream.hear()


async def test_commands_keep_their_order(edges: tuple[Edge, Edge]) -> None:
    """Of requests that come one after the other, at an edge that has to pass them on."""
    async with connected(edges[0], "http_stream") as stream:
        for number in range(2, 102):
            assert await stream.say({"id": number, "rpc": {}}, at=edges[1]) == 204
        assert [(await stream.hear())["id"] for _ in range(100)] == list(range(2, 102))


async def test_dropped_stream_is_noticed_at_once(edges: tuple[Edge, Edge], kind: str) -> None:
    """Though nothing is sent: presence goes, the room is free, the session is forgotten."""
    edge, store = edges[0], edges[0]._store
    async with connected(edge, kind, {"subs": {"news": {}}}) as stream:
        assert len(await store.presence("news")) == 1
    async with asyncio.timeout(5):
        while await store.presence("news") or edge._emulation._sessions:
            await asyncio.sleep(0.005)
    assert edge.snapshot()["gauges"]["num_clients"] == 0
    async with httpx.AsyncClient() as stream.http:
        assert await stream.say({"id": 2, "rpc": {}}) == 204


async def test_pongs_come_by_request(kind: str) -> None:
    """Answered in time, the session goes on; else it ends (3012), and says so before the end."""
    settings = with_client(ping_interval_s=0.4, pong_timeout_s=0.3)
    async with running_edge(MemoryStore(2), settings) as edge, connected(edge, kind) as stream:
        for _ in range(3):
            assert await stream.hear() == {}
            assert await stream.say({}) == 204
        assert await stream.hear() == {}
        reason = {"code": 3012, "reason": "no pong", "reconnect": True}
        assert await stream.hear() == {"push": {"disconnect": reason}}
        assert await stream.hear() is None


async def test_what_is_not_of_the_protocol_ends_the_stream(
    edges: tuple[Edge, Edge], kind: str
) -> None:
    """With a push that says why: first command, later one, or a token that is not valid."""
    end = {"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}
    async with opened(edges[0], kind, {"id": 1, "rpc": {}}) as stream:
        assert [await stream.hear(), await stream.hear()] == [end, None]
    async with connected(edges[0], kind) as stream:
        assert await stream.say("nonsense", at=edges[1]) == 204
        assert [await stream.hear(), await stream.hear()] == [end, None]
    async with opened(edges[0], kind, {"id": 1, "connect": {"token": "x"}}) as stream:
        assert (await stream.hear())["push"]["disconnect"]["code"] == 3500


async def test_closing_edge_sends_streams_away(kind: str) -> None:
    """3001, then the end of the body; the edge is then unknown to others."""
    store = MemoryStore(2)
    async with (
        running_edge(store, SEEN) as one,
        running_edge(store, SEEN) as two,
        connected(one, kind) as stream,
    ):
        await one.close()
        assert (await stream.hear())["push"]["disconnect"]["code"] == 3001
        assert await stream.hear() is None
        assert await stream.say({"id": 2, "rpc": {}}, at=two) == 404


async def test_requests_that_are_not_valid_get_their_status(edges: tuple[Edge, Edge]) -> None:
    """400: not to be understood. 404: unknown node. 405: method. 413: more than 64 KiB."""
    base = f"http://{edges[0].address}"
    named = {"session": "s", "node": edges[0].uid, "data": "{}"}
    async with httpx.AsyncClient(base_url=base) as http:
        for body in (b"", b"nonsense", b"[]", b'{"session":"s"}', json.dumps({**named, "data": 1})):
            assert (await http.post("/emulation", content=body)).status_code == 400
        for node in ("00", "", "what/ever{}"):
            body = json.dumps({**named, "node": node})
            assert (await http.post("/emulation", content=body)).status_code == 404
        assert (await http.post("/emulation", content=json.dumps(named))).status_code == 204
        assert (await http.get("/connection/sse")).status_code == 400
        assert (await http.get("/connection/http_stream")).status_code == 405
        assert (await http.get("/connection/uni_http_stream")).status_code == 405
        assert (await http.get("/emulation")).status_code == 405
        for path in ("/emulation", "/connection/sse", "/connection/http_stream"):
            assert (await http.post(path, content=b"x" * 65_537)).status_code == 413


async def test_full_edge_refuses_streams() -> None:
    """Status 503, and there is room again when one leaves."""
    settings = with_client(connections_max=1)
    async with running_edge(MemoryStore(2), settings) as edge:
        url = f"http://{edge.address}/connection/http_stream"
        async with connected(edge, "sse"), httpx.AsyncClient() as http:
            assert (await http.post(url, content=b"{}")).status_code == 503
        async with asyncio.timeout(5):
            while edge.snapshot()["gauges"]["num_clients"]:
                await asyncio.sleep(0.005)
        async with connected(edge, "http_stream"):
            pass


@pytest.mark.parametrize(
    "path",
    ["/emulation", *(f"/connection/{name}" for name in ("sse", "http_stream", "uni_http_stream"))],
)
async def test_pages_need_an_origin_that_is_allowed(edges: tuple[Edge, Edge], path: str) -> None:
    """Preflight and request; others get 403 for both, and no leave to read it."""
    async with httpx.AsyncClient(base_url=f"http://{edges[0].address}") as http:
        wish = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        preflight = await http.options(path, headers=wish)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "content-type"
        assert preflight.headers["access-control-max-age"] == "300"
        answer = await http.post(path, content=b"x" * 65_537, headers={"Origin": PAGE})
        for response in (preflight, answer):
            assert response.headers["access-control-allow-origin"] == PAGE
            assert response.headers["access-control-allow-credentials"] == "true"
            assert response.headers["vary"] == "Origin"
        for method in ("OPTIONS", "POST"):
            foreign = await http.request(method, path, headers={"Origin": "https://evil.example"})
            assert foreign.status_code == 403
            assert "access-control-allow-origin" not in foreign.headers


async def test_headers_keep_proxies_from_holding_back(edges: tuple[Edge, Edge], kind: str) -> None:
    """Caches, nginx, and clients that wait for a first byte."""
    async with opened(edges[0], kind, {"id": 1, "connect": {}}) as stream:
        headers = stream.response.headers
        assert "no-store" in headers["cache-control"]
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers
        assert "access-control-allow-origin" not in headers


# --- one way


async def test_one_way_stream_tells_what_happens(edges: tuple[Edge, Edge]) -> None:
    """Bare pushes, a line each: connect first, with a session and no node; at last the reason."""
    url = f"http://{edges[0].address}/connection/uni_http_stream"
    wanted = json.dumps({"subs": {"news": {}}})
    async with (
        httpx.AsyncClient(timeout=10) as http,
        http.stream("POST", url, content=wanted) as response,
    ):
        stream = Stream(http, response, edges[0])
        first = (await stream.hear())["connect"]
        assert set(first["subs"]) == {"news"}
        assert first["session"]
        assert "node" not in first
        assert "pong" not in first
        await publish(edges[1], channel="news", data=7)
        assert (await stream.hear())["pub"]["data"] == 7
        stream.session, stream.node = first["session"], edges[0].uid
        assert await stream.say({"id": 2, "rpc": {}}) == 204
        await edges[0].close()
        assert (await stream.hear())["disconnect"]["code"] == 3001
        assert await stream.hear() is None


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"subs":1}'])
async def test_one_way_stream_needs_a_request(edges: tuple[Edge, Edge], body: bytes) -> None:
    """Status 400; an empty one is written `{}`."""
    url = f"http://{edges[0].address}/connection/uni_http_stream"
    async with httpx.AsyncClient() as http:
        assert (await http.post(url, content=body)).status_code == 400
