"""Offers to speak another protocol are passed over, and take no request's body with them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve.edge.listener import Listener

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


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to a listener."""
    listener = Listener(echo, "127.0.0.1:0", websocket_protocol=asyncio.Protocol)
    await listener.start()
    host, _, port = listener.address.rpartition(":")
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()
            await listener.close()


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
