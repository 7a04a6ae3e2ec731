"""The server API's old form: `POST /api`, a command a line, and a reply a line.

https://centrifugal.dev/docs/3/server/server_api#http-api
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

from serve.api.body import BadBodyError, decode_body, read_body
from serve.api.calls import COMMANDS_MAX, ApiCalls, Reply, weight
from serve.api.shapes import ApiError, Command
from serve.protocol.messages import ErrorCode

_encode: Final = msgspec.json.Encoder().encode


OPENAPI_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "One command; the body may hold several, a line each.",
                    "properties": {
                        "id": {"type": "integer"},
                        "method": {"type": "string"},
                        "params": {"type": "object"},
                    },
                    "required": ["method"],
                }
            }
        },
    }
}
"""What an OpenAPI operation says about the body."""


class _Line(msgspec.Struct):
    """One command."""

    id: int = 0
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")


class OldApi:
    """Do the commands of one request, one after the other: see `ApiCalls.do_in_turn`.

    Errors are in the replies, and the status is 200; but a request of which some line is no command
    is a 400, and then nothing is done. Methods are those that `batch` knows.

    Args:
        calls: What they do.
        allowed: Whether a request has the API key.
    """

    def __init__(self, calls: ApiCalls, allowed: Callable[[Request], bool]) -> None:
        self._calls = calls
        self._allowed = allowed

    async def answer(self, request: Request) -> Response:
        """Answer a request in the old form: `{"method": ..., "params": {...}}`, a line each."""
        if not self._allowed(request):
            return Response(status_code=HTTPStatus.UNAUTHORIZED)
        try:
            lines = _lines(await read_body(request))
            commands = _commands(lines)
        except BadBodyError as error:
            return PlainTextResponse(error.text, error.status)
        found = await self._calls.do_in_turn(commands, request.is_disconnected)
        # Fewer than the lines where the client has gone.
        replies = [
            _encode(_reply(line, each)) + b"\n" for line, each in zip(lines, found, strict=False)
        ]
        return Response(b"".join(replies), media_type="application/json")


def _reply(line: _Line, found: Reply) -> Reply:
    reply: Reply = {"id": line.id} if line.id else {}
    if "error" in found:
        return reply | found
    return reply | {"result": found[line.method]}


def _lines(body: bytes) -> list[_Line]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise BadBodyError(HTTPStatus.BAD_REQUEST, "there is no command")
    if len(lines) > COMMANDS_MAX:
        raise BadBodyError(HTTPStatus.BAD_REQUEST, f"more than {COMMANDS_MAX} commands")
    return [decode_body(line, _Line) for line in lines]


def _commands(lines: Sequence[_Line]) -> list[Command | ApiError]:
    commands = [_command(line) for line in lines]
    if sum(weight(each) for each in commands if isinstance(each, Command)) > COMMANDS_MAX:
        text = f"more than {COMMANDS_MAX} commands and channels"
        raise BadBodyError(HTTPStatus.BAD_REQUEST, text)
    return commands


def _command(line: _Line) -> Command | ApiError:
    if line.method not in Command.__struct_fields__:
        return ApiError(ErrorCode.METHOD_NOT_FOUND)
    params = line.params if bytes(line.params) != b"null" else b"{}"
    text = b'{"%b":%b}' % (line.method.encode(), params)
    try:
        return msgspec.json.decode(text, type=Command)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return ApiError(ErrorCode.BAD_REQUEST, str(error))
