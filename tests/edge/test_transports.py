"""Real sockets: WebSocket on the own listener and through ASGI, and one-way SSE. No Ray."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from actors.message import Ack, Meta
from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import FeedGroup, FeedRecord
from actors.store.memory.store import MemoryStore
from serve.hub.hub import Hub
from serve.transports.asgi import routes
from serve.transports.forwarding import Emulation
from serve.transports.websocket import websocket_protocol

NAMESPACES = {
    "plain": ChannelSettings(),
    "seen": ChannelSettings(presence=True),
    "kept": ChannelSettings(history_size=10, history_ttl_s=60, force_recovery=True),
}
Deliver = Callable[..., None]


class Edge:
    """A hub behind a real server."""

    def __init__(self, hub: Hub, store: MemoryStore, port: int, connections: set[Any]) -> None:
        self.hub = hub
        self.store = store
        self.connections = connections
        self.host = f"127.0.0.1:{port}"

    def deliver(self, channel: str, *bodies: bytes) -> None:
        """Let the feed bring publications without offsets."""
        group = FeedGroup(channel, 0, "", len(bodies))
        self.hub.deliver([FeedRecord(0, "1-0", 1, 0.0, [group], list(bodies), [])])

    async def until(self, number: str, value: int) -> None:
        """Wait until one of the hub's numbers is so."""
        async with asyncio.timeout(5):
            while self.hub.numbers()[number] != value:
                await asyncio.sleep(0.005)

    async def empty(self, channel: str) -> None:
        """Wait until nobody is in the presence of a channel."""
        async with asyncio.timeout(5):
            while await self.store.presence(channel):
                await asyncio.sleep(0.005)

    def connect(self, **options: Any) -> connect:
        """Open a WebSocket."""
        return connect(f"ws://{self.host}/connection/websocket", **options)


