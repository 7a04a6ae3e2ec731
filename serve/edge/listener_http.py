"""HTTP/1.1 as uvicorn serves it, with limits, and with the body of what offers another protocol.

uvicorn takes heads of any size, waits for them for ever, and reads on while requests wait.

Java's `HttpClient`, for one, offers HTTP/2 (`Upgrade: h2c`) with what it posts. A server may ignore
that (RFC 9110, section 7.8). uvicorn does, but its parser has stopped after the head by then, and
the body is lost: https://github.com/Kludex/uvicorn/issues/2722
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sized
from dataclasses import dataclass
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_FRAMING: Final = (b"content-length", b"transfer-encoding")
_OF_HEADS: Final = ("on_message_begin", "on_url", "on_header", "on_headers_complete")
_PIECE: Final = 16_384
"""Bytes that the parser gets at once. What a message has in its first piece is not counted."""
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a connection may take of us.

    Attributes:
        head_bytes_max: Bytes between bodies: heads, what frames chunks, trailers. Then 431.
        pipeline_max: Requests that wait for the answer to another; no more is read meanwhile.
        head_s: How long a head may take, from the connection or its first byte on.
        body_s: How long a body that is waited for may stand still.
        close_s: How long a client may take to read what is before the end.
    """

    head_bytes_max: int = 65_536
    pipeline_max: int = 16
    head_s: float = 10
    body_s: float = 60
    close_s: float = 3


class HttpProtocol(HttpToolsProtocol):
    """One connection. Only offers of WebSocket are taken."""

    limits = HttpLimits()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = cast(httptools.HttpRequestParser, _Parser(self, self.parser))
        self._head_bytes = 0
        self._moved_on = False
        # When the client is to have sent something; infinite between messages.
        self._due_s = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin."""
        super().connection_made(transport)
        self._writable = _Writable(transport, self._end)
        self.flow = _Flow(transport, self.pipeline, self.limits.pipeline_max)
        self._expect(self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Know that the client is gone."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; refuse a head that is too large."""
        if self._due_s == math.inf:
            self._expect(self.limits.head_s)
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            self._moved_on = False
            super().data_received(piece)
            if self.transport.get_protocol() is not self:
                return
            if self.transport.is_closing():
                self._end()
                return
            self._head_bytes = 0 if self._moved_on else self._head_bytes + len(piece)
            if self._head_bytes > self.limits.head_bytes_max:
                self._refuse_head()
                return

    def shutdown(self) -> None:
        """Close, as the server stops; with the answer that is under way, if there is one."""
        super().shutdown()
        if self.transport.is_closing():
            self._end()

    def timeout_keep_alive_handler(self) -> None:
        """Close, as no other request came."""
        self._end()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless another answer would then come after the handshake's."""
        if self._answering:
            self._end()
        else:
            self._forget()
            super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Know that a request begins."""
        self._moved_on = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Know that a head is whole."""
        self._due_s = self.loop.time() + self.limits.body_s
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = cast(asyncio.Transport, self._writable)
            if self.scope["http_version"] == "1.0":
                send = _unchunked(self.cycle)
                self.cycle.send = send  # type: ignore[method-assign, assignment]  # of this one

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._moved_on = True
        self._due_s = self.loop.time() + self.limits.body_s
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Know that a request is whole: it is not where the parser only stops at an offer."""
        if not self.parser.should_upgrade():
            self._moved_on = True
            self._due_s = math.inf
            super().on_message_complete()

    def _get_upgrade(self) -> bytes | None:
        """Return what is offered. `Connection` may have several lines: RFC 9110, section 5.3."""
        lines = b",".join(value for name, value in self.headers if name == b"connection")
        if b"upgrade" not in (token.strip() for token in lines.lower().split(b",")):
            return None
        return next((value.lower() for name, value in self.headers if name == b"upgrade"), None)

    @property
    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _refuse_head(self) -> None:
        if self._answering:
            self.transport.abort()
        else:
            self.transport.write(_TOO_LARGE)
            self._end()

    def _end(self) -> None:
        """Close. Bytes that the client does not read hold it up for `close_s` only."""
        self.transport.close()
        if self.transport.get_write_buffer_size() and not self._ending:
            self._forget()
            self._ending = True
            self._timer = self.loop.call_later(self.limits.close_s, self.transport.abort)

    def _expect(self, within_s: float) -> None:
        """Have something sent. Moves no timer that runs: it looks again when it fires."""
        self._due_s = self.loop.time() + within_s
        if self._timer is None:
            self._timer = self.loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due_s == math.inf:
            return
        if self.loop.time() < self._due_s:
            # Within `head_s`, lest the next head be given the time of this body.
            within_s = min(self._due_s, self.loop.time() + self.limits.head_s)
            self._timer = self.loop.call_at(within_s, self._look)
        elif self._hindered():
            self._expect(self.limits.head_s)
        else:
            self.transport.abort()

    def _hindered(self) -> bool:
        """Tell whether it is we who do not read, or who owe an answer before the next head."""
        return self.flow.read_paused or (self._answering and not self.cycle.more_body)

    def _forget(self) -> None:
        self._due_s = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def takes_offer(self) -> bool:
        """Tell whether the request under way is for WebSocket."""
        return self._should_upgrade()


def http_protocol(limits_: HttpLimits) -> type[HttpProtocol]:
    """Return what `uvicorn.Config(http=...)` takes."""

    class BoundProtocol(HttpProtocol):
        limits = limits_

    return BoundProtocol


def _unchunked(cycle: RequestResponseCycle) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return a `send` for HTTP/1.0, which knows no chunks: RFC 9112, section 7.1.

    The end of the connection is the end of a body that has no length.
    """
    send = cycle.send
    lengthless = False

    async def sending(message: Any) -> None:
        nonlocal lengthless
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            lengthless = b"content-length" not in names
            if lengthless:
                cycle.chunked_encoding = False
        elif lengthless:
            # uvicorn holds a body against the length that was said.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return sending


class _Writable:
    """A transport as a response needs it, with a `close` of ours."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class _Flow(FlowControl):
    """Reads no more while many requests wait, whoever wants to."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized, pipeline_max: int) -> None:
        super().__init__(transport)
        self._pipeline = pipeline
        self._pipeline_max = pipeline_max

    def resume_reading(self) -> None:
        if len(self._pipeline) <= self._pipeline_max:
            super().resume_reading()


class _Parser:
    """A parser that stops at no offer but that of WebSocket."""

    def __init__(self, protocol: HttpProtocol, parser: Any) -> None:
        self._protocol = protocol
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                if self._protocol.takes_offer():
                    raise
                data = data[stop.args[0] :]
                self._go_on()
            else:
                return

    def _go_on(self) -> None:
        """Have another parser read the rest, after a head that says how long it is."""
        rest = _Rest(self._protocol)
        self._parser = httptools.HttpRequestParser(rest)
        framing = [pair for pair in self._protocol.headers if pair[0] in _FRAMING]
        lines = [b"POST / HTTP/1.1", *(b"%s: %s" % pair for pair in framing), b"", b""]
        self._parser.feed_data(b"\r\n".join(lines))
        rest.begun = True


class _Rest:
    """Passes on what a parser finds, but for the head that it begins with.

    Attributes:
        begun: That head is over.
    """

    def __init__(self, protocol: HttpProtocol) -> None:
        self.begun = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete
        for name in _OF_HEADS:
            setattr(self, name, self._later(getattr(protocol, name)))

    def _later(self, call: Callable[..., None]) -> Callable[..., None]:
        def passed(*facts: bytes) -> None:
            if self.begun:
                call(*facts)

        return passed
