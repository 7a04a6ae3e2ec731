"""One-way Server-Sent Events: a client connects with one request, and is told what happens.

https://html.spec.whatwg.org/multipage/server-sent-events.html,
https://centrifugal.dev/docs/transports/uni_sse
"""

from collections.abc import Mapping
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from serve.auth import origin_allowed
from serve.hub import Hub
from serve.protocol import Connect, Disconnected, DisconnectError
from serve.protocol_json import ONE_WAY_JSON, decode_connect
from serve.transports.outlet import Outlet, run
from serve.wire import Wire

PATH: Final = "/connection/uni_sse"
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "private, no-cache, no-store, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "X-Accel-Buffering": "no",
}


def sse_events(block: bytes) -> bytes:
    """Make one event of each message of a block. A message has no line end in it."""
    return b"data: " + block.replace(b"\n", b"\n\ndata: ") + b"\n\n"


ONE_WAY_SSE: Final = Wire(ONE_WAY_JSON, sse_events, stream=True)


def routes(hub: Hub) -> list[BaseRoute]:
    """Return the routes of this transport."""

    async def connect(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(headers=_HEADERS)
        limits = hub.settings.client
        origin = request.headers.get("origin")
        if not origin_allowed(origin, request.headers.get("host"), limits.allowed_origins):
            return PlainTextResponse("Origin not allowed\n", 403)
        try:
            text = await _connect_text(request, limits.frame_bytes_max)
            if text is None:
                return PlainTextResponse("Request too large\n", 413)
            wanted = decode_connect(text)
        except (DisconnectError, ClientDisconnect):
            return PlainTextResponse("Connect request not valid\n", 400)
        if hub.full:
            return PlainTextResponse("Try again later\n", 503)
        return EventStream(hub, wanted, _cross_origin(origin))

    return [Route(PATH, connect, methods=["GET", "POST"])]


async def _connect_text(request: Request, bytes_max: int) -> bytes | None:
    """Return the connect request, from the query or the body; None: it is too large."""
    if request.method != "POST":
        text = request.query_params.get("cf_connect", "").encode(errors="replace")
        return text if len(text) <= bytes_max else None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            return None
    return body


def _cross_origin(origin: str | None) -> Mapping[str, str]:
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


class EventStream(Response):
    """A response that lasts as long as the session, or until the client drops it."""

    def __init__(self, hub: Hub, wanted: Connect, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**_HEADERS, **headers})
        del self.headers["content-length"]
        self._hub = hub
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the session. Leaves its channels at once when the response is dropped."""
        del scope
        outlet = Outlet(self._hub.settings.client.outbox_bytes_max)
        connection = outlet.connection = self._hub.connect(outlet, ONE_WAY_SSE, one_way=True)
        connection.connect(self._wanted)
        await run(outlet, connection, send=self._send(outlet, send), receive=_dropped(receive))

    async def _send(self, outlet: Outlet, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        # The first bytes open the stream for clients that wait for some.
        await send(_body(b"\r\n"))
        while blocks := await outlet.take():
            await send(_body(b"".join(blocks)))
        end = outlet.ended
        if end is not None:
            push = Disconnected(end.code, end.reason, end.reconnect)
            await send(_body(ONE_WAY_SSE.frame(ONE_WAY_JSON.push("", push))))
        await send(_body(b"", more=False))


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _dropped(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