@asynccontextmanager
async def running(*, own: bool, **limits: Any) -> AsyncIterator[Edge]:
    """Run an edge: with WebSockets of our own, or through ASGI."""
    settings = Settings(
        client=ClientSettings(insecure=True, **limits),
        namespaces=NAMESPACES,
    )
    store = MemoryStore()

    async def publish(channel: str, data: bytes, meta: Meta) -> Ack:
        group = FeedGroup(channel, 0, "", 1)
        body = b'{"data":%b}' % data
        hub.deliver([FeedRecord(0, "1-0", 1, 0.0, [group], [body], [])])
        return Ack(0, meta.wait)

    hub = Hub(settings, store, publish)
    config = uvicorn.Config(
        Starlette(routes=routes(hub, Emulation(store.boxes, "e1"))),
        ws=websocket_protocol(hub) if own else "websockets-sansio",
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    async with asyncio.timeout(5):
        while not server.started:
            await asyncio.sleep(0.005)
    await hub.start()
    try:
        yield Edge(hub, store, listener.getsockname()[1], server.server_state.connections)
    finally:
        await hub.close()
        server.should_exit = True
        await task


@pytest.fixture(params=["own listener", "ASGI"])
async def edge(request: pytest.FixtureRequest) -> AsyncIterator[Edge]:
    """An edge, once with each way in."""
    async with running(own=request.param == "own listener") as edge:
        yield edge


@pytest.fixture
async def listener() -> AsyncIterator[Edge]:
    """An edge with WebSockets of our own."""
    async with running(own=True) as edge:
        yield edge


async def say(socket_: ClientConnection, *commands: dict[str, Any]) -> None:
    """Send commands in one frame."""
    await socket_.send("\n".join(map(json.dumps, commands)))


async def hear(socket_: ClientConnection, count: int) -> list[Any]:
    """Return the next messages; frames hold them whole."""
    found: list[Any] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            frame = await socket_.recv()
            assert isinstance(frame, str)
            found += map(json.loads, frame.split("\n"))
    assert len(found) == count
    return found


async def subscribed(socket_: ClientConnection, *channels: str) -> None:
    """Connect and subscribe."""
    subscribes = [{"id": n, "subscribe": {"channel": c}} for n, c in enumerate(channels, 2)]
    await say(socket_, {"id": 1, "connect": {}}, *subscribes)
    assert all("error" not in m for m in await hear(socket_, 1 + len(channels)))


async def closed(socket_: ClientConnection) -> tuple[int, str]:
    """Wait for the close; return its code and reason."""
    async with asyncio.timeout(5):
        await socket_.wait_closed()
    assert socket_.close_code is not None
    return socket_.close_code, socket_.close_reason or ""


# --- WebSocket, both ways in


async def test_whole_conversation(edge: Edge) -> None:
    """Connect, subscribe, publish, be told, unsubscribe."""
    async with edge.connect() as ws:
        await subscribed(ws, "plain:a")
        await say(ws, {"id": 3, "publish": {"channel": "plain:a", "data": {"text": "héllo"}}})
        messages = await hear(ws, 2)
        push = next(m["push"] for m in messages if "push" in m)
        assert push == {"channel": "plain:a", "pub": {"data": {"text": "héllo"}}}
        assert {"id": 3, "publish": {}} in messages
        await say(ws, {"id": 4, "unsubscribe": {"channel": "plain:a"}})
        assert await hear(ws, 1) == [{"id": 4, "unsubscribe": {}}]
        edge.deliver("plain:a", b'{"data":1}')
        await say(ws, {"id": 5, "rpc": {}})
        assert (await hear(ws, 1))[0]["error"]["code"] == 108


async def test_burst_comes_whole_and_in_order(edge: Edge) -> None:
    """Many publications at once are few frames, none of them large."""
    bodies = [b'{"data":"%06d%b"}' % (number, b"x" * 500) for number in range(1000)]
    async with edge.connect(max_size=2**17) as ws:
        await subscribed(ws, "plain:a")
        edge.deliver("plain:a", *bodies)
        pushes = await hear(ws, 1000)
        assert [int(m["push"]["pub"]["data"][:6]) for m in pushes] == list(range(1000))


@pytest.mark.parametrize(
    ("frame", "code"),
    [("", 3501), ("nonsense", 3501), ('{"id":1,"rpc":{}}', 3501), (b'{"id":1,"x":"\xff"}', 3501)],
)
async def test_what_is_not_of_the_protocol_closes(
    edge: Edge, frame: str | bytes, code: int
) -> None:
    """The close frame has the protocol's code; others are not disturbed."""
    async with edge.connect() as other, edge.connect() as ws:
        await ws.send(frame)
        assert (await closed(ws))[0] == code
        await subscribed(other, "plain:a")


async def test_json_may_come_in_binary_frames(edge: Edge) -> None:
    """Some clients send bytes always; they are answered by text."""
    async with edge.connect() as ws:
        await ws.send(b'{"id":1,"connect":{"name":"\xc3\xa9"}}')
        assert (await hear(ws, 1))[0]["connect"]["client"]


async def test_large_frame_is_refused(edge: Edge) -> None:
    """Over `frame_bytes_max`: 1009, which clients know as the end."""
    async with edge.connect() as ws:
        await ws.send("x" * 70_000)
        assert (await closed(ws))[0] == 1009


async def test_fragmented_frame_is_one_frame(edge: Edge) -> None:
    """Fragments, even through a character, are joined."""
    frame = json.dumps({"id": 1, "connect": {"name": "ü"}}, ensure_ascii=False)
    async with edge.connect() as ws:
        await ws.send([frame[:20], frame[20:25], frame[25:]])
        assert "connect" in (await hear(ws, 1))[0]


async def test_client_that_leaves_is_noticed(edge: Edge) -> None:
    """With a close frame or without one: presence and counts follow at once."""
    async with edge.connect() as ws:
        await subscribed(ws, "seen:a")
        assert len(await edge.store.presence("seen:a")) == 1
    await edge.until("num_clients", 0)
    await edge.empty("seen:a")
    ws = await edge.connect()
    await subscribed(ws, "seen:a")
    ws.transport.abort()
    await edge.until("num_clients", 0)


async def test_shutdown_tells_every_client(edge: Edge) -> None:
    """3001, so that clients come back elsewhere."""
    async with edge.connect() as first, edge.connect() as second:
        await subscribed(first, "plain:a")
        await subscribed(second)
        await edge.hub.close()
        assert await closed(first) == await closed(second) == (3001, "shutdown")


async def test_foreign_page_is_refused(edge: Edge) -> None:
    """An origin that is not allowed never gets a socket; our own and none at all do."""
    with pytest.raises(InvalidStatus) as caught:
        await edge.connect(origin="https://evil.example")
    assert caught.value.response.status_code == 403
    async with edge.connect(origin=f"http://{edge.host}") as ws:
        await subscribed(ws)


@pytest.mark.parametrize("own", [True, False])
async def test_full_edge_refuses_before_the_upgrade(own: bool) -> None:
    """One connection too many gets status 503, and there is room again when one leaves."""
    async with running(own=own, connections_max=1) as edge:
        async with edge.connect() as ws:
            await subscribed(ws)
            with pytest.raises(InvalidStatus) as caught:
                await edge.connect()
            assert caught.value.response.status_code == 503
        await edge.until("num_clients", 0)
        async with edge.connect() as ws:
            await subscribed(ws)


async def test_subprotocols_are_no_reason_to_refuse(edge: Edge) -> None:
    """Ours is chosen where it is offered; another one is not, and the client decides."""
    async with edge.connect(subprotocols=[Subprotocol("centrifuge-json")]) as ws:
        assert ws.subprotocol == "centrifuge-json"
    async with edge.connect(subprotocols=[Subprotocol("what")]) as ws:
        assert ws.subprotocol is None
        await subscribed(ws)


@pytest.mark.parametrize("own", [True, False])
async def test_slow_client_is_closed_and_others_are_not(own: bool) -> None:
    """Who does not read is let go (3008) at the limit of its outbox."""
    async with running(own=own, outbox_bytes_max=200_000) as edge:
        slow = await edge.connect(max_queue=None, max_size=2**22, compression=None)
        quick = await edge.connect(max_queue=None, max_size=2**22, compression=None)
        await subscribed(slow, "plain:a")
        await subscribed(quick, "plain:a")
        slow.transport.pause_reading()
        body = b'{"data":"%b"}' % (b"x" * 50_000)
        async with asyncio.timeout(20):
            while edge.hub.numbers()["slow"] == 0:
                edge.deliver("plain:a", body)
                await hear(quick, 1)
        await edge.until("num_clients", 1)
        edge.deliver("plain:a", b'{"data":1}')
        assert (await hear(quick, 1))[0]["push"]["pub"]["data"] == 1
        slow.transport.resume_reading()
        await slow.close()


@pytest.mark.parametrize("own", [True, False])
async def test_client_that_reads_is_given_any_amount_at_once(own: bool) -> None:
    """Larger than the outbox, and than what a socket takes: it is under way, and nothing waits."""
    async with running(own=own, outbox_bytes_max=20_000) as edge:
        client = await edge.connect(max_size=2**25, compression=None)
        await subscribed(client, "plain:a")
        body = b'{"data":"%b"}' % (b"x" * 2**23)
        async with asyncio.timeout(20):
            for n in range(2):
                edge.deliver("plain:a", body)
                edge.deliver("plain:a", b'{"data":%d}' % n)
                large, small = (push["push"]["pub"]["data"] for push in await hear(client, 2))
                assert (len(large), small) == (2**23, n)
        await client.close()


@pytest.mark.parametrize("own", [True, False])
async def test_silent_client_is_closed(own: bool) -> None:
    """No connect: 3502. No pong: 3012."""
    async with running(own=own, stale_close_delay_s=0.05) as edge, edge.connect() as ws:
        assert await closed(ws) == (3502, "stale")
    limits = {"ping_interval_s": 0.05, "pong_timeout_s": 0.04}
    async with running(own=own, **limits) as edge, edge.connect() as ws:
        await say(ws, {"id": 1, "connect": {}})
        assert (await hear(ws, 2))[1] == {}
        await ws.send("{}")
        assert await hear(ws, 1) == [{}]
        assert await closed(ws) == (3012, "no pong")


@pytest.mark.parametrize("path", ["websocket", "uni_websocket"])
async def test_request_without_upgrade_is_told_what_is_missing(edge: Edge, path: str) -> None:
    """A proxy that leaves the header out is the usual cause, and a 404 would hide it."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{edge.host}/connection/{path}")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "Upgrade" in answer.text


# --- what only our own listener does


async def test_other_paths_are_not_found(listener: Edge) -> None:
    """Only the WebSocket of clients is served there."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://{listener.host}/other")
    assert caught.value.response.status_code == 404


