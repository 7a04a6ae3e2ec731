"""WebSockets over ASGI: the way in through Ray Serve's own HTTP.

Costs a task switch and a decoding per frame and client, which the own listener (`websocket`) does
not; sessions are the same.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from serve.auth import origin_allowed
from serve.connection import Connection
from serve.hub import Hub
from serve.protocol import Close, DisconnectCode
from serve.protocol_json import JSON
from serve.transports import sse
from serve.transports.outlet import Outlet, run
from serve.wire import Wire

PATH: Final = "/connection/websocket"
_TOO_BIG: Final = 1009


def _unframed(block: bytes) -> bytes:
    return block


ASGI_JSON: Final = Wire(JSON, _unframed, stream=False)


def routes(hub: Hub) -> list[BaseRoute]:
    """Return every route that clients connect by, for a Starlette or FastAPI app."""
    return [WebSocketRoute(PATH, websocket_endpoint(hub)), *sse.routes(hub)]


def websocket_endpoint(hub: Hub) -> Callable[[WebSocket], Awaitable[None]]:
    """Return an endpoint that serves JSON sessions."""

    async def serve(websocket: WebSocket) -> None:
        limits = hub.settings.client
        headers = websocket.headers
        if not origin_allowed(headers.get("origin"), headers.get("host"), limits.allowed_origins):
            await _refuse(websocket, 403, "Origin not allowed\n")
        elif hub.full:
            await _refuse(websocket, 503, "Try again later\n")
        else:
            # A client is never refused for the subprotocols that it offers.
            offered = _subprotocols(headers)
            chosen = "centrifuge-json" if "centrifuge-json" in offered else None
            await websocket.accept(subprotocol=chosen)
            await _serve(hub, websocket)

    return serve


def _subprotocols(headers: Headers) -> list[str]:
    lines = headers.getlist("sec-websocket-protocol")
    return [name.strip() for line in lines for name in line.split(",")]


async def _refuse(websocket: WebSocket, status: int, text: str) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(PlainTextResponse(text, status))
    else:
        await websocket.close()


async def _serve(hub: Hub, websocket: WebSocket) -> None:
    outlet = Outlet(hub.settings.client.outbox_bytes_max)
    connection = outlet.connection = hub.connect(outlet, ASGI_JSON)
    frame_bytes_max = hub.settings.client.frame_bytes_max
    await run(
        outlet,
        connection,
        send=_send(outlet, websocket),
        receive=_receive(outlet, connection, websocket, frame_bytes_max),
    )


async def _send(outlet: Outlet, websocket: WebSocket) -> None:
    while blocks := await outlet.take():
        for block in blocks:
            await websocket.send_text(block.decode())
    if outlet.ended is not None:
        await websocket.close(outlet.ended.code, outlet.ended.frame_reason)


async def _receive(
    outlet: Outlet, connection: Connection, websocket: WebSocket, frame_bytes_max: int
) -> None:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        text = message.get("text")
        if text is None:
            connection.shut(DisconnectCode.INAPPROPRIATE_PROTOCOL)
        elif len(frame := text.encode()) > frame_bytes_max:
            connection.shut(Close(_TOO_BIG, "message too big"))
        else:
            connection.receive(frame)
        await outlet.readable()
