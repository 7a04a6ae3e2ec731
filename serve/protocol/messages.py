"""The client protocol: typed commands, results and pushes, and their codes.

Sans-I/O. The shapes are those of Centrifugo's client protocol v2
(https://centrifugal.dev/docs/transports/client_protocol,
https://github.com/centrifugal/protocol/blob/master/definitions/client.proto). A field of type
`Raw` holds JSON text without raw newlines, whatever the codec.
"""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

# The codes are part of the protocol: whoever speaks it has them from here.
# isort: off
from serve.protocol.codes import (
    Close as Close,
    CommandError as CommandError,
    DisconnectCode as DisconnectCode,
    DisconnectError as DisconnectError,
    ErrorCode as ErrorCode,
    Failure as Failure,
    OwnError as OwnError,
    UnsubscribeCode as UnsubscribeCode,
    one_way_close as one_way_close,
)

# isort: on

Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

EMPTY: Final = Raw(b"")
"""JSON that was not given."""


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
    data: Raw = EMPTY
    was_recovering: bool = False
    delta: bool = False


class ConnectResult(Struct, omit_defaults=True):
    """What a connection starts with."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Raw = EMPTY
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


class RpcResult(Struct, omit_defaults=True):
    """What a procedure returned."""

    data: Raw = EMPTY


class RefreshResult(Struct, omit_defaults=True):
    """The connection goes on."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Struct, omit_defaults=True):
    """The subscription goes on."""

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


class Subscribed(Struct, omit_defaults=True):
    """The server has subscribed the client; `data` is for it."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = EMPTY


class Refreshed(Struct, omit_defaults=True):
    """The server has set when the connection expires, in `ttl` seconds."""

    expires: bool = False
    ttl: int = 0


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
    | RpcResult
    | RefreshResult
    | SubRefreshResult
)
Push: TypeAlias = Join | Leave | Subscribed | Unsubscribed | Refreshed | Disconnected