async def test_native_pings_are_answered(listener: Edge) -> None:
    """RFC 6455, section 5.5.2: whatever the protocol above does."""
    async with listener.connect() as ws, asyncio.timeout(5):
        await (await ws.ping())


async def test_pings_without_reading_are_too_slow() -> None:
    """Pongs wait for a client as anything else does, up to `outbox_bytes_max`."""
    async with running(own=True, outbox_bytes_max=100_000) as edge:
        _, writer = await raw(edge)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, too
        pings = (b"\x89\xfd\0\0\0\0" + b"x" * 125) * 500
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while edge.connections:
                    writer.write(pings)
                    await writer.drain()
        await edge.until("num_clients", 0)
        assert edge.hub.numbers()["slow"] == 1
        assert not edge.connections
        writer.close()


async def shaken(
    edge: Edge, *lines: str
) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """Do the handshake by hand; return the head of the answer first."""
    reader, writer = await asyncio.open_connection(*edge.host.split(":"))
    head = [
        "GET /connection/websocket HTTP/1.1",
        f"Host: {edge.host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *lines,
    ]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    async with asyncio.timeout(5):
        return await reader.readuntil(b"\r\n\r\n"), reader, writer


async def raw(edge: Edge, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do the handshake by hand, with success."""
    answer, reader, writer = await shaken(edge, *lines)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return reader, writer


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server ends the connection."""
    async with asyncio.timeout(5):
        return await reader.read()


async def test_empty_subprotocol_header_is_accepted(listener: Edge) -> None:
    """Some clients send the header with nothing in it."""
    _, writer = await raw(listener, "Sec-WebSocket-Protocol: ")
    writer.close()
    await writer.wait_closed()


async def test_subprotocols_may_come_in_several_lines(listener: Edge) -> None:
    """RFC 6455, section 11.3.4."""
    lines = ("Sec-WebSocket-Protocol: foo", "Sec-WebSocket-Protocol: centrifuge-json")
    answer, _, writer = await shaken(listener, *lines)
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"Sec-WebSocket-Protocol: centrifuge-json\r\n" in answer
    writer.close()


@pytest.mark.parametrize("line", ["Origin: http://a\r\nOrigin: http://b", "Host: b"])
async def test_two_origins_or_hosts_are_a_bad_request(listener: Edge, line: str) -> None:
    """There is no saying which one counts."""
    answer, _, writer = await shaken(listener, line)
    assert answer.startswith(b"HTTP/1.1 400")
    writer.close()
    async with asyncio.timeout(5):
        while listener.connections:
            await asyncio.sleep(0.005)


async def test_handshake_that_fails_in_us_leaves_nothing(
    listener: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would wait for the connection when it stops."""

    def broken(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(listener.hub, "connect", broken)
    reader, writer = await raw(listener)
    assert await rest(reader) == b""
    writer.close()
    async with asyncio.timeout(5):
        while listener.connections:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
        (b"\x81\x02{}", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
    ],
    ids=["not UTF-8", "not masked", "unknown opcode", "nothing to continue"],
)
async def test_malformed_frames_get_their_code(listener: Edge, frame: bytes, code: int) -> None:
    """RFC 6455, sections 5 and 8.1."""
    reader, writer = await raw(listener)
    writer.write(frame)
    answer = await rest(reader)
    assert answer[:1] == b"\x88"
    assert int.from_bytes(answer[2:4]) == code
    await listener.until("num_clients", 0)
    writer.close()
    await writer.wait_closed()


async def test_client_that_closes_as_it_is_closed(
    listener: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """Its close frame, come with what it is closed for, is answered; nothing fails."""
    reader, writer = await raw(listener)
    writer.write(b"\x81\x82\0\0\0\0[]" + b"\x88\x82\0\0\0\0\x03\xe8")
    assert await rest(reader) == b"\x88\x02\x03\xe8"
    await listener.until("num_clients", 0)
    assert not caplog.messages
    writer.close()
    await writer.wait_closed()


async def test_client_that_ignores_the_close_is_cut_off(
    listener: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close frame without an answer does not keep a connection."""
    monkeypatch.setattr("serve.transports.websocket._CLOSE_TIMEOUT_S", 0.05)
    reader, writer = await raw(listener)
    writer.write(b"\x81\x82\0\0\0\0[]")
    async with asyncio.timeout(5):
        assert int.from_bytes((await reader.readexactly(4))[2:]) == 3501
    await listener.until("num_clients", 0)
    async with asyncio.timeout(5):
        while listener.hub._connections:
            await asyncio.sleep(0.005)
    writer.close()


async def test_commands_wait_while_others_are_under_way(listener: Edge) -> None:
    """A flood of commands is taken as fast as it is answered, and answered in full."""
    async with listener.connect() as ws:
        await subscribed(ws)
        history = {"channel": "kept:a"}
        for start in range(10, 510, 50):
            await say(ws, *({"id": n, "history": history} for n in range(start, start + 50)))
        assert [reply["id"] for reply in await hear(ws, 500)] == list(range(10, 510))


# --- one-way WebSocket, both ways in


def one_way(edge: Edge, request: str | None = None, **options: Any) -> connect:
    """Open a WebSocket that only listens."""
    query = "" if request is None else f"?cf_connect={quote(request)}"
    return connect(f"ws://{edge.host}/connection/uni_websocket{query}", **options)


@pytest.mark.parametrize("how", ["by query", "by message", "by message after an empty query"])
async def test_one_way_socket_tells_what_happens(edge: Edge, how: str) -> None:
    """The connect push first, then one push a frame, whatever the client says meanwhile."""
    wanted = '{"subs": {"plain:a": {}}}'
    queries = {"by query": wanted, "by message": None}
    async with one_way(edge, queries.get(how, "")) as ws:
        if how != "by query":
            await ws.send(wanted)
        (first,) = await hear(ws, 1)
        assert set(first["connect"]["subs"]) == {"plain:a"}
        assert first["connect"]["session"]
        await ws.send("nonsense")
        edge.deliver("plain:a", *(b'{"data":%d}' % number for number in range(100)))
        for number in range(100):
            assert json.loads(await ws.recv()) == {"channel": "plain:a", "pub": {"data": number}}
    await edge.until("num_clients", 0)


async def test_one_way_socket_speaks_json_whatever_is_offered(edge: Edge) -> None:
    """So Protobuf is not what it says to have chosen."""
    for offered, chosen in (
        (["centrifuge-protobuf"], None),
        (["centrifuge-protobuf", "centrifuge-json"], "centrifuge-json"),
    ):
        async with one_way(edge, "{}", subprotocols=list(map(Subprotocol, offered))) as ws:
            assert ws.subprotocol == chosen
            assert "connect" in (await hear(ws, 1))[0]


async def test_one_way_socket_is_told_why_it_ends(edge: Edge) -> None:
    """By a push and by the close frame."""
    async with one_way(edge, "{}") as ws:
        await hear(ws, 1)
        await edge.hub.close()
        push = {"code": 3001, "reason": "shutdown", "reconnect": True}
        assert await hear(ws, 1) == [{"disconnect": push}]
        assert await closed(ws) == (3001, "shutdown")


@pytest.mark.parametrize(
    ("request_", "code"), [("nonsense", 3501), ('{"token":"x"}', 3500), ("[]", 3501)]
)
async def test_one_way_socket_that_cannot_connect_ends(
    edge: Edge, request_: str, code: int
) -> None:
    """In the query as well as in the first message."""
    async with one_way(edge, request_) as ws:
        assert (await closed(ws))[0] == code
    async with one_way(edge) as ws:
        await ws.send(request_)
        assert (await closed(ws))[0] == code


async def test_one_way_socket_obeys_origins_and_limits(edge: Edge) -> None:
    """As any other."""
    with pytest.raises(InvalidStatus) as caught:
        await one_way(edge, "{}", origin="https://evil.example")
    assert caught.value.response.status_code == 403
    async with one_way(edge) as ws:
        await ws.send("x" * 70_000)
        assert (await closed(ws))[0] == 1009


async def test_one_way_socket_that_leaves_is_noticed(edge: Edge) -> None:
    """Its presence goes at once."""
    async with one_way(edge, '{"subs":{"seen:a":{}}}') as ws:
        await hear(ws, 1)
        assert len(await edge.store.presence("seen:a")) == 1
    await edge.empty("seen:a")


# --- Server-Sent Events


@asynccontextmanager
async def stream(
    edge: Edge, request: str | None = None
) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Open an event stream; gives a function that returns the next message (None: the end)."""
    query = "" if request is None else f"?cf_connect={quote(request)}"
    url = f"http://{edge.host}/connection/uni_sse{query}"
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = response.aiter_lines()

        async def following() -> Any:
            async with asyncio.timeout(5):
                async for line in lines:
                    if line:
                        assert line.startswith("data: ")
                        return json.loads(line.removeprefix("data: "))
            return None

        yield following


async def test_event_stream_tells_what_happens(edge: Edge) -> None:
    """The first event is the connect push; publications follow, one event each."""
    wanted = {"subs": {"plain:a": {}, "kept:a": {"recover": True}}}
    async with stream(edge, json.dumps(wanted)) as following:
        first = (await following())["connect"]
        assert set(first["subs"]) == {"plain:a", "kept:a"}
        assert first["ping"] == 25
        edge.deliver("plain:a", b'{"data":1}', b'{"data":2}')
        for number in (1, 2):
            assert await following() == {"channel": "plain:a", "pub": {"data": number}}
    await edge.until("num_clients", 0)


async def test_event_stream_without_request(edge: Edge) -> None:
    """Nothing given is an empty request."""
    async with stream(edge) as following:
        assert "subs" not in (await following())["connect"]


async def test_dropped_stream_is_noticed_at_once(edge: Edge) -> None:
    """Though nothing is sent: a stream that nobody reads leaves its channels."""
    async with stream(edge, '{"subs":{"seen:a":{}}}') as following:
        await following()
        assert len(await edge.store.presence("seen:a")) == 1
    await edge.until("num_clients", 0)
    await edge.empty("seen:a")


async def test_stream_may_be_asked_for_with_post(edge: Edge) -> None:
    """The body is then the request, and may have line ends in it."""
    async with (
        httpx.AsyncClient() as client,
        client.stream(
            "POST",
            f"http://{edge.host}/connection/uni_sse",
            content=b'{\n"subs": {"plain:a": {}}\n}',
        ) as response,
        asyncio.timeout(5),
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                assert set(json.loads(line[6:])["connect"]["subs"]) == {"plain:a"}
                break


async def test_stream_ends_with_the_reason(edge: Edge) -> None:
    """A disconnect push, then the end of the body."""
    async with stream(edge) as following:
        await following()
        await edge.hub.close()
        disconnect = {"code": 3001, "reason": "shutdown", "reconnect": True}
        assert await following() == {"disconnect": disconnect}
        assert await following() is None


async def test_bad_token_ends_the_stream(edge: Edge) -> None:
    """A terminal code has no `reconnect`."""
    async with stream(edge, '{"token":"x"}') as following:
        assert await following() == {"disconnect": {"code": 3500, "reason": "invalid token"}}
        assert await following() is None


@pytest.mark.parametrize("request_", ["nonsense", "[]", '{"subs":1}'])
async def test_malformed_request_is_a_bad_request(edge: Edge, request_: str) -> None:
    """Status 400, in the query and in the body, which must not be empty."""
    url = f"http://{edge.host}/connection/uni_sse"
    async with httpx.AsyncClient() as client:
        assert (await client.get(url, params={"cf_connect": request_})).status_code == 400
        assert (await client.post(url, content=request_)).status_code == 400
        assert (await client.post(url)).status_code == 400
        assert (await client.post(url, content=b"x" * 70_000)).status_code == 413
        assert (await client.put(url)).status_code == 405


async def test_stream_obeys_origins(listener: Edge) -> None:
    """Another page gets 403; one that is allowed may read the answer."""
    url = f"http://{listener.host}/connection/uni_sse"
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
        headers = {"Origin": f"http://{listener.host}"}
        async with client.stream("GET", url, headers=headers) as response:
            assert response.headers["access-control-allow-origin"] == headers["Origin"]


async def test_full_edge_refuses_streams() -> None:
    """Status 503, as for sockets."""
    async with running(own=True, connections_max=1) as edge, edge.connect() as ws:
        await subscribed(ws)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{edge.host}/connection/uni_sse")
        assert answer.status_code == 503


@pytest.mark.parametrize("kind", ["uni_sse", "uni_http_stream"])
async def test_stream_that_is_read_is_given_any_amount_at_once(kind: str) -> None:
    """All that one read of the feed brings is handed to the sender."""
    async with running(own=True, outbox_bytes_max=20_000) as edge, httpx.AsyncClient() as http:
        url = f"http://{edge.host}/connection/{kind}"
        async with http.stream("POST", url, content='{"subs":{"plain:a":{}}}') as response:
            lines = response.aiter_lines()
            async with asyncio.timeout(20):
                while "connect" not in await anext(lines):
                    pass
                edge.deliver("plain:a", b'{"data":"%b"}' % (b"x" * 2**21))
                edge.deliver("plain:a", b'{"data":"end"}')
                heard = ""
                while "end" not in heard:
                    heard = await anext(lines)
                    assert "disconnect" not in heard


async def test_slow_stream_is_closed() -> None:
    """Who does not read is let go (3008), without an end to wait for."""
    async with running(own=True, outbox_bytes_max=200_000) as edge:
        reader, writer = await asyncio.open_connection(*edge.host.split(":"), limit=1000)
        request = quote('{"subs":{"plain:a":{}}}')
        writer.write(
            f"GET /connection/uni_sse?cf_connect={request} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        )
        await edge.until("num_subs", 1)
        body = b'{"data":"%b"}' % (b"x" * 50_000)
        async with asyncio.timeout(20):
            while edge.hub.numbers()["slow"] == 0:
                edge.deliver("plain:a", body)
                await asyncio.sleep(0)
        await edge.until("num_subs", 0)
        async with asyncio.timeout(10):
            while edge.hub._connections:
                await asyncio.sleep(0.01)
        writer.close()
        del reader
