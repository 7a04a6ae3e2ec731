"""Connections whose way to the client is the body of a response that goes on.

What the client says after its request comes by requests of their own (`emulation`), if at all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from serve.hub.hub import Hub
from serve.protocol.json_codec import decode_connect
from serve.protocol.messages import DisconnectCode, DisconnectError
from serve.protocol.wire import Wire
from serve.session.approach import Approach, joined
from serve.session.connection import Connection
from serve.transports.forwarding import Emulation
from serve.transports.inbox import Inbox
from serve.transports.one_way import farewell
from serve.transports.outlet import Outlet, run
from serve.transports.request import client_route, is_protobuf, read_body, too_large

_HEADERS: Final = {
    # Neither caches nor proxies may hold back what is told (X-Accel-Buffering: nginx).
    "Cache-Control": "private, no-cache, no-store, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKind:
    """A transport of this sort.

    Attributes:
        path: Where clients ask for it.
        methods: How.
        wire: What is sent.
        one_way: The request is a bare connect request, and all that the client ever says.
            Otherwise it holds commands, the first of them connect.
        headers: Of the response, beside those that all have.
        opening: The first bytes, for clients that wait for some.
        not_empty: Methods whose requests must not be empty.
        protobuf: The same for requests in Protobuf, where the transport has that.
    """

    path: str
    methods: Sequence[str]
    wire: Wire
    one_way: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    opening: bytes = b""
    not_empty: Sequence[str] = ()
    protobuf: "StreamKind | None" = None


def stream_route(hub: Hub, emulation: Emulation, kind: StreamKind) -> BaseRoute:
    """Return the route of a transport."""
    limits = hub.settings.client

    async def connect(request: Request) -> Response:
        spoken = kind.protobuf if kind.protobuf and is_protobuf(request) else kind
        headers = {**_HEADERS, **spoken.headers}
        if request.method == "HEAD":
            return Response(headers=headers)
        try:
            text = await _request_text(request, limits.frame_bytes_max)
            if text is None:
                return too_large()
            begin = _beginning(spoken, request.method, text)
        except (DisconnectError, ClientDisconnect):
            return PlainTextResponse("Connect request not valid\n", 400)
        if hub.full:
            return PlainTextResponse("Try again later\n", 503)
        approach = Approach(kind.path.rpartition("/")[2], joined(request.headers.items()))
        return SessionStream(hub, emulation, spoken, begin, headers, approach)

    return client_route(kind.path, connect, methods=kind.methods, origins=limits.allowed_origins)


async def _request_text(request: Request, bytes_max: int) -> bytes | None:
    """Return the connect request, from the query or the body; None: it is too large."""
    if request.method == "POST":
        return await read_body(request, bytes_max)
    text = request.query_params.get("cf_connect", "").encode(errors="replace")
    return text if len(text) <= bytes_max else None


def _beginning(kind: StreamKind, method: str, text: bytes) -> Callable[[Connection], None]:
    """Return what gives the request to a connection.

    Raises:
        DisconnectError: It is not one.
    """
    if method in kind.not_empty and not text.strip():
        raise DisconnectError(DisconnectCode.BAD_REQUEST)
    if not kind.one_way:
        return lambda connection: connection.receive(text)
    wanted = decode_connect(text)
    return lambda connection: connection.connect(wanted)


class SessionStream(Response):
    """A response that lasts as long as the session, or until the client drops it."""

    def __init__(
        self,
        hub: Hub,
        emulation: Emulation,
        kind: StreamKind,
        begin: Callable[[Connection], None],
        headers: Mapping[str, str],
        approach: Approach,
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._hub = hub
        self._emulation = emulation
        self._kind = kind
        self._begin = begin
        self._approach = approach

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the session. Leaves its channels at once when the response is dropped."""
        del scope
        kind = self._kind
        outlet = Inbox(self._hub.settings.client.outbox_bytes_max)
        connection = outlet.connection = self._hub.connect(
            outlet,
            kind.wire,
            one_way=kind.one_way,
            emulated=not kind.one_way,
            approach=self._approach,
        )
        session = connection.session.place.session
        if not kind.one_way:
            self._emulation.add(session, outlet)
        try:
            self._begin(connection)
            await run(outlet, connection, send=self._send(outlet, send), receive=_dropped(receive))
        finally:
            connection.lost()  # `run` may not have begun.
            self._emulation.remove(session)

    async def _send(self, outlet: Outlet, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        if self._kind.opening:
            await send(_body(self._kind.opening))
        while blocks := await outlet.take():
            await send(_body(b"".join(blocks)))
        if outlet.ended is not None:
            await send(_body(farewell(self._kind.wire, outlet.ended)))
        await send(_body(b"", more=False))


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _dropped(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
