"""WebSockets over ASGI: the way in through Ray Serve's own HTTP.

Costs a task switch and a decoding per frame and client, which the own listener (`websocket`) does
not; sessions are the same.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from serve.auth.access import origin_allowed
from serve.hub.hub import Hub
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import Close, DisconnectCode
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.wire import Wire
from serve.session.approach import Approach, joined
from serve.session.connection import Connection
from serve.transports.emulation import emulation_route
from serve.transports.forwarding import Emulation
from serve.transports.http_stream import HTTP_STREAM, ONE_WAY_HTTP_STREAM
from serve.transports.one_way import farewell, take_first
from serve.transports.outlet import Outlet, run
from serve.transports.sse import ONE_WAY_SSE, SSE
from serve.transports.stream import stream_route
from serve.transports.subprotocols import choose_subprotocol, wants_protobuf

PATH: Final = "/connection/websocket"
ONE_WAY_PATH: Final = "/connection/uni_websocket"
_TOO_BIG: Final = 1009


def _unframed(block: bytes) -> bytes:
    return block


ASGI_JSON: Final = Wire(JSON, _unframed, stream=False)
ASGI_PROTOBUF: Final = Wire(PROTOBUF, _unframed, stream=False)
ASGI_ONE_WAY_JSON: Final = Wire(ONE_WAY_JSON, _unframed, stream=False)


def routes(hub: Hub, emulation: Emulation) -> list[BaseRoute]:
    """Return every route that clients connect by, for a Starlette or FastAPI app."""
    kinds = (SSE, ONE_WAY_SSE, HTTP_STREAM, ONE_WAY_HTTP_STREAM)
    return [
        WebSocketRoute(PATH, websocket_endpoint(hub)),
        WebSocketRoute(ONE_WAY_PATH, websocket_endpoint(hub, one_way=True)),
        *(Route(path, _not_upgraded) for path in (PATH, ONE_WAY_PATH)),
        *(stream_route(hub, emulation, kind) for kind in kinds),
        emulation_route(hub, emulation),
    ]


def websocket_endpoint(
    hub: Hub, *, one_way: bool = False
) -> Callable[[WebSocket], Awaitable[None]]:
    """Return an endpoint that serves sessions of either codec; one-way ones are JSON."""

    async def serve(websocket: WebSocket) -> None:
        limits = hub.settings.client
        headers = websocket.headers
        if not origin_allowed(headers.get("origin"), headers.get("host"), limits.allowed_origins):
            await _refuse(websocket, 403, "Origin not allowed\n")
        elif hub.full:
            await _refuse(websocket, 503, "Try again later\n")
        else:
            chosen = choose_subprotocol(_subprotocols(headers), one_way=one_way)
            protobuf = wants_protobuf(chosen, websocket.url.query)
            await websocket.accept(subprotocol=chosen)
            if one_way:
                await _serve_one_way(hub, websocket)
            else:
                await _serve(hub, websocket, ASGI_PROTOBUF if protobuf else ASGI_JSON)

    return serve


async def _not_upgraded(_request: Request) -> PlainTextResponse:
    """Answer a request that is no handshake: RFC 9110, section 15.5.22."""
    text = "This address wants a WebSocket handshake: does a proxy leave out Upgrade?\n"
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return PlainTextResponse(text, 426, headers)


def _subprotocols(headers: Headers) -> list[str]:
    lines = headers.getlist("sec-websocket-protocol")
    return [name.strip() for line in lines for name in line.split(",")]


def _approach(websocket: WebSocket) -> Approach:
    return Approach(websocket.url.path.rpartition("/")[2], joined(websocket.headers.items()))


async def _refuse(websocket: WebSocket, status: int, text: str) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(PlainTextResponse(text, status))
    else:
        await websocket.close()


async def _serve(hub: Hub, websocket: WebSocket, wire: Wire) -> None:
    outlet = Outlet(hub.settings.client.outbox_bytes_max)
    connection = outlet.connection = hub.connect(outlet, wire, approach=_approach(websocket))
    frame_bytes_max = hub.settings.client.frame_bytes_max
    await run(
        outlet,
        connection,
        send=_send(outlet, websocket, binary=wire.codec.binary),
        receive=_receive(outlet, connection, websocket, frame_bytes_max, connection.receive),
    )


async def _serve_one_way(hub: Hub, websocket: WebSocket) -> None:
    outlet = Outlet(hub.settings.client.outbox_bytes_max)
    connection = outlet.connection = hub.connect(
        outlet, ASGI_ONE_WAY_JSON, one_way=True, approach=_approach(websocket)
    )
    take = partial(take_first, connection)
    request = websocket.query_params.get("cf_connect")
    if request:
        take(request.encode(errors="replace"))
    await run(
        outlet,
        connection,
        send=_send_one_way(outlet, websocket),
        receive=_receive(outlet, connection, websocket, hub.settings.client.frame_bytes_max, take),
    )


async def _send(outlet: Outlet, websocket: WebSocket, *, binary: bool) -> None:
    while blocks := await outlet.take():
        for block in blocks:
            if binary:
                await websocket.send_bytes(block)
            else:
                await websocket.send_text(block.decode())
    await _close(outlet, websocket)


async def _send_one_way(outlet: Outlet, websocket: WebSocket) -> None:
    """Send each push in a frame of its own, and the reason of the end in both ways."""
    while blocks := await outlet.take():
        for block in blocks:
            for push in block.decode().split("\n"):
                await websocket.send_text(push)
    if outlet.ended is not None:
        await websocket.send_text(farewell(ASGI_ONE_WAY_JSON, outlet.ended).decode())
    await _close(outlet, websocket)


async def _close(outlet: Outlet, websocket: WebSocket) -> None:
    if outlet.ended is not None:
        await websocket.close(outlet.ended.code, outlet.ended.frame_reason)


async def _receive(
    outlet: Outlet,
    connection: Connection,
    websocket: WebSocket,
    frame_bytes_max: int,
    take: Callable[[bytes], None],
) -> None:
    binary = connection.wire.codec.binary
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        text = message.get("text")
        frame = message["bytes"] if text is None else text.encode()
        if len(frame) > frame_bytes_max:
            connection.shut(Close(_TOO_BIG, "message too big"))
        elif text is not None and binary:
            connection.shut(DisconnectCode.BAD_REQUEST)
        else:
            take(frame)
        await outlet.readable()
