"""The Protobuf schema: number and kind of each field of the protocol's structs.

The numbers are those that clients are built with
(https://github.com/centrifugal/protocol/blob/master/definitions/client.proto). Fields of messages
that our structs do not have yet may stand here: they are passed over.
"""

from typing import Any, Final

from serve.protobuf_json import JSON_FILTER, JSON_INFO, JSON_PUBLICATION, JSON_TEXT, PUBLISHED
from serve.protobuf_wire import (
    FLAG,
    INT,
    OFFSET,
    TEXT,
    UINT32,
    Field,
    ListField,
    MapField,
    Shape,
)
from serve.protocol import (
    Connect,
    ConnectResult,
    Disconnected,
    History,
    HistoryResult,
    Join,
    Leave,
    Ping,
    Presence,
    PresenceResult,
    PresenceStats,
    PresenceStatsResult,
    Publish,
    PublishResult,
    Refresh,
    Refreshed,
    RefreshResult,
    Rpc,
    RpcResult,
    Send,
    StreamPosition,
    SubRefresh,
    SubRefreshResult,
    Subscribe,
    Subscribed,
    SubscribeResult,
    Unsubscribe,
    Unsubscribed,
    UnsubscribeResult,
)

_channel: Final = {"channel": Field(1, TEXT)}
_info: Final = {"info": Field(1, JSON_INFO)}
_position: Final = Shape(StreamPosition, {"offset": Field(1, OFFSET), "epoch": Field(2, TEXT)})

_subscribe: Final = Shape(
    Subscribe,
    {
        "channel": Field(1, TEXT),
        "token": Field(2, TEXT),
        "recover": Field(3, FLAG),
        "epoch": Field(6, TEXT),
        "offset": Field(7, OFFSET),
        "data": Field(8, JSON_TEXT),
        "positioned": Field(9, FLAG),
        "recoverable": Field(10, FLAG),
        "join_leave": Field(11, FLAG),
        "delta": Field(12, TEXT),
        "tf": Field(13, JSON_FILTER),
        "flag": Field(14, INT),
    },
)
COMMANDS: Final[dict[int, Shape[Any]]] = {
    4: Shape(
        Connect,
        {
            "token": Field(1, TEXT),
            "data": Field(2, JSON_TEXT),
            "subs": MapField(3, _subscribe.kind, Subscribe),
            "name": Field(4, TEXT),
            "version": Field(5, TEXT),
            "headers": MapField(6, TEXT, str),
        },
    ),
    5: _subscribe,
    6: Shape(Unsubscribe, _channel),
    7: Shape(Publish, {**_channel, "data": Field(2, PUBLISHED)}),
    8: Shape(Presence, _channel),
    9: Shape(PresenceStats, _channel),
    10: Shape(
        History,
        {
            **_channel,
            "limit": Field(7, INT),
            "since": Field(8, _position.kind),
            "reverse": Field(9, FLAG),
        },
    ),
    11: Shape(Ping, {}),
    12: Shape(Send, {"data": Field(1, JSON_TEXT)}),
    13: Shape(Rpc, {"data": Field(1, JSON_TEXT), "method": Field(2, TEXT)}),
    14: Shape(Refresh, {"token": Field(1, TEXT)}),
    15: Shape(SubRefresh, {**_channel, "token": Field(2, TEXT)}),
}
"""By the field of `Command` in which they stand. Of several, the first counts."""

_expiry: Final = {"expires": Field(1, FLAG), "ttl": Field(2, UINT32)}
_subscribe_result: Final = Shape(
    SubscribeResult,
    {
        **_expiry,
        "recoverable": Field(3, FLAG),
        "epoch": Field(6, TEXT),
        "publications": ListField(7, JSON_PUBLICATION),
        "recovered": Field(8, FLAG),
        "offset": Field(9, OFFSET),
        "positioned": Field(10, FLAG),
        "data": Field(11, JSON_TEXT),
        "was_recovering": Field(12, FLAG),
        "delta": Field(13, FLAG),
    },
)
RESULTS: Final[dict[int, Shape[Any]]] = {
    5: Shape(
        ConnectResult,
        {
            "client": Field(1, TEXT),
            "version": Field(2, TEXT),
            "expires": Field(3, FLAG),
            "ttl": Field(4, UINT32),
            "data": Field(5, JSON_TEXT),
            "subs": MapField(6, _subscribe_result.kind, SubscribeResult),
            "ping": Field(7, UINT32),
            "pong": Field(8, FLAG),
            "session": Field(9, TEXT),
            "node": Field(10, TEXT),
            "time": Field(11, INT),
        },
    ),
    6: _subscribe_result,
    7: Shape(UnsubscribeResult, {}),
    8: Shape(PublishResult, {}),
    9: Shape(PresenceResult, {"presence": MapField(1, JSON_INFO, str)}),
    10: Shape(
        PresenceStatsResult, {"num_clients": Field(1, UINT32), "num_users": Field(2, UINT32)}
    ),
    11: Shape(
        HistoryResult,
        {
            "publications": ListField(1, JSON_PUBLICATION),
            "epoch": Field(2, TEXT),
            "offset": Field(3, OFFSET),
        },
    ),
    13: Shape(RpcResult, {"data": Field(1, JSON_TEXT)}),
    14: Shape(
        RefreshResult,
        {
            "client": Field(1, TEXT),
            "version": Field(2, TEXT),
            "expires": Field(3, FLAG),
            "ttl": Field(4, UINT32),
        },
    ),
    15: Shape(SubRefreshResult, _expiry),
}
"""By the field of `Reply` in which they stand."""

PUSHES: Final[dict[int, Shape[Any]]] = {
    5: Shape(Join, _info),
    6: Shape(Leave, _info),
    7: Shape(Unsubscribed, {"code": Field(2, UINT32), "reason": Field(3, TEXT)}),
    9: Shape(
        Subscribed,
        {
            "recoverable": Field(1, FLAG),
            "epoch": Field(4, TEXT),
            "offset": Field(5, OFFSET),
            "positioned": Field(6, FLAG),
            "data": Field(7, JSON_TEXT),
        },
    ),
    11: Shape(
        Disconnected,
        {"code": Field(1, UINT32), "reason": Field(2, TEXT), "reconnect": Field(3, FLAG)},
    ),
    12: Shape(Refreshed, _expiry),
}
"""By the field of `Push` in which they stand. 4 is for publications."""
