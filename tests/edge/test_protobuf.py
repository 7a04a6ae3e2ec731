"""Protobuf clients on real sockets: both ways in, beside JSON clients, and as an HTTP stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from actors.settings.tree import ChannelSettings
from actors.store.memory.store import MemoryStore
from tests.edge.test_edge import SETTINGS, publish, running_edge
from tests.edge.test_transports import Edge, closed, hear, running, say, subscribed
from tests.in_process import pipeline
from tests.protobuf_speech import SCHEMA, from_protobuf, to_protobuf

PROTOBUF = Subprotocol("centrifuge-protobuf")
HEADERS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(params=["own listener", "ASGI"])
async def edge(request: pytest.FixtureRequest) -> AsyncIterator[Edge]:
    """An edge, once with each way in."""
    async with running(own=request.param == "own listener") as edge:
        yield edge


def socket_to(edge: Edge) -> connect:
    """Open a Protobuf connection."""
    return edge.connect(subprotocols=[PROTOBUF])


class Client:
    """A socket that Protobuf is spoken on."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._heard: list[Any] = []

    async def say(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame."""
        await self.socket.send(to_protobuf(*commands))

    async def hear(self) -> Any:
        """Return the next message; frames hold them whole."""
        async with asyncio.timeout(5):
            while not self._heard:
                frame = await self.socket.recv()
                assert isinstance(frame, bytes)
                self._heard += from_protobuf(frame)
        return self._heard.pop(0)

    async def ask(self, **command: Any) -> Any:
        """Send a command; return what comes next."""
        await self.say(command)
        return await self.hear()

    async def subscribed(self, channel: str, **wishes: Any) -> Any:
        """Connect and subscribe; return the result."""
        await self.say({"id": 1, "connect": {}})
        assert "connect" in await self.hear()
        return (await self.ask(id=2, subscribe={"channel": channel, **wishes}))["subscribe"]


async def test_whole_conversation(edge: Edge) -> None:
    """Connect, subscribe, publish, be told, see who is there, unsubscribe."""
    async with socket_to(edge) as socket:
        client = Client(socket)
        await client.subscribed("seen:a")
        await client.say({"id": 3, "publish": {"channel": "seen:a", "data": {"text": "héllo"}}})
        messages = [await client.hear(), await client.hear()]
        assert {"id": 3, "publish": {}} in messages
        push = {"push": {"channel": "seen:a", "pub": {"data": {"text": "héllo"}}}}
        assert push in messages
        stats = await client.ask(id=4, presence_stats={"channel": "seen:a"})
        assert stats["presence_stats"] == {"num_clients": 1, "num_users": 1}
        presence = await client.ask(id=5, presence={"channel": "seen:a"})
        ((name, info),) = presence["presence"]["presence"].items()
        assert info == {"user": "", "client": name}
        assert await client.ask(id=6, unsubscribe={"channel": "seen:a"}) == {
            "id": 6,
            "unsubscribe": {},
        }
        assert (await client.ask(id=7, rpc={}))["error"]["code"] == 108


@pytest.mark.parametrize(
    ("query", "offered", "chosen", "protobuf"),
    [
        ("", ["centrifuge-protobuf"], "centrifuge-protobuf", True),
        ("", ["other", "centrifuge-protobuf"], "centrifuge-protobuf", True),
        ("", ["centrifuge-json"], "centrifuge-json", False),
        ("", ["other"], None, False),
        ("", None, None, False),
        ("?format=protobuf", None, None, True),
        ("?cf_protocol=protobuf", ["other"], None, True),
        ("?format=json", None, None, False),
    ],
)
async def test_client_chooses(
    edge: Edge, query: str, offered: list[str] | None, chosen: str | None, protobuf: bool
) -> None:
    """By subprotocol or query; none is refused for what it offers, and JSON is the default."""
    url = f"ws://{edge.host}/connection/websocket{query}"
    names = None if offered is None else [Subprotocol(name) for name in offered]
    async with connect(url, subprotocols=names) as socket:
        assert socket.subprotocol == chosen
        if protobuf:
            assert "connect" in await Client(socket).ask(id=1, connect={})
        else:
            await subscribed(socket)


async def test_clients_of_both_codecs_hear_each_other(edge: Edge) -> None:
    """What one publishes reaches the other in its own codec."""
    async with edge.connect() as plain, socket_to(edge) as socket:
        client = Client(socket)
        await subscribed(plain, "plain:a")
        await client.subscribed("plain:a")
        edge.deliver("plain:a", b'{"tags":{"a":"b"},"data":"from elsewhere"}')
        wanted = {"tags": {"a": "b"}, "data": "from elsewhere"}
        assert (await client.hear())["push"]["pub"] == wanted
        assert (await hear(plain, 1))[0]["push"]["pub"] == wanted
        await client.say({"id": 3, "publish": {"channel": "plain:a", "data": {"n": 1}}})
        assert (await hear(plain, 1))[0]["push"]["pub"]["data"] == {"n": 1}
        messages = [await client.hear(), await client.hear()]
        assert {"id": 3, "publish": {}} in messages
        await say(plain, {"id": 3, "publish": {"channel": "plain:a", "data": "é"}})
        assert (await client.hear())["push"]["pub"]["data"] == "é"


@pytest.mark.parametrize("frame", [b"", b"nonsense", "", "{}", to_protobuf({"id": 1, "rpc": {}})])
async def test_what_is_not_of_the_protocol_closes(edge: Edge, frame: str | bytes) -> None:
    """Text as well: it is 3501, and others are not disturbed."""
    async with socket_to(edge) as other, socket_to(edge) as socket:
        await socket.send(frame)
        assert (await closed(socket))[0] == 3501
        await Client(other).subscribed("plain:a")


async def test_large_frame_is_refused(edge: Edge) -> None:
    """Over `frame_bytes_max`: 1009, which clients know as the end."""
    async with socket_to(edge) as socket:
        await socket.send(b"x" * 70_000)
        assert (await closed(socket))[0] == 1009


async def test_burst_comes_whole_and_in_order(edge: Edge) -> None:
    """Many publications at once are few frames, none of them large."""
    bodies = [b'{"data":"%06d%b"}' % (number, b"x" * 500) for number in range(1000)]
    async with edge.connect(subprotocols=[PROTOBUF], max_size=2**17) as socket:
        client = Client(socket)
        await client.subscribed("plain:a")
        edge.deliver("plain:a", *bodies)
        pushes = [await client.hear() for _ in bodies]
        assert [int(m["push"]["pub"]["data"][:6]) for m in pushes] == list(range(1000))


async def test_fragmented_frame_is_one_frame(edge: Edge) -> None:
    """Fragments, even through a length, are joined."""
    frame = to_protobuf({"id": 1, "connect": {"name": "x" * 300}})
    async with socket_to(edge) as socket:
        await socket.send([frame[:1], frame[1:50], frame[50:]])
        assert "connect" in await Client(socket).hear()


@pytest.mark.parametrize("own", [True, False])
async def test_pings_are_empty_replies(own: bool) -> None:
    """They are answered by an empty command; who does not is closed: 3012."""
    async with (
        running(own=own, ping_interval_s=0.1, pong_timeout_s=0.09) as edge,
        socket_to(edge) as socket,
    ):
        client = Client(socket)
        assert (await client.ask(id=1, connect={}))["connect"]["pong"] is True
        async with asyncio.timeout(5):
            for _ in range(2):
                assert await socket.recv() == b"\0"
                await socket.send(b"\0")
            assert await socket.recv() == b"\0"
        assert await closed(socket) == (3012, "no pong")


async def test_missed_publications_are_recovered() -> None:
    """History, and recovery after the connection was cut."""
    store = MemoryStore(2)
    channels = ChannelSettings(history_size=10, history_ttl_s=60, force_recovery=True)
    settings = SETTINGS.model_copy(update={"channels": channels})
    async with pipeline(store, SETTINGS), running_edge(store, settings) as edge:
        url = f"ws://{edge.address}/connection/websocket?format=protobuf"
        async with connect(url) as socket:
            first = await Client(socket).subscribed("a")
            socket.transport.abort()
        async with connect(url) as socket:
            client = Client(socket)
            await client.ask(id=1, connect={})
            for number in range(1, 4):
                await client.ask(id=number + 1, publish={"channel": "a", "data": number})
            reply = await client.ask(id=9, history={"channel": "a", "limit": -1})
            kept = reply["history"]["publications"]
            assert [each["data"] for each in kept] == [1, 2, 3]
            assert [each["offset"] for each in kept] == [1, 2, 3]
        async with connect(url) as socket:
            result = await Client(socket).subscribed("a", recover=True, epoch=first["epoch"])
            assert result["recovered"] is True
            assert result["publications"] == kept


def uplink(session: str, node: str, *commands: dict[str, Any]) -> bytes:
    """Make what clients of an HTTP stream send later."""
    request = SCHEMA.EmulationRequest(session=session, node=node, data=to_protobuf(*commands))
    text: bytes = request.SerializeToString()
    return text


async def test_stream_by_http() -> None:
    """A Content-Type makes it Protobuf, in both directions; the end is told, too."""
    store = MemoryStore(2)
    async with (
        pipeline(store, SETTINGS),
        running_edge(store) as edge,
        httpx.AsyncClient(base_url=f"http://{edge.address}", timeout=10, headers=HEADERS) as http,
        http.stream(
            "POST", "/connection/http_stream", content=to_protobuf({"id": 1, "connect": {}})
        ) as response,
    ):

        async def send(node: str, *commands: dict[str, Any]) -> int:
            frame = uplink(told["session"], node, *commands)
            return (await http.post("/emulation", content=frame)).status_code

        assert response.headers["content-type"] == HEADERS["Content-Type"]
        heard = _messages(response)
        told = (await anext(heard))["connect"]
        assert await send(told["node"], {"id": 2, "subscribe": {"channel": "news"}}) == 204
        assert "subscribe" in await anext(heard)
        await publish(edge, channel="news", data="x" * 300)
        assert (await anext(heard))["push"]["pub"] == {"offset": 1, "data": "x" * 300}
        assert await send("nowhere", {}) == 404
        assert (await http.post("/emulation", content=b"\xff")).status_code == 400
        assert await send(told["node"], {"id": 3, "connect": {}}) == 204
        end = {"code": 3501, "reason": "bad request"}
        assert await anext(heard) == {"push": {"disconnect": end}}


async def _messages(response: httpx.Response) -> AsyncIterator[Any]:
    """Return the messages of a body, however it is cut."""
    rest = b""
    async for chunk in response.aiter_bytes():
        rest += chunk
        while (size := _first_size(rest)) is not None:
            for message in from_protobuf(rest[:size]):
                yield message
            rest = rest[size:]


def _first_size(text: bytes) -> int | None:
    """Return the size of the first message with its length; None: it is not whole."""
    for size in range(1, min(len(text), 5) + 1):
        if text[size - 1] < 0x80:
            length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(text[:size]))
            return size + length if size + length <= len(text) else None
    return None
