"""The client protocol: typed commands, results and pushes, and their codes.

Sans-I/O. The shapes are those of Centrifugo's client protocol v2
(https://centrifugal.dev/docs/transports/client_protocol,
https://github.com/centrifugal/protocol/blob/master/definitions/client.proto). A field of type
`Raw` holds JSON text without raw newlines, whatever the codec.
"""

import enum
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from actors.errors import RaywireError

Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

EMPTY: Final = Raw(b"")
"""JSON that was not given."""


class _Code(enum.IntEnum):
    @property
    def reason(self) -> str:
        """The text that goes with the code."""
        return self.name.lower().replace("_", " ")


class ErrorCode(_Code):
    """Why a command failed (https://centrifugal.dev/docs/server/codes#client-error-codes)."""

    INTERNAL_SERVER_ERROR = 100
    UNAUTHORIZED = 101
    UNKNOWN_CHANNEL = 102
    PERMISSION_DENIED = 103
    METHOD_NOT_FOUND = 104
    ALREADY_SUBSCRIBED = 105
    LIMIT_EXCEEDED = 106
    BAD_REQUEST = 107
    NOT_AVAILABLE = 108
    TOKEN_EXPIRED = 109
    EXPIRED = 110
    TOO_MANY_REQUESTS = 111
    UNRECOVERABLE_POSITION = 112
    CONCURRENT_PAGINATION = 113

    @property
    def temporary(self) -> bool:
        """Whether the client should try again."""
        return self in _TEMPORARY


_TEMPORARY: Final = frozenset(
    {
        ErrorCode.INTERNAL_SERVER_ERROR,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.CONCURRENT_PAGINATION,
    }
)


class UnsubscribeCode(_Code):
    """Why the server ended a subscription. From 2500 on the client subscribes again by itself.

    https://centrifugal.dev/docs/server/codes#unsubscribe-codes
    """

    SERVER_UNSUBSCRIBE = 2000
    INSUFFICIENT_STATE = 2500
    SUBSCRIPTION_EXPIRED = 2501
    STATE_INVALIDATED = 2502


class DisconnectCode(_Code):
    """Why the server ended a connection. 3500 to 3999 (and 4500 to 4999): do not come back.

    https://centrifugal.dev/docs/server/codes#disconnect-codes
    """

    CONNECTION_CLOSED = 3000
    SHUTDOWN = 3001
    INTERNAL_SERVER_ERROR = 3004
    CONNECTION_EXPIRED = 3005
    SUBSCRIPTION_EXPIRED = 3006
    SLOW = 3008
    WRITE_ERROR = 3009
    INSUFFICIENT_STATE = 3010
    FORCE_RECONNECT = 3011
    NO_PONG = 3012
    TOO_MANY_REQUESTS = 3013
    STATE_INVALIDATED = 3014
    INVALID_TOKEN = 3500
    BAD_REQUEST = 3501
    STALE = 3502
    FORCE_DISCONNECT = 3503
    CONNECTION_LIMIT = 3504
    CHANNEL_LIMIT = 3505
    INAPPROPRIATE_PROTOCOL = 3506
    PERMISSION_DENIED = 3507
    NOT_AVAILABLE = 3508
    TOO_MANY_ERRORS = 3509


def one_way_close(code: ErrorCode) -> DisconnectCode:
    """Return how a one-way client, which knows no errors, is told that it cannot connect.

    https://centrifugal.dev/docs/transports/uni_client_protocol
    """
    return _ONE_WAY_CLOSE.get(code, DisconnectCode.INTERNAL_SERVER_ERROR)


_ONE_WAY_CLOSE: Final = {
    ErrorCode.TOKEN_EXPIRED: DisconnectCode.CONNECTION_EXPIRED,
    ErrorCode.EXPIRED: DisconnectCode.CONNECTION_EXPIRED,
    ErrorCode.TOO_MANY_REQUESTS: DisconnectCode.TOO_MANY_REQUESTS,
    ErrorCode.PERMISSION_DENIED: DisconnectCode.PERMISSION_DENIED,
}


