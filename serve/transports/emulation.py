"""The way back of SSE and HTTP streaming: commands by requests of their own.

Each is answered at once with 204, and what becomes of it is told in the stream.
"""

from typing import Final

import msgspec
from google.protobuf.message import DecodeError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from actors.errors import UnavailableError
from serve.hub.hub import Hub
from serve.protocol.protocol_pb2 import Uplink
from serve.transports.forwarding import Emulation
from serve.transports.request import client_route, is_protobuf, read_body, too_large

PATH: Final = "/emulation"


class _JsonUplink(msgspec.Struct):
    """A frame of commands for a session of an edge."""

    session: str
    node: str
    data: str


_decode_json: Final = msgspec.json.Decoder(_JsonUplink).decode


def emulation_route(hub: Hub, emulation: Emulation) -> BaseRoute:
    """Return the route, for clients of every edge."""
    limits = hub.settings.client

    async def take(request: Request) -> Response:
        try:
            body = await read_body(request, limits.frame_bytes_max)
            if body is None:
                return too_large()
            uplink = Uplink.FromString(body) if is_protobuf(request) else _read_json(body)
        except (ValueError, RecursionError, DecodeError, ClientDisconnect):
            return PlainTextResponse("Request not valid\n", 400)
        try:
            known = await emulation.send(uplink.node, uplink.session, uplink.data)
        except UnavailableError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(status_code=204) if known else PlainTextResponse("Unknown node\n", 404)

    return client_route(PATH, take, methods=("POST",), origins=limits.allowed_origins)


def _read_json(body: bytes) -> Uplink:
    found = _decode_json(body)
    return Uplink(session=found.session, node=found.node, data=found.data.encode())
