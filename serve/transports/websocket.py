"""WebSockets on the edge's own listener: a protocol for uvicorn that hands frames to a session.

No ASGI in between: frames that the hub has encoded once are written to the transport as they are.
`websockets`' sans-I/O core does the handshake, parses what the client sends, and answers pings and
closes (https://websockets.readthedocs.io/en/stable/howto/sansio.html).
"""

import asyncio
import http
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import parse_qs

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from serve.auth.access import origin_allowed
from serve.hub.hub import Hub
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import Close, DisconnectCode
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.wire import Wire
from serve.session.approach import Approach, joined
from serve.session.connection import Connection
from serve.transports.one_way import farewell, take_first
from serve.transports.subprotocols import choose_subprotocol, wants_protobuf

log = logging.getLogger(__name__)

PATH: Final = "/connection/websocket"
ONE_WAY_PATH: Final = "/connection/uni_websocket"
_CLOSE_TIMEOUT_S: Final = 3.0
"""How long a client may take to answer our close frame, or to read what is before it."""
# The core logs every handshake that fails; scanners would fill the log.
_quiet = logging.getLogger(f"{__name__}.core")
_quiet.setLevel(logging.CRITICAL)


def text_frame(block: bytes) -> bytes:
    """Make an unmasked, unfragmented text frame: RFC 6455, section 5.2."""
    return _head(0x81, len(block)) + block


def binary_frame(block: bytes) -> bytes:
    """Make an unmasked, unfragmented binary frame."""
    return _head(0x82, len(block)) + block


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return bytes((first, 0x7E)) + size.to_bytes(2)
    return bytes((first, 0x7F)) + size.to_bytes(8)


def text_frames(block: bytes) -> bytes:
    """Make a frame of each message of a block, which clients that know no blocks can read."""
    return b"".join(map(text_frame, block.split(b"\n")))


WEBSOCKET_JSON: Final = Wire(JSON, text_frame, stream=True)
WEBSOCKET_PROTOBUF: Final = Wire(PROTOBUF, binary_frame, stream=True)
ONE_WAY_WEBSOCKET_JSON: Final = Wire(ONE_WAY_JSON, text_frames, stream=True)


