"""The server API over HTTP: `POST /api/METHOD`, in the shapes of Centrifugo's.

With the API key only: else a bare 401. An answer is `{"result": ...}` or `{"error": ...}` with
status 200, but 429 (with Retry-After) where the queue is full, and 503 where Valkey is away or a
result does not come in time. Batch and broadcast have an error for each part and status 200, with
Retry-After if one of the parts found the queue full. With `X-Centrifugo-Error-Mode: transport` each
error is the body itself, with a status of its own. A body that is not JSON, or not of the shape, is
a 400. `POST /api` takes commands in the old form: see `old`.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from actors.errors import RaywireError
from serve.api.body import BadBodyError, decode_body, read_body
from serve.api.calls import ApiCalls
from serve.api.client_shapes import (
    ChannelsRequest,
    DisconnectRequest,
    RefreshRequest,
    RpcRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from serve.api.old import OPENAPI_BODY, OldApi
from serve.api.shapes import (
    ApiError,
    BatchRequest,
    BroadcastRequest,
    ChannelRequest,
    DeadDropRequest,
    DeadListRequest,
    DeadReplayRequest,
    DeadShowRequest,
    HistoryRequest,
    InfoRequest,
    PublishRequest,
    as_api_error,
    openapi_body,
)
from serve.protocol.messages import ErrorCode

_Shape = TypeVar("_Shape", bound=msgspec.Struct)
_Shape_contra = TypeVar("_Shape_contra", bound=msgspec.Struct, contravariant=True)


class _Call(Protocol[_Shape_contra]):
    """One of `ApiCalls`' methods."""

    __name__: str

    async def __call__(self, request: _Shape_contra, /) -> Any: ...


_RETRY_AFTER_S: Final = "1"

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "`result`, or `error` with `code` and `message`"},
    400: {"description": "The body is not JSON, or not of this shape"},
    401: {"description": "The API key is missing or wrong"},
    429: {"description": "The queue is full (error 111): nothing was accepted, try again later"},
    503: {"description": "Valkey is away, or the result is not known in time (error 100)"},
}

SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "authorization": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`apikey KEY`",
    },
    "query": {"type": "apiKey", "in": "query", "name": "api_key"},
}
"""How a request may carry the API key, for the OpenAPI document."""
_SECURITY: Final[list[dict[str, list[str]]]] = [{name: []} for name in SECURITY_SCHEMES]

_encode: Final = msgspec.json.Encoder().encode


def router(calls: ApiCalls, *, allowed: Callable[[Request], bool]) -> APIRouter:
    """Return the routes.

    Args:
        calls: What they do.
        allowed: Whether a request has the API key.
    """
    api = APIRouter(prefix="/api", tags=["server API"], responses=_RESPONSES)

    def add(
        shape: type[_Shape],
        call: _Call[_Shape],
        member: str = "result",
        do: Callable[[_Shape, Request], Awaitable[Any]] | None = None,
    ) -> None:
        api.add_api_route(
            f"/{call.__name__}",
            _endpoint(shape, do or (lambda decoded, _: call(decoded)), member, allowed),
            methods=["POST"],
            name=call.__name__,
            description=call.__doc__,
            openapi_extra={**openapi_body(shape), "security": _SECURITY},
        )

    add(PublishRequest, calls.publish)
    add(BroadcastRequest, calls.broadcast)
    add(
        BatchRequest,
        calls.batch,
        "replies",
        lambda decoded, request: calls.batch(decoded, request.is_disconnected),
    )
    add(SubscribeRequest, calls.clients.subscribe)
    add(UnsubscribeRequest, calls.clients.unsubscribe)
    add(DisconnectRequest, calls.clients.disconnect)
    add(RefreshRequest, calls.clients.refresh)
    add(HistoryRequest, calls.history)
    add(ChannelRequest, calls.clients.history_remove)
    add(ChannelRequest, calls.presence)
    add(ChannelRequest, calls.presence_stats)
    add(InfoRequest, calls.info)
    add(ChannelsRequest, calls.clients.channels)
    add(RpcRequest, calls.clients.rpc)
    add(DeadListRequest, calls.dead.dead_list)
    add(DeadShowRequest, calls.dead.dead_show)
    add(DeadReplayRequest, calls.dead.dead_replay)
    add(DeadDropRequest, calls.dead.dead_drop)
    api.add_api_route(
        "",
        OldApi(calls, allowed).answer,
        methods=["POST"],
        name="old",
        openapi_extra={**OPENAPI_BODY, "security": _SECURITY},
    )
    return api


def _endpoint(
    shape: type[_Shape],
    do: Callable[[_Shape, Request], Awaitable[Any]],
    member: str,
    allowed: Callable[[Request], bool],
) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers the requests of one call, its result in `member` of the answer."""

    async def endpoint(request: Request) -> Response:
        if not allowed(request):
            return Response(status_code=HTTPStatus.UNAUTHORIZED)
        try:
            decoded = decode_body(await read_body(request), shape)
            found = await do(decoded, request)
            return _said_when(_json(HTTPStatus.OK, {member: found}), again=_was_refused(found))
        except BadBodyError as error:
            return PlainTextResponse(error.text, error.status)
        except RaywireError as error:
            return _failed(request, as_api_error(error))

    return endpoint


def _json(status: HTTPStatus, content: Mapping[str, Any]) -> Response:
    return Response(_encode(content), status, media_type="application/json")


def _failed(request: Request, error: ApiError) -> Response:
    transport = request.headers.get("x-centrifugo-error-mode") == "transport"
    response = _json(
        error.status(transport=transport), error.body if transport else {"error": error.body}
    )
    return _said_when(response, again=error.code == ErrorCode.TOO_MANY_REQUESTS)


def _said_when(response: Response, *, again: bool) -> Response:
    if again:
        response.headers["Retry-After"] = _RETRY_AFTER_S
    return response


def _was_refused(found: Any) -> bool:
    """Return whether the queue was full for some part of a broadcast or a batch."""
    if isinstance(found, dict):
        found = found.get("responses", ())
    parts = found if isinstance(found, list | tuple) else ()
    return any(
        part.get("error", {}).get("code") == ErrorCode.TOO_MANY_REQUESTS
        or ("broadcast" in part and _was_refused(part["broadcast"]))
        for part in parts
    )