class CommandError(RaywireError):
    """A command fails, and the connection goes on. Takes an `ErrorCode`."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class DisconnectError(RaywireError):
    """The connection ends. Takes a `DisconnectCode`."""

    def __init__(self, code: DisconnectCode) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ends: any code, as the server API may give its own."""

    code: int
    reason: str

    @property
    def frame_reason(self) -> str:
        """The reason, as far as a WebSocket close frame can hold it (RFC 6455, section 5.5)."""
        return self.reason.encode()[:123].decode(errors="ignore")

    @property
    def reconnect(self) -> bool:
        """Whether the client should come back."""
        return not (3500 <= self.code < 4000 or 4500 <= self.code < 5000)


# --- commands


class StreamPosition(Struct, frozen=True):
    """A place in a channel's history. An empty epoch is not compared."""

    offset: Offset = 0
    epoch: str = ""


class Subscribe(Struct):
    """Subscribe to a channel; within `Connect`, the position of a subscription held before."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    data: Raw = EMPTY
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: Raw = EMPTY
    flag: int = 0


class Connect(Struct):
    """Open the session."""

    token: str = ""
    data: Raw = EMPTY
    subs: dict[str, Subscribe] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}


class Unsubscribe(Struct):
    """End a subscription."""

    channel: str = ""


class Publish(Struct):
    """Publish to a channel."""

    channel: str = ""
    data: Raw = EMPTY


class Presence(Struct):
    """Ask who is in a channel."""

    channel: str = ""


class PresenceStats(Struct):
    """Ask how many are in a channel."""

    channel: str = ""


class History(Struct):
    """Ask for a channel's publications. `limit` 0: only the position; below 0: all there may be."""

    channel: str = ""
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class Ping(Struct):
    """Part of the schema, refused by servers of v2."""


class Send(Struct):
    """Send a message that has no reply."""

    data: Raw = EMPTY


class Rpc(Struct):
    """Call a procedure of the server."""

    method: str = ""
    data: Raw = EMPTY


class Refresh(Struct):
    """Prolong the connection with a new token."""

    token: str = ""


class SubRefresh(Struct):
    """Prolong a subscription with a new token."""

    channel: str = ""
    token: str = ""


CommandBody: TypeAlias = (
    Connect
    | Subscribe
    | Unsubscribe
    | Publish
    | Presence
    | PresenceStats
    | History
    | Ping
    | Send
    | Rpc
    | Refresh
    | SubRefresh
)


@dataclass(frozen=True, slots=True)
class Command:
    """What a client wants. `body` None: it answers a ping."""

    id: int
    body: CommandBody | None


# --- results and pushes. Fields with a default are left out where they have it.


class ClientInfo(Struct, omit_defaults=True):
    """Who a client is."""

    user: str
    client: str
    conn_info: Raw = EMPTY
    chan_info: Raw = EMPTY


class SubscribeResult(Struct, omit_defaults=True):
    """What a subscription starts with. Publications are complete JSON objects, oldest first."""

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Raw] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    was_recovering: bool = False


class ConnectResult(Struct, omit_defaults=True):
    """What a connection starts with."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class UnsubscribeResult(Struct):
    """Done."""


class PublishResult(Struct):
    """Done: the publication is committed."""


class PresenceResult(Struct):
    """Client id -> `ClientInfo` as JSON."""

    presence: dict[str, Raw]


class PresenceStatsResult(Struct):
    """How many clients, and different users."""

    num_clients: int
    num_users: int


class HistoryResult(Struct):
    """Publications as complete JSON objects, and the channel's position."""

    publications: list[Raw]
    epoch: str
    offset: int


class RefreshResult(Struct, omit_defaults=True):
    """The connection goes on."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0


class Join(Struct):
    """A client came."""

    info: Raw


class Leave(Struct):
    """A client went."""

    info: Raw


class Unsubscribed(Struct):
    """The server ended a subscription."""

    code: int
    reason: str


class Disconnected(Struct, omit_defaults=True):
    """The connection ends with this."""

    code: int
    reason: str
    reconnect: bool = False


Result: TypeAlias = (
    ConnectResult
    | SubscribeResult
    | UnsubscribeResult
    | PublishResult
    | PresenceResult
    | PresenceStatsResult
    | HistoryResult
    | RefreshResult
)
Push: TypeAlias = Join | Leave | Unsubscribed | Disconnected
