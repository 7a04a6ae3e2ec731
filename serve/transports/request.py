"""What every HTTP request of a client goes through: its origin, the preflight, and its size.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serve.auth.access import origin_allowed

Answer = Callable[[Request], Awaitable[Response]]
PROTOBUF_TYPE: Final = "application/octet-stream"
"""The Content-Type of requests and responses in Protobuf."""
_PREFLIGHT_AGE_S: Final = 300


def client_route(
    path: str, answer: Answer, *, methods: Sequence[str], origins: Sequence[str]
) -> Route:
    """Return a route for pages of this origin and of those allowed; others get status 403.

    Args:
        path: Where.
        answer: Answers what is not a preflight. Browsers are told that the page may read it.
        methods: Of which it answers requests; others get status 405.
        origins: `client.allowed_origins`.
    """

    async def endpoint(request: Request) -> Response:
        origin = request.headers.get("origin")
        if not origin_allowed(origin, request.headers.get("host"), origins):
            return PlainTextResponse("Origin not allowed\n", 403)
        if request.method == "OPTIONS":
            response = Response(status_code=204, headers=_preflight(request, methods))
        else:
            response = await answer(request)
        response.headers.update(_cross_origin(origin))
        return response

    return Route(path, endpoint, methods=[*methods, "OPTIONS"])


def _preflight(request: Request, methods: Sequence[str]) -> dict[str, str]:
    headers = {
        "Access-Control-Allow-Methods": ", ".join([*methods, "OPTIONS"]),
        "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
    }
    asked = request.headers.get("access-control-request-headers")
    return headers if asked is None else {**headers, "Access-Control-Allow-Headers": asked}


def _cross_origin(origin: str | None) -> Mapping[str, str]:
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


def is_protobuf(request: Request) -> bool:
    """Tell whether the body says of itself that it is Protobuf."""
    content_type: str = request.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower() == PROTOBUF_TYPE


async def read_body(request: Request, bytes_max: int) -> bytes | None:
    """Return the body; None: it is too large, and the rest was not read.

    Raises:
        ClientDisconnect: The client went meanwhile.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            return None
    return bytes(body)


def too_large() -> Response:
    """Refuse a request for its size."""
    return PlainTextResponse("Request too large\n", 413)
