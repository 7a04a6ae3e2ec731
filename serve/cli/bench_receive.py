"""The processes of a benchmark that receive: WebSocket clients that search bytes for tokens.

Light: after the handshake frames are not parsed, so that it is the system that is measured.
"""

import asyncio
import os
import re
import signal
import time
from array import array
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.uri import parse_uri

from actors.errors import UnavailableError
from actors.message import encode_json
from serve.cli.bench_payload import Account, Load

_OPEN_WITHIN_S: Final = 10.0
# A ping of the protocol: `{}` as a frame of its own, or joined to others by a line break.
_PING: Final = re.compile(rb"\x81\x02\{\}|\n\{\}")


def receive(pipe: Connection, load: Load, subscribers: Sequence[int]) -> None:
    """Receive what subscribers get. A process's target.

    Says `("ready", "")` or `("failed", why)`, then answers `("warm", ns)` with nothing, `"count"`
    with what was delivered, `"end"` with the accounts' sums and the latencies as bytes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    uvloop.run(_receive(pipe, load, subscribers))


async def _receive(pipe: Connection, load: Load, subscribers: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    # Each subscriber follows one channel.
    accounts = [Account(frozenset({each % len(load.channels)})) for each in subscribers]
    try:
        async with asyncio.timeout(_OPEN_WITHIN_S + len(subscribers) * 0.02):
            for each, account in zip(subscribers, accounts, strict=True):
                await _subscribe(load, each % len(load.channels), account)
    except (OSError, TimeoutError, UnavailableError) as error:
        pipe.send(("failed", str(error) or "no answer"))
        return
    pipe.send(("ready", ""))
    ended = loop.create_future()

    def obey() -> None:
        command: Any = pipe.recv()
        if command == "end":
            ended.set_result(None)
        elif command == "count":
            pipe.send(sum(account.delivered for account in accounts))
        else:
            for account in accounts:
                account.warm_ns = command[1]

    loop.add_reader(pipe.fileno(), obey)
    await ended
    loop.remove_reader(pipe.fileno())
    # uvloop has made it non-blocking; the latencies may be more than it holds.
    os.set_blocking(pipe.fileno(), True)
    names = ("delivered", "repeated", "disordered", "strange")
    sums: dict[str, Any] = {
        name: sum(getattr(account, name) for account in accounts) for name in names
    }
    pipe.send(sums | {"cpu_s": time.process_time()})
    latencies = array("q")
    for account in accounts:
        latencies.extend(account.latencies_ns)
    pipe.send(latencies.tobytes())


async def _subscribe(load: Load, channel: int, account: Account) -> None:
    parts = urlsplit(load.websocket_url)
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(
        lambda: Socket(load.websocket_url, account), parts.hostname or "127.0.0.1", parts.port or 80
    )
    await socket.opened
    subs = {load.channels[channel]: {"recoverable": True}}
    wishes = {"token": load.tokens[channel], "subs": subs}
    socket.send(encode_json({"id": 1, "connect": wishes}))
    await socket.subscribed


class Socket(asyncio.Protocol):
    """A WebSocket connection: handshake by the book, then a search through bytes."""

    def __init__(self, url: str, account: Account) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self._protocol = ClientProtocol(parse_uri(url))
        self._account = account
        self._transport: asyncio.Transport | None = None
        self._reply = b""
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.subscribed.done():
            self._take(data)
        elif self.opened.done():
            self._reply += data
            self._look_at_reply()
        else:
            self._protocol.receive_data(data)
            if any(isinstance(event, Response) for event in self._protocol.events_received()):
                self._finish(self.opened, self._protocol.handshake_exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        error = exc or UnavailableError("the edge closed the connection")
        self._finish(self.opened, error)
        self._finish(self.subscribed, error)

    def send(self, command: bytes) -> None:
        """Send a command of the protocol."""
        self._protocol.send_text(command)
        self._flush()

    def close(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, data: bytes) -> None:
        self._account.feed(data, time.monotonic_ns())
        for _ in _PING.finditer(self._last + data):
            self.send(b"{}")
        self._last = data[-3:]

    def _look_at_reply(self) -> None:
        if b'"connect":' in self._reply and b'"subs":' in self._reply:
            self._finish(self.subscribed, None)
            # Messages may have come along with the reply.
            self._take(self._reply)
        elif b'"error":' in self._reply or self._reply[:1] == b"\x88":
            text = self._reply[2:300].decode(errors="replace")
            self._finish(self.subscribed, UnavailableError(f"the edge refused: {text}"))

    def _finish(self, future: "asyncio.Future[None]", error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(UnavailableError(str(error)))
            future.exception()  # somebody may have given up waiting: no warning then

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.writelines(self._protocol.data_to_send())
