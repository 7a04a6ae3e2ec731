"""What your functions are asked about clients, and what they may answer.

For modules of yours that the settings name in `authorise`; docs/authorisation.md is the manual.
Requests and answers do not change. JSON values are Python's: dict, list, str, int, float, bool,
None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from serve.protocol.messages import ErrorCode

_OWN_ERRORS: Final = range(400, 2000)
_DISCONNECTS: Final = range(3000, 5000)
UNCHANGED: Final = object()
"""In answers: as it was."""
SERVER_API: Final = "server_api"
"""In `RpcRequest.transport`: whoever has the API key calls, so `client` and `user` are empty."""


# --- what functions are asked


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """A client without a token wants to connect: who is it?

    Attributes:
        client: The id that the connection has.
        headers: Of its HTTP request, names in lower case. Those sent twice are joined by `, `.
        sent_headers: What the client put into its connect command as headers, names in lower case:
            browsers can set no others on a WebSocket. A proxy does not see these.
        data: What the client sent with the command; None: nothing.
        name: Of the client's software, as it says.
        version: Of that software, as it says.
        transport: `websocket`, `sse`, `http_stream`, `uni_websocket`, `uni_sse`, `uni_http_stream`.
    """

    client: str
    headers: Mapping[str, str] = field(default_factory=dict)
    sent_headers: Mapping[str, str] = field(default_factory=dict)
    data: Any = None
    name: str = ""
    version: str = ""
    transport: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """A client that is connected asks for something.

    Attributes:
        client: The connection's id.
        user: Who it is; empty: anonymous.
        info: What others see of it (`conn_info`).
        meta: What its token, or the connect function, gave for the server's eyes only.
        transport: As in `ConnectRequest`.
    """

    client: str
    user: str
    info: Any = None
    meta: Any = None
    transport: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeRequest(ClientRequest):
    """May it subscribe, without a subscription token?

    Attributes:
        channel: To what.
        data: What the client sent with the command; None: nothing.
    """

    channel: str
    data: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest(ClientRequest):
    """May it publish?

    Attributes:
        channel: Where.
        data: What.
    """

    channel: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRequest(ClientRequest):
    """It calls a procedure of yours; or the server API does: see `SERVER_API`.

    Attributes:
        method: Which; may be empty.
        data: The argument; None: none.
    """

    method: str
    data: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest(ClientRequest):
    """The connection's time is up: does it go on?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRefreshRequest(ClientRequest):
    """The time of a subscription is up: does it go on?

    Attributes:
        channel: To what it is subscribed.
    """

    channel: str


Request = (
    ConnectRequest
    | SubscribeRequest
    | PublishRequest
    | RpcRequest
    | RefreshRequest
    | SubRefreshRequest
)


# --- what they may answer


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowSubscribe:
    """It may, or is subscribed by the server (`AllowConnect.subs`).

    Attributes:
        info: What others see of it in this channel (`chan_info`).
        data: What the client gets with the reply.
        expire_at_s: Until when, in seconds since the epoch; the client then subscribes anew, and
            your function is asked again; unless your function for `sub_refresh` lets it go on.
            None: as long as it is connected.
        override: Settings of the namespace that are other for this subscription: `presence`,
            `join_leave`, `force_push_join_leave`, `force_positioning`, `force_recovery`.
    """

    info: Any = None
    data: Any = None
    expire_at_s: float | None = None
    override: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowConnect:
    """It may, and this is who it is.

    Attributes:
        user: Id of the user; empty: anonymous.
        info: What others see of it (`conn_info`).
        meta: What your other functions see of it, and no client.
        data: What the client gets with the reply.
        expire_at_s: Until when, in seconds since the epoch; the client then connects anew, and
            your function is asked again; unless your function for `refresh` lets it go on. None:
            for ever.
        channels: What the server subscribes it to.
        subs: The same, by channel, with more to each.
    """

    user: str = ""
    info: Any = None
    meta: Any = None
    data: Any = None
    expire_at_s: float | None = None
    channels: Sequence[str] = ()
    subs: Mapping[str, AllowSubscribe] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowPublish:
    """It may.

    Attributes:
        data: What is published instead of what the client gave.
    """

    data: Any = UNCHANGED


@dataclass(frozen=True, slots=True)
class AllowRpc:
    """What the procedure returns.

    Attributes:
        data: What the client gets; None: nothing.
    """

    data: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowRefresh:
    """The connection goes on.

    Attributes:
        expire_at_s: Until when, in seconds since the epoch. None: for ever.
        info: What others see of the client (`conn_info`).
        meta: What your other functions see of it, and no client.
    """

    expire_at_s: float | None = None
    info: Any = UNCHANGED
    meta: Any = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowSubRefresh:
    """The subscription goes on.

    Attributes:
        expire_at_s: Until when, in seconds since the epoch. None: as long as it is connected.
        info: What others see of the client in this channel (`chan_info`).
    """

    expire_at_s: float | None = None
    info: Any = UNCHANGED


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not, and is told so; the connection goes on (to connect: the client gives up).

    To `refresh` and `sub_refresh`: what has expired ends, and nobody is told code and reason.

    Attributes:
        code: 103 is "permission denied"; others of the protocol (100 to 113), or your own from 400
            to 1999.
        reason: Text for the client. Empty: that of the code.
        temporary: The client should try again. None: as the code says.
    """

    code: int = ErrorCode.PERMISSION_DENIED.value
    reason: str = ""
    temporary: bool | None = None

    def __post_init__(self) -> None:
        _check_number("Deny.code", self.code)
        if self.code not in _OWN_ERRORS and self.code not in set(ErrorCode):
            raise ValueError(f"Deny: {self.code} is no error code: take 400 to 1999, or 103")
        check_text("Deny.reason", self.reason)
        if not isinstance(self.temporary, bool | None):
            raise TypeError(f"Deny.temporary is {_typed(self.temporary)}: give True, False or None")


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The connection ends.

    Attributes:
        code: 4000 to 4499: the client comes back; 4500 to 4999: it does not. Those of the protocol
            (3000 to 3999) may be used, too.
        reason: Text for the client; a WebSocket has room for 123 bytes of it.
    """

    code: int
    reason: str = ""

    def __post_init__(self) -> None:
        _check_number("Disconnect.code", self.code)
        if self.code not in _DISCONNECTS:
            raise ValueError(f"Disconnect: {self.code} is no close code: take 4000 to 4999")
        check_text("Disconnect.reason", self.reason)


Answer = (
    AllowConnect
    | AllowSubscribe
    | AllowPublish
    | AllowRpc
    | AllowRefresh
    | AllowSubRefresh
    | Deny
    | Disconnect
)


def check_text(name: str, value: object) -> None:
    """Refuse what is no text, or none that can be sent.

    Raises:
        TypeError: It is of another type.
        UnicodeEncodeError: It has no UTF-8.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is {_typed(value)}: give text")
    value.encode()


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {_typed(value)}: give a whole number")


def _typed(value: object) -> str:
    return f"of type {type(value).__name__}"
