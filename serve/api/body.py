"""The bodies of the server API's requests: read as far as they may go, and decoded."""

from http import HTTPStatus
from typing import TypeVar

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from serve.api.client_shapes import ChannelsRequest
from serve.api.shapes import BODY_BYTES_MAX, InfoRequest

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class BadBodyError(Exception):
    """The body cannot be read: the status, and a line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


async def read_body(request: Request) -> bytes:
    """Read the body, as far as it may go.

    Raises:
        BadBodyError: It is too large, or ends early.
    """
    too_large = BadBodyError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX} bytes"
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > BODY_BYTES_MAX:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise too_large
    except ClientDisconnect as error:
        raise BadBodyError(HTTPStatus.BAD_REQUEST, "the body ended early") from error
    return bytes(body)


def decode_body(body: bytes, shape: type[_Shape]) -> _Shape:
    """Decode a body; where there is nothing to ask for, it may be empty.

    Raises:
        BadBodyError: It is not JSON, or not of this shape.
    """
    if shape in (InfoRequest, ChannelsRequest) and not body:
        body = b"{}"
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBodyError(HTTPStatus.BAD_REQUEST, f"the body cannot be read: {error}") from error
