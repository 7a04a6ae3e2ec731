"""What the server API wants done to clients, as edges tell it to one another. Sans-I/O.

A directive stands in the control stream (`actors.store.interface_control`), which every edge
follows; each carries it out for those of its own clients whom it means. Nothing of this is durable:
an edge that is cut off from the server for long, or starts later, misses directives, and nobody is
told. A client that connects while a directive is under way may or may not be meant.
"""

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from serve.protocol.messages import EMPTY, StreamPosition


class _Directive(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do"):
    """What is told."""


class _ToClients(_Directive, frozen=True, kw_only=True, omit_defaults=True):
    """Means every client of a user, or of those the one with this id or session."""

    user: str = ""
    client: str = ""
    session: str = ""


class SubscribeClients(_ToClients, frozen=True, kw_only=True, omit_defaults=True, tag="subscribe"):
    """Subscribe them from the server's side; passed over where they are subscribed.

    Attributes:
        channel: To what.
        info: Shown to others as `chan_info`.
        data: Given to the client with the push.
        since: They get what came after it, if all of that is there.
        expire_at_s: When the subscription ends, in seconds since the epoch; 0: never.
        override: Settings of the channel that differ for this subscription.
    """

    channel: str
    info: Raw = EMPTY
    data: Raw = EMPTY
    since: StreamPosition | None = None
    expire_at_s: float = 0.0
    override: dict[str, bool] = {}


class UnsubscribeClients(
    _ToClients, frozen=True, kw_only=True, omit_defaults=True, tag="unsubscribe"
):
    """End their subscriptions to a channel, whoever made them (code 2000)."""

    channel: str


class DisconnectClients(
    _ToClients, frozen=True, kw_only=True, omit_defaults=True, tag="disconnect"
):
    """End their connections, but for those of the clients in `whitelist`."""

    code: int
    reason: str = ""
    whitelist: list[str] = []


class RefreshClients(_ToClients, frozen=True, kw_only=True, omit_defaults=True, tag="refresh"):
    """Set when their connections expire.

    Attributes:
        expired: At once (code 3005).
        expire_at_s: Seconds since the epoch; 0: never.
        info: Shown to others as `conn_info` from then on; empty: as before.
    """

    expired: bool = False
    expire_at_s: float = 0.0
    info: Raw = EMPTY


class AskChannels(_Directive, frozen=True, kw_only=True, omit_defaults=True, tag="ask_channels"):
    """Ask every edge which channels its clients are subscribed to; `id` names the box for it."""

    id: str
    pattern: str = ""


ToClients: TypeAlias = SubscribeClients | UnsubscribeClients | DisconnectClients | RefreshClients
Directive: TypeAlias = ToClients | AskChannels

encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Directive).decode


def decode(record: bytes) -> Directive | None:
    """Read a record; None: it is not one that this version knows."""
    try:
        found: Directive = _decode(record)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return found