class WebSocketProtocol(asyncio.Protocol):
    """One client. The `Sink` of its connection.

    Args:
        hub: Where it connects.
        server_state: Of uvicorn: which connections to shut down, and headers to add.
    """

    def __init__(self, hub: Hub, server_state: Any) -> None:
        self._hub = hub
        self._limits = hub.settings.client
        self._server_state = server_state
        self._core = ServerProtocol(
            extensions=None,
            select_subprotocol=lambda _, offered: self._select_subprotocol(offered),
            max_size=self._limits.frame_bytes_max,
            logger=_quiet,
        )
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._connection: Connection | None = None
        self._one_way = False
        self._closing = False
        self._behind = 0
        self._parts: list[bytes] = []
        self._text = True
        self._timer: asyncio.TimerHandle | None = None

    # --- what uvicorn and the event loop call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. uvicorn then gives the request that asks for the upgrade to `data_received`."""
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)
        # uvicorn does it after the handshake: where that raises, we would not hear of the end.
        self._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        self._core.receive_data(data)
        for event in self._core.events_received():
            if isinstance(event, Request):
                self._accept(event)
            elif isinstance(event, Frame):
                self._take(event)
        self._write_core()

    def eof_received(self) -> None:
        """Let the transport close: a client that writes no more is gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Know that the client is gone."""
        del exc
        self._closing = True
        self._server_state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.lost()

    def shutdown(self) -> None:
        """Close, as the server stops."""
        if self._connection is not None:
            self._connection.shut(DisconnectCode.SHUTDOWN)
        else:
            self._transport.close()

    # --- the sink

    def write(self, block: bytes) -> None:
        """See `Sink.write`."""
        if self._closing:
            return
        if self._waits_too_much(len(block)):
            assert self._connection is not None  # noqa: S101 - only a connection writes
            self._connection.slow()
            return
        self._transport.write(block)

    def close(self, close: Close) -> None:
        """See `Sink.close`."""
        if self._closing:
            return
        if self._core.state is State.OPEN:  # Otherwise the client's own close is answered.
            self._core.send_close(close.code, close.frame_reason)
        self._closing = True
        self.resume()  # The client's answer is to be read.
        if self._one_way:
            self._transport.write(farewell(ONE_WAY_WEBSOCKET_JSON, close))
        self._write_core()

    def pause(self) -> None:
        """See `Sink.pause`."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """See `Sink.resume`."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # --- inside

    def _select_subprotocol(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        chosen = choose_subprotocol(offered, one_way=self._one_way)
        return None if chosen is None else Subprotocol(chosen)

    def _accept(self, request: Request) -> None:
        path, _, query = request.path.partition("?")
        self._one_way = path == ONE_WAY_PATH
        offers = request.headers.get_all("Sec-WebSocket-Protocol")
        if len(offers) == 1 and not offers[0].strip():
            # Some clients send it empty, which the core would refuse.
            del request.headers["Sec-WebSocket-Protocol"]
        headers = joined(request.headers.raw_items())
        response = self._core.accept(request)
        refusal = self._refusal(path, request, headers)
        if refusal is not None:
            response = self._core.reject(*refusal)
        self._core.send_response(response)
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            # Before anything of ours is sent.
            self._write_core()
            self._open(query, Approach(path.rpartition("/")[2], headers))

    def _refusal(
        self, path: str, request: Request, headers: Mapping[str, str]
    ) -> tuple[http.HTTPStatus, str] | None:
        if path not in (PATH, ONE_WAY_PATH):
            return http.HTTPStatus.NOT_FOUND, "Not found\n"
        if any(len(request.headers.get_all(name)) > 1 for name in ("Origin", "Host")):
            return http.HTTPStatus.BAD_REQUEST, "Origin or Host is there twice\n"
        if not origin_allowed(
            headers.get("origin"), headers.get("host"), self._limits.allowed_origins
        ):
            return http.HTTPStatus.FORBIDDEN, "Origin not allowed\n"
        if self._hub.full:
            return http.HTTPStatus.SERVICE_UNAVAILABLE, "Try again later\n"
        return None

    def _open(self, query: str, approach: Approach) -> None:
        if not self._one_way:
            protobuf = wants_protobuf(self._core.subprotocol, query)
            wire = WEBSOCKET_PROTOBUF if protobuf else WEBSOCKET_JSON
            self._connection = self._hub.connect(self, wire, approach=approach)
            return
        self._connection = self._hub.connect(
            self, ONE_WAY_WEBSOCKET_JSON, one_way=True, approach=approach
        )
        for request in parse_qs(query).get("cf_connect", ()):
            take_first(self._connection, request.encode(errors="replace"))

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
            self._parts = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
        else:
            # The core has answered it. A client may ask for more answers than it reads.
            if frame.opcode is Opcode.PING and self._waits_too_much(2 + len(frame.data)):
                if self._connection is not None:
                    self._connection.slow()
                self._transport.abort()
            return
        if frame.fin:
            message, self._parts = b"".join(self._parts), []
            self._receive(message)

    def _receive(self, message: bytes) -> None:
        if self._closing or self._connection is None:
            return
        if self._text and not _is_utf8(message):
            self._core.fail(1007, "not UTF-8")  # RFC 6455, section 8.1
        elif self._text and self._connection.wire.codec.binary:
            self._connection.shut(DisconnectCode.BAD_REQUEST)
        elif self._one_way:
            take_first(self._connection, message)
        else:
            self._connection.receive(message)

    def _waits_too_much(self, size: int) -> bool:
        """Count what is about to be written; tell whether it is too much for a client that reads.

        A block that finds nothing before it may be of any size: only what waits behind it counts.
        """
        buffered = self._transport.get_write_buffer_size()
        self._behind = self._behind + size if buffered else 0
        return min(self._behind, buffered + size) > self._limits.outbox_bytes_max

    def _write_core(self) -> None:
        """Send what the core has to say; an empty part means: nothing comes after this."""
        for part in self._core.data_to_send():
            if self._transport.is_closing():
                return
            if part:
                self._transport.write(part)
            elif self._transport.can_write_eof():
                # Not close(): with bytes unread, it could take back the close frame.
                self._transport.write_eof()
            else:
                self._transport.close()
        if self._core.close_expected() and self._timer is None:
            self._closing = True
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_CLOSE_TIMEOUT_S, self._transport.abort)
            if self._connection is not None:
                # Nothing more can be sent: leave the channels now, not when TCP has ended.
                self._connection.shut(DisconnectCode.CONNECTION_CLOSED)


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def websocket_protocol(hub: Hub) -> type[asyncio.Protocol]:
    """Return what `uvicorn.Config(ws=...)` takes to serve a hub's WebSockets.

    Only the two paths of clients are served; others get 404, also where the ASGI app has them.
    """

    class BoundProtocol(WebSocketProtocol):
        def __init__(self, config: Any, server_state: Any, app_state: Any) -> None:
            del config, app_state
            super().__init__(hub, server_state)

    return BoundProtocol
