"""What the calls of the server API that concern clients do, without HTTP."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from actors.errors import MessageError
from actors.message import check_channel, decode_json, without_newlines
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import EdgeStore
from serve.api.client_shapes import (
    ChannelsRequest,
    DisconnectRequest,
    RefreshRequest,
    RpcRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from serve.api.shapes import ApiError, ChannelRequest, RefusedError
from serve.authorise import questions
from serve.authorise.ruling import Rule, Ruling
from serve.directives.directive import (
    DisconnectClients,
    RefreshClients,
    SubscribeClients,
    ToClients,
    UnsubscribeClients,
    encode,
)
from serve.protocol.messages import (
    EMPTY,
    Close,
    DisconnectCode,
    ErrorCode,
    OwnError,
    RpcResult,
    StreamPosition,
)

Reply = dict[str, Any]

DIRECTIVE_BYTES_MAX: Final = 65_536
"""Size of what one call tells the edges: `data`, `info`, the whitelist and all. Valkey keeps about
`interface_control.RECORDS_MAX` of them."""
_CODES: Final = range(3000, 5000)


class ClientCalls:
    """The calls. Those that change something for clients tell all edges, and return then.

    So success means that every edge which follows the control stream now will carry it out, within
    milliseconds as a rule, whether or not there is such a client. It is no promise: an edge that is
    cut off from Valkey for long misses it (see `serve.directives`). To repeat a call does no harm.

    Args:
        settings: Channels are read.
        store: The control stream and the histories.
        channels: Return channel -> subscribers on all edges, for a pattern.
        rule: Asks a function of the user's.

    Raises:
        RaywireError: From every call; `as_api_error` says what it means to the caller.
    """

    def __init__(
        self,
        settings: Settings,
        store: EdgeStore,
        channels: Callable[[str], Awaitable[dict[str, int]]],
        rule: Rule,
    ) -> None:
        self._settings = settings
        self._store = store
        self._channels = channels
        self._rule = rule

    async def subscribe(self, request: SubscribeRequest) -> Reply:
        """Subscribe a user's clients to a channel, from the server's side."""
        self._options(request.channel)
        since = request.recover_since
        return await self._tell(
            SubscribeClients(
                **_whom(request),
                channel=request.channel,
                info=_json(request.info, request.b64info, "b64info"),
                data=_json(request.data, request.b64data, "b64data"),
                since=None if since is None else StreamPosition(since.offset, since.epoch),
                expire_at_s=request.expire_at or 0,
                override=request.override.flags() if request.override else {},
            )
        )

    async def unsubscribe(self, request: UnsubscribeRequest) -> Reply:
        """End the subscriptions of a user's clients to a channel (code 2000)."""
        self._options(request.channel)
        return await self._tell(UnsubscribeClients(**_whom(request), channel=request.channel))

    async def disconnect(self, request: DisconnectRequest) -> Reply:
        """End the connections of a user's clients, but for those in `whitelist`."""
        how = request.disconnect
        code = DisconnectCode.FORCE_DISCONNECT
        if how is not None and how.code and how.code not in _CODES:
            raise MessageError(f"disconnect code {how.code} is not one of 3000 to 4999")
        return await self._tell(
            DisconnectClients(
                **_whom(request),
                code=how.code if how is not None and how.code else code.value,
                reason=how.reason if how is not None and how.code else code.reason,
                whitelist=request.whitelist or [],
            )
        )

    async def refresh(self, request: RefreshRequest) -> Reply:
        """Set when the connections of a user's clients expire."""
        return await self._tell(
            RefreshClients(
                **_whom(request),
                expired=bool(request.expired),
                expire_at_s=request.expire_at or 0,
                info=_json(request.info, None, "info"),
            )
        )

    async def channels(self, request: ChannelsRequest) -> Reply:
        """Return the channels that have subscribers now, on all edges, and how many each has."""
        found = await self._channels(request.pattern or "")
        return {"channels": {name: {"num_clients": count} for name, count in found.items()}}

    async def history_remove(self, request: ChannelRequest) -> Reply:
        """Forget a channel's publications; offsets go on, and clients that lack some are told."""
        if not self._options(request.channel).has_history:
            raise ApiError(ErrorCode.NOT_AVAILABLE, "the channel keeps no history")
        await self._store.history_remove(request.channel)
        return {}

    async def rpc(self, request: RpcRequest) -> Reply:
        """Call the function that answers clients' RPC calls; without one it is refused (108)."""
        if self._settings.authorise.rpc is None:
            raise ApiError(ErrorCode.NOT_AVAILABLE, f"nothing answers {request.method!r}")
        if not request.method:
            raise MessageError("method is missing")
        given = request.params
        call = questions.RpcRequest(
            client="",
            user="",
            transport=questions.SERVER_API,
            method=request.method,
            data=None if given is msgspec.UNSET else decode_json(bytes(given)),
        )
        return _returned(await self._rule(call))

    async def _tell(self, directive: ToClients) -> Reply:
        record = encode(directive)
        if len(record) > DIRECTIVE_BYTES_MAX:
            raise MessageError(f"this is more than {DIRECTIVE_BYTES_MAX} bytes for the edges")
        await self._store.control.add(record)
        return {}

    def _options(self, channel: str) -> ChannelSettings:
        check_channel(channel)
        options = self._settings.channel_settings(channel)
        if options is None:
            raise ApiError(ErrorCode.UNKNOWN_CHANNEL)
        return options


def _whom(
    request: SubscribeRequest | UnsubscribeRequest | DisconnectRequest | RefreshRequest,
) -> dict[str, Any]:
    # Centrifugo would take it for all anonymous clients, which nobody means who forgot the user.
    if not (request.user or request.client or request.session):
        raise MessageError("user is missing")
    return {"user": request.user, "client": request.client, "session": request.session}


def _returned(ruling: Ruling) -> Reply:
    """Return the result of a procedure, or raise the function's refusal."""
    if isinstance(ruling, OwnError):
        raise RefusedError(ruling.value, ruling.reason)
    if isinstance(ruling, Close):  # There is no connection that could end.
        raise RefusedError(ruling.code, ruling.reason)
    if not isinstance(ruling, RpcResult):
        raise TypeError(f"no result of a procedure: {ruling}")
    return {"data": ruling.data} if bytes(ruling.data) else {}


def _json(given: msgspec.Raw | msgspec.UnsetType, b64: str | None, name: str) -> msgspec.Raw:
    """Return JSON text without raw newlines; empty: none was given."""
    if b64:
        try:
            text = base64.b64decode(b64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MessageError(f"{name} is not base64: {error}") from error
    elif given is msgspec.UNSET or bytes(given) == b"null":
        return EMPTY
    else:
        text = bytes(given)
    decode_json(text)
    return msgspec.Raw(without_newlines(text))
