"""Offers to speak another protocol cost no body, and no client takes memory or time without end."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve.edge.listener import Listener
from serve.edge.listener_http import HttpLimits, HttpProtocol

OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
BODY = "Content-Length: 5\r\n\r\nhello"
CHUNKS = "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with method, path and body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    text = f"{scope['method']} {scope['path']} {body.decode()}".encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class Upgraded(asyncio.Protocol):
    """Agrees to every handshake."""

    def __init__(self, **_options: Any) -> None:
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Agree."""
        self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self._transport.close()


@asynccontextmanager
async def listening(app: Any = echo, **limits: Any) -> AsyncIterator[Listener]:
    """Run a listener."""
    listener = Listener(
        app,
        "127.0.0.1:0",
        websocket_protocol=Upgraded,
        close_s=1,
        http_limits=HttpLimits(**limits),
    )
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def opened(
    listener: Listener,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection."""
    host, _, port = listener.address.rpartition(":")
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()


@asynccontextmanager
async def connected(
    app: Any = echo, **limits: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to a listener of its own."""
    async with listening(app, **limits) as listener, opened(listener) as connection:
        yield connection


async def answers(parts: Sequence[str], count: int) -> list[str]:
    """Send parts of requests, each by itself; return the first lines or bodies of the answers."""
    found = []
    async with connected() as (reader, writer):
        for part in parts:
            writer.write(part.encode())
            await writer.drain()
        for _ in range(count):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            found.append((await reader.readexactly(length)).decode())
    return found


def request(rest: str, path: str = "/") -> str:
    return f"POST {path} HTTP/1.1\r\nHost: here\r\n{rest}"


@pytest.mark.parametrize("framed", [BODY, CHUNKS], ids=["length", "chunks"])
async def test_body_after_an_offer_arrives(framed: str) -> None:
    """In whatever pieces the request comes.

    A server may ignore the offer: RFC 9110, section 7.8.
    """
    text = request(OFFER + framed)
    parts = [part for at in range(1, len(text)) for part in (text[:at], text[at:])]
    assert await answers([text, *parts], len(text)) == ["POST / hello"] * len(text)


@pytest.mark.parametrize("first", [OFFER + BODY, OFFER + CHUNKS, OFFER + "\r\n"])
async def test_connection_goes_on_after_an_offer(first: str) -> None:
    """The next requests are served, with offers and without, also where all come at once."""
    requests = [request(first, "/1"), request(OFFER + CHUNKS, "/2"), request(BODY, "/3")]
    hello = "" if first.endswith(OFFER + "\r\n") else "hello"
    wanted = [f"POST /1 {hello}", "POST /2 hello", "POST /3 hello"]
    assert await answers(["".join(requests)], 3) == wanted
    assert await answers(list(itertools.chain(*requests)), 3) == wanted


async def test_bad_body_after_an_offer_is_refused() -> None:
    """As without one: 400, and the end."""
    async with connected() as (reader, writer):
        writer.write(request(OFFER + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n").encode())
        assert b" 400 " in await reader.read()


GET = "GET / HTTP/1.1\r\nHost: here\r\n"
CHUNKED = request("Transfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("begun", "more", "answer"),
    [
        ("GET /", "a" * 1000, b" 431 "),
        (GET, "X: " + "a" * 1000 + "\r\n", b" 431 "),
        (GET + "X: ", "a" * 1000, b" 431 "),
        ("", "\r\n" * 500, b" 431 "),
        (CHUNKED + "1;", "a" * 1000, b""),
        (CHUNKED + "1\r\na\r\n0\r\n", "X: " + "a" * 1000 + "\r\n", b""),
    ],
    ids=["url", "headers", "one header", "nothing", "chunk extension", "trailers"],
)
async def test_head_without_end_is_refused(begun: str, more: str, answer: bytes) -> None:
    """And so is what else is no body: there is 431 where no answer is owed, and the end."""
    async with connected() as (reader, writer):
        writer.write(begun.encode())
        heard = b""
        try:
            while not writer.is_closing():
                writer.write(more.encode())
                await writer.drain()
        except ConnectionError:
            pass
        try:
            heard = await reader.read()
        except ConnectionError:
            heard = answer
        assert answer in heard


async def test_bodies_and_many_requests_are_no_head() -> None:
    """What is counted begins anew with each request, and leaves bodies out."""
    body = "x" * 200_000
    chunk = f"{len(body):x}\r\n{body}\r\n"
    texts = [
        request(f"Content-Length: {len(body)}\r\n\r\n{body}"),
        request(f"Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"),
        *[f"{GET}X: {'a' * 4000}\r\n\r\n"] * 40,
    ]
    assert await answers(texts, 42) == [f"POST / {body}", f"POST / {body}{body}", *["GET / "] * 40]


async def test_no_more_is_read_while_many_requests_wait() -> None:
    """A client that pipelines without reading fills its own buffers, not our memory."""
    begun, go = 0, asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        begun += 1
        if begun > 1:
            await go.wait()
        await echo(scope, receive, send)

    async with listening(slow, pipeline_max=2) as listener, opened(listener) as (reader, writer):
        writer.write((GET + "\r\n").encode() * 5)
        await reader.readuntil(b"GET / ")
        (protocol,) = listener._server.server_state.connections
        assert isinstance(protocol, HttpProtocol)
        assert protocol.flow.read_paused
        go.set()
        for _ in range(4):
            await reader.readuntil(b"GET / ")
        assert not protocol.flow.read_paused


@pytest.mark.parametrize(
    "begun",
    ["", "GET / HT", GET, request("Content-Length: 9\r\n\r\nab"), CHUNKED, CHUNKED + "9\r\nab"],
)
async def test_client_that_stands_still_is_cut_off(begun: str) -> None:
    """Within a head, before one, and within a body."""
    async with connected(head_s=0.05, body_s=0.05) as (reader, writer):
        writer.write(begun.encode())
        assert await reader.read() == b""


async def test_line_ends_between_requests_stop_no_clock() -> None:
    """Bytes end the wait of a connection that is kept; something else must then begin."""
    async with connected(head_s=0.05) as (reader, writer):
        writer.write((GET + "\r\n").encode())
        await reader.readuntil(b"GET / ")
        writer.write(b"\r\n")
        assert await reader.read() == b""


async def test_answer_may_take_longer_than_a_request() -> None:
    """Who is owed an answer is not cut off, also where stray bytes came after the request."""
    go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await echo(scope, receive, send)

    async with connected(slow, head_s=0.01, body_s=0.01) as (reader, writer):
        writer.write((GET + "\r\n").encode())
        writer.write(b"\r\n")
        asyncio.get_running_loop().call_later(0.1, go.set)
        await reader.readuntil(b"GET / ")


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "broken off"])
async def test_answer_that_nobody_reads_keeps_no_connection(whole: bool) -> None:
    """What is left of it is dropped some seconds after the end, and a stop waits for nobody."""

    async def large(scope: Any, receive: Any, send: Any) -> None:
        size = b"%d" % 2**25
        headers = [(b"content-length", size), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = bytes(2**25)
        await send({"type": "http.response.body", "body": body, "more_body": not whole})

    async with listening(large, close_s=0.05) as listener, opened(listener) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, too
        writer.write((GET + "\r\n").encode())
        connections = listener._server.server_state.connections
        while not connections:
            await asyncio.sleep(0)
        while connections:
            await asyncio.sleep(0.005)
        del reader


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a body of several parts and no length."""
    await send({"type": "http.response.start", "status": 200})
    for part in (b"one", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("version", "chunked", "body"),
    [("1.0", False, b"onetwo"), ("1.1", True, b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")],
)
async def test_old_clients_get_no_chunks(version: str, chunked: bool, body: bytes) -> None:
    """The end of the connection ends the body: RFC 9112, section 7.1."""
    async with connected(streaming) as (reader, writer):
        head = f"GET / HTTP/{version}\r\nHost: here\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert (b"transfer-encoding" in answer) is chunked
        assert await reader.read() == body


async def test_old_clients_get_answers_with_a_length() -> None:
    """As others do."""
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\nHost: here\r\n\r\n")
        answer = await reader.read()
        assert b"content-length: 6\r\n" in answer
        assert answer.endswith(b"\r\n\r\nGET / ")


HANDSHAKE = GET + "Upgrade: websocket\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        "Connection: Upgrade\r\n",
        "Connection: Upgrade\r\nConnection: keep-alive\r\n",
        "Connection: keep-alive\r\nConnection: Foo, uPGRADE\r\n",
    ],
)
async def test_any_connection_line_may_ask_for_the_upgrade(lines: str) -> None:
    """Several lines are one list: RFC 9110, section 5.3."""
    async with connected() as (reader, writer):
        writer.write((HANDSHAKE + lines + "\r\n").encode())
        assert b" 101 " in await reader.read()


async def test_handshake_behind_an_unanswered_request_is_refused() -> None:
    """Its answer would come first, and be taken for that of the other one."""
    async with connected() as (reader, writer):
        handshake = HANDSHAKE + "Connection: Upgrade\r\n\r\n"
        writer.write((GET + "\r\n" + handshake).encode())
        assert b" 101 " not in await reader.read()
    async with connected() as (reader, writer):
        writer.write((GET + "\r\n").encode())
        await reader.readuntil(b"GET / ")
        writer.write(handshake.encode())
        assert b" 101 " in await reader.read()
