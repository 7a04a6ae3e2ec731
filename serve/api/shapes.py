"""The shapes of the server API: requests, errors, and their description for OpenAPI.

Fields and codes are those of Centrifugo's server API (https://centrifugal.dev/docs/server/server_api).
Requests are msgspec structures and not pydantic models, because `msgspec.Raw` keeps the data
byte for byte: decoding and encoding again would lose digits of large numbers, and time.
"""

from http import HTTPStatus
from typing import Any, Final

import msgspec

from actors.errors import MessageError, QueueFullError, RaywireError, UnavailableError
from serve.api.client_shapes import (
    ChannelsRequest,
    DisconnectRequest,
    Position,
    RefreshRequest,
    RpcRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from serve.api.intake import UnknownChannelError
from serve.protocol.messages import CommandError, ErrorCode

BODY_BYTES_MAX: Final = 16 * 2**20
"""Size of a request's body."""


DEAD_LETTER: Final = 422
"""Our own code (400 to 1999 are free for applications): a transform failed on the message. It is
a dead letter, and publishing it again will most likely fail again."""

_TRANSPORT_STATUS: Final = {
    ErrorCode.UNKNOWN_CHANNEL: HTTPStatus.NOT_FOUND,
    ErrorCode.METHOD_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    ErrorCode.UNRECOVERABLE_POSITION: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    DEAD_LETTER: HTTPStatus.UNPROCESSABLE_ENTITY,
}


class ApiError(RaywireError):
    """The answer to a call that failed: a code, and a reason for people."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    @property
    def body(self) -> dict[str, Any]:
        """Return the error object."""
        text = "dead letter" if self.code == DEAD_LETTER else ErrorCode(self.code).reason
        return {
            "code": int(self.code),
            "message": f"{text}: {self.reason}" if self.reason else text,
        }

    def status(self, *, transport: bool) -> HTTPStatus:
        """Return the HTTP status: 200 but where waiting helps, or (`transport`) by code."""
        if self.code == ErrorCode.TOO_MANY_REQUESTS:
            return HTTPStatus.TOO_MANY_REQUESTS
        if self.code == ErrorCode.INTERNAL_SERVER_ERROR:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if not transport:
            return HTTPStatus.OK
        return _TRANSPORT_STATUS.get(self.code, HTTPStatus.BAD_REQUEST)


class RefusedError(ApiError):
    """The answer to a call that the user's function refused: a code and words of its own."""

    @property
    def body(self) -> dict[str, Any]:
        """Return the error object."""
        return {"code": self.code, "message": self.reason}


def as_api_error(error: RaywireError) -> ApiError:
    """Say in the API's words what one of our errors means."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, CommandError):
        return ApiError(error.code)
    if isinstance(error, UnknownChannelError):
        return ApiError(ErrorCode.UNKNOWN_CHANNEL)
    if isinstance(error, MessageError):
        return ApiError(ErrorCode.BAD_REQUEST, str(error))
    if isinstance(error, QueueFullError):
        return ApiError(ErrorCode.TOO_MANY_REQUESTS, str(error))
    if isinstance(error, UnavailableError):
        return ApiError(ErrorCode.INTERNAL_SERVER_ERROR, str(error))
    raise error


class _Publishing(msgspec.Struct, kw_only=True):
    """What `publish` and `broadcast` share.

    Attributes:
        data: Any JSON value.
        b64data: The same as base64 of its JSON text; wins over `data`.
        skip_history: Deliver it to who is there, and keep nothing.
        tags: Small labels that subscribers see.
        idempotency_key: A second message of the channel with it takes no effect.
        delta: Deltas may be sent in place of the whole, also where `delta_publish` is off.
        version: Of the state that the data is: above 0, the message takes no effect where the
            channel has seen that version or a higher one. Only where there is a history.
        version_epoch: Where versions begin anew: a lower one takes effect with another epoch.
    """

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64data: str | None = None
    skip_history: bool | None = None
    tags: dict[str, str] | None = None
    idempotency_key: str | None = None
    delta: bool | None = None
    version: int | None = None
    version_epoch: str | None = None


class PublishRequest(_Publishing):
    """A message for one channel."""

    channel: str = ""


class BroadcastRequest(_Publishing):
    """The same message for several channels."""

    channels: list[str] = []


class ChannelRequest(msgspec.Struct):
    """A question about one channel."""

    channel: str = ""


class HistoryRequest(msgspec.Struct):
    """Publications after `since`, or (`reverse`) before it.

    Attributes:
        channel: The channel.
        limit: At most so many; 0: none, just the position; -1: all.
        since: Not that publication itself.
        reverse: Newest first.
    """

    channel: str = ""
    limit: int | None = None
    since: Position | None = None
    reverse: bool | None = None


class InfoRequest(msgspec.Struct):
    """A question about the edges."""


class Command(msgspec.Struct):
    """One call of a batch: exactly one member."""

    publish: PublishRequest | None = None
    broadcast: BroadcastRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    disconnect: DisconnectRequest | None = None
    refresh: RefreshRequest | None = None
    history: HistoryRequest | None = None
    history_remove: ChannelRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    info: InfoRequest | None = None
    channels: ChannelsRequest | None = None
    rpc: RpcRequest | None = None


class BatchRequest(msgspec.Struct):
    """Several calls in one.

    Attributes:
        commands: The calls; their replies come in the same order.
        parallel: Do them side by side; else each begins when the one before has its result.
            Publications of one channel keep the order of the commands either way.
    """

    commands: list[Command] = []
    parallel: bool | None = None


class DeadListRequest(msgspec.Struct):
    """Which dead letters to list.

    Attributes:
        channel: Only of channels that fit this pattern: `*` is any text, `?` one character.
        stage: Only those that failed in this stage.
        limit: At most so many, up to 1000; 100 unless given.
        oldest_first: Begin with the oldest.
    """

    channel: str | None = None
    stage: str | None = None
    limit: int | None = None
    oldest_first: bool | None = None


class DeadShowRequest(msgspec.Struct):
    """Which dead letter to show."""

    id: str = ""


class _DeadSelection(msgspec.Struct):
    """Which dead letters: by `ids`, or by `channel` and `stage` (see `dead_list`), or `all`."""

    ids: list[str] | None = None
    channel: str | None = None
    stage: str | None = None
    all: bool | None = None


class DeadReplayRequest(_DeadSelection):
    """Which dead letters to put into the queue again: `ids`, or `channel` and `stage`, or `all`."""


class DeadDropRequest(_DeadSelection):
    """Which dead letters to delete: `ids`, or `channel` and `stage`, or `all`."""


_REQUIRED: Final = frozenset({"channel", "channels", "commands", "id"})
"""Empty means missing to the API, so the structures have defaults; the description says so.
Where null is the default, the member may really be missing."""

_SCHEMAS: Final = "#/components/schemas/"


def openapi_schemas() -> dict[str, Any]:
    """Return the JSON Schemas of all requests, by name."""
    requests = (
        PublishRequest,
        BroadcastRequest,
        HistoryRequest,
        ChannelRequest,
        SubscribeRequest,
        UnsubscribeRequest,
        DisconnectRequest,
        RefreshRequest,
        ChannelsRequest,
        RpcRequest,
        BatchRequest,
        DeadListRequest,
        DeadShowRequest,
        DeadReplayRequest,
        DeadDropRequest,
    )
    _, schemas = msgspec.json.schema_components(requests, ref_template=_SCHEMAS + "{name}")
    for schema in schemas.values():
        members = schema.get("properties", {})
        required = sorted(
            name for name in _REQUIRED & set(members) if members[name].get("default") is not None
        )
        if required:
            schema["required"] = required
    return schemas


def openapi_body(request: type[msgspec.Struct]) -> dict[str, Any]:
    """Return what an operation says about its body."""
    schema = {"$ref": _SCHEMAS + request.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
