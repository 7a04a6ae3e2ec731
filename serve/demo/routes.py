"""The discussion's page and its own small API; the page's readers need no API key."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.requests import ClientDisconnect

from actors.errors import MessageError, QueueFullError, UnavailableError
from actors.message import Ack, Meta, encode_json
from actors.settings.tree import Settings
from actors.store.interface import History
from serve.auth.access import origin_allowed
from serve.demo.transforms import ENTRY_ID
from serve.transports.request import read_body

COMMENTS_CHANNEL: Final = "discussion:article"
VOTES_CHANNEL: Final = "votes:article"
PAGE_COMMENTS: Final = 50
"""Comments that one request returns."""
BODY_BYTES_MAX: Final = 16 * 1024
RETRY_AFTER_S: Final = 2

Publish = Callable[[str, bytes, Meta], Awaitable[Ack]]
"""Publishes (channel, data as JSON, meta) and returns the result of the commit.

It may raise `QueueFullError`, `UnavailableError` and `MessageError`.
"""

_HEADERS: Final = {
    # No inline script, nothing from another host: a comment that slipped through could do nothing.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/discussion/discussion.js": ("discussion.js", "text/javascript"),
    "/discussion/discussion.css": ("discussion.css", "text/css"),
}

_Key = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_:-]*$")]
_Body = TypeVar("_Body", bound=BaseModel)


class Store(Protocol):
    """What the page asks of Valkey: a part of `EdgeStore`."""

    async def history(
        self,
        channel: str,
        *,
        since: int | None,
        limit: int | None,
        reverse: bool = False,
        meta_ttl_s: int,
    ) -> History:
        """See `EdgeStore.history`."""
        ...

    async def counters(self, channel: str) -> dict[str, int]:
        """See `EdgeStore.counters`."""
        ...

    async def presence_stats(self, channel: str) -> tuple[int, int]:
        """See `EdgeStore.presence_stats`."""
        ...


class NewComment(BaseModel):
    """What the form sends. A comment with the key of an earlier one is not posted again."""

    model_config = ConfigDict(extra="forbid")

    author: Annotated[str, Field(max_length=40)] = ""
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    key: _Key = ""

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("write something")
        return text


class NewVote(BaseModel):
    """What a vote button sends; `key` as with comments."""

    model_config = ConfigDict(extra="forbid")

    comment: Annotated[str, Field(pattern=f"^{ENTRY_ID}$")]
    vote: Literal[1, -1]
    key: _Key = ""


def router(publish: Publish, store: Store, settings: Settings) -> APIRouter:
    """Make the page's routes.

    Args:
        publish: Sends a message down the pipeline and waits for its result.
        store: Where history, counters and presence are read.
        settings: For the channels' options and the origins allowed.
    """
    channel_settings = settings.channel_settings(COMMENTS_CHANNEL) or settings.channels
    own = Depends(_origin_check(settings.client.allowed_origins))
    routes = APIRouter(include_in_schema=False)
    for path, (name, media_type) in _FILES.items():
        routes.add_api_route(path, _file(name, media_type), methods=["GET", "HEAD"])

    @routes.post("/discussion/comments", status_code=201, dependencies=[own])
    async def comment(request: Request) -> dict[str, Any]:
        new = await _read(request, NewComment)
        ack = await _published(
            publish, COMMENTS_CHANNEL, new.model_dump(include={"author", "text"}), new.key
        )
        if channel_settings.has_history and not ack.offset:
            raise HTTPException(422, "nothing was left of the comment once it was made safe")
        return {"offset": ack.offset, "epoch": ack.epoch}

    @routes.post("/discussion/votes", status_code=201, dependencies=[own])
    async def vote(request: Request) -> dict[str, Any]:
        new = await _read(request, NewVote)
        await _published(publish, VOTES_CHANNEL, new.model_dump(exclude={"key"}), new.key)
        return {}

    @routes.get("/discussion/comments")
    async def comments(before: Annotated[int | None, Query(ge=1)] = None) -> Response:
        """Return the latest comments (before an offset), oldest first, and the position."""
        history = await _asked(
            store.history(
                COMMENTS_CHANNEL,
                since=before,
                limit=PAGE_COMMENTS,
                reverse=True,
                meta_ttl_s=channel_settings.history_meta_ttl_s,
            )
        )
        return _no_store(_encode_history(history))

    @routes.get("/discussion/votes")
    async def votes() -> Response:
        return _no_store(encode_json(await _asked(store.counters(VOTES_CHANNEL))))

    @routes.get("/discussion/readers")
    async def readers() -> Response:
        clients, users = await _asked(store.presence_stats(COMMENTS_CHANNEL))
        return _no_store(encode_json({"num_clients": clients, "num_users": users}))

    return routes


def _file(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    content = (Path(__file__).parent / name).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return send


def _origin_check(allowed: tuple[str, ...]) -> Callable[[Request], None]:
    """Return what refuses posts from other sites' pages. No browser sends none without Origin."""

    def check(request: Request) -> None:
        headers = request.headers
        if not origin_allowed(headers.get("origin"), headers.get("host"), allowed):
            raise HTTPException(403, "this page may not post here: its origin is another")

    return check


async def _read(request: Request, shape: type[_Body]) -> _Body:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type != "application/json":
        # A form of another site can send any other type without asking first.
        raise HTTPException(415, "send application/json")
    try:
        body = await read_body(request, BODY_BYTES_MAX)
    except ClientDisconnect as error:
        raise HTTPException(400, "the body ended early") from error
    if body is None:
        raise HTTPException(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        raise HTTPException(422, f"{where}: {why}" if where else why) from error


async def _published(publish: Publish, channel: str, data: dict[str, Any], key: str) -> Ack:
    try:
        ack = await publish(channel, encode_json(data), Meta(key=key))
    except QueueFullError as error:
        raise _later(429, "too much is being posted: try again in a moment") from error
    except UnavailableError as error:
        raise _later(503, "not available right now: try again in a moment") from error
    except MessageError as error:
        raise HTTPException(422, str(error)) from error
    if ack.error:
        raise HTTPException(422, ack.error)
    return ack


_Answer = TypeVar("_Answer")


async def _asked(answer: Awaitable[_Answer]) -> _Answer:
    try:
        return await answer
    except UnavailableError as error:
        raise _later(503, "not available right now: try again in a moment") from error


def _later(status: int, why: str) -> HTTPException:
    return HTTPException(status, why, headers={"Retry-After": str(RETRY_AFTER_S)})


def _no_store(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


def _encode_history(history: History) -> bytes:
    """Encode a history that was read newest first; the bodies are JSON already."""
    items = [
        b'{"offset":%d,%b' % (offset, body[1:]) for offset, body in reversed(history.publications)
    ]
    head = encode_json({"offset": history.offset, "epoch": history.epoch})[:-1]
    return head + b',"publications":[' + b",".join(items) + b"]}"
