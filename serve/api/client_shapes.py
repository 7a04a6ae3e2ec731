"""The shapes of the server API's calls that concern clients. See `shapes`."""

from typing import Annotated

import msgspec

from serve.protocol.messages import Offset

_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Position(msgspec.Struct):
    """A place in a channel's history."""

    offset: Offset = 0
    epoch: str = ""


class _OfClients(msgspec.Struct, kw_only=True):
    """Every client of `user`, or of those the one with the id `client`, or with `session`.

    An empty `user` means anonymous clients, and then one of the other two is needed.
    """

    user: str = ""
    client: str = ""
    session: str = ""


class Flag(msgspec.Struct):
    """A setting of a channel that differs."""

    value: bool = False


class Override(msgspec.Struct):
    """Settings of the channel that differ for one subscription."""

    presence: Flag | None = None
    join_leave: Flag | None = None
    force_push_join_leave: Flag | None = None
    force_positioning: Flag | None = None
    force_recovery: Flag | None = None

    def flags(self) -> dict[str, bool]:
        """Return those that are given."""
        given = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: flag.value for name, flag in given if flag is not None}


class SubscribeRequest(_OfClients, kw_only=True):
    """Subscribe clients from the server's side.

    Attributes:
        channel: The channel.
        info: Shown to others as `chan_info`; any JSON value.
        b64info: The same as base64 of its JSON text; wins.
        data: Given to the client; any JSON value.
        b64data: The same as base64 of its JSON text; wins.
        recover_since: Give the client what came after this position.
        expire_at: When the subscription expires, in seconds since the epoch; 0: never.
        override: Settings of the channel that differ for this subscription.
    """

    channel: str = ""
    info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64info: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64data: str | None = None
    recover_since: Position | None = None
    expire_at: _Seconds | None = None
    override: Override | None = None


class UnsubscribeRequest(_OfClients, kw_only=True):
    """End clients' subscriptions to `channel`."""

    channel: str = ""


class DisconnectReason(msgspec.Struct):
    """How a connection ends: 3500 to 3999 and 4500 to 4999 tell the client not to come back."""

    code: int = 0
    reason: str = ""


class DisconnectRequest(_OfClients, kw_only=True):
    """End clients' connections.

    Attributes:
        whitelist: Ids of clients that stay.
        disconnect: Code, 3000 to 4999, and reason; 3503 "force disconnect" unless given.
    """

    whitelist: list[str] | None = None
    disconnect: DisconnectReason | None = None


class RefreshRequest(_OfClients, kw_only=True):
    """Set when clients' connections expire.

    Attributes:
        expired: At once (code 3005).
        expire_at: Seconds since the epoch; 0: never.
        info: Shown to others as `conn_info`.
    """

    expired: bool | None = None
    expire_at: _Seconds | None = None
    info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ChannelsRequest(msgspec.Struct):
    """Which channels: those that fit `pattern`, in which `*` is any text, `?` one character."""

    pattern: str | None = None


class RpcRequest(msgspec.Struct):
    """A call of a procedure of the server.

    Attributes:
        method: Its name.
        params: Any JSON value.
    """

    method: str = ""
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
