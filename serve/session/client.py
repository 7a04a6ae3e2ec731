"""Who a session speaks for: turns its requests into asks, as far as it may have them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from actors.message import Meta, decode_json
from actors.settings.tree import ChannelSettings
from serve.auth.access import Access, Operation
from serve.auth.tokens import Claims, Grant, TokenError
from serve.protocol.messages import (
    EMPTY,
    ClientInfo,
    CommandError,
    ConnectResult,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    History,
    Publish,
    StreamPosition,
    SubRefresh,
    Subscribe,
    SubscribeResult,
)
from serve.protocol.shape import DELTAS, STORED, Filtered, Shape
from serve.protocol.tag_filter import read_tag_filter
from serve.session.asks import AskHistory, AskPublish
from serve.session.place import Place
from serve.session.pulse import ttl
from serve.session.subscription import Subscription

_REJECT_UNRECOVERED: Final = 2
"""Bit of `Subscribe.flag`: answer error 112 rather than start with a gap."""


class Client:
    """A client's identity, and what it may have.

    Args:
        id: The client's id.
        claims: What its token says.
        access: Who may do what.
    """

    def __init__(self, client: str, claims: Claims, access: Access) -> None:
        self.id = client
        self.claims = claims
        self._access = access

    @property
    def refreshes(self) -> bool:
        """Whether it is to prolong its connection, and so is told when that expires.

        Not where a function prolongs all connections, or has let this one in.
        """
        return self._access.functions.refresh is None and not self.claims.by_function

    def connected(
        self, place: Place, subs: dict[str, SubscribeResult], *, pongs: bool
    ) -> ConnectResult:
        """Return what the client is told when it is connected; `pongs`: it answers pings."""
        expires, seconds = ttl(self.claims.ttl_s if self.refreshes else None)
        return ConnectResult(
            client=self.id,
            version=place.version,
            expires=expires,
            ttl=seconds,
            data=self.claims.data,
            subs=subs,
            ping=max(1, round(self._access.client.ping_interval_s)),
            pong=pongs,
            session=place.session,
            node=place.node,
        )

    def server_side(self, wishes: Mapping[str, Subscribe]) -> dict[str, Subscription]:
        """Return the subscriptions that a connection starts with, by channel.

        Those are the token's, and those wished for without a token that are allowed. Wishes that
        are not allowed are passed over.

        Raises:
            CommandError: The token has a channel that cannot be.
            DisconnectError: A wish has one.
        """
        granted = dict(self.claims.channels)
        personal = self._access.personal_channel(self.claims.user)
        if personal is not None:
            granted.setdefault(personal, Grant())
        found = {
            channel: self._by_server(channel, wishes.get(channel, Subscribe()), grant)
            for channel, grant in granted.items()
        }
        for channel, wish in wishes.items():
            if channel not in found and self._may_have(channel):
                found[channel] = self._by_server(channel, wish, Grant())
        return found

    def _by_server(self, channel: str, wish: Subscribe, grant: Grant) -> Subscription:
        # As in Centrifugo: no tag filter, and deltas that there are not are passed over.
        deltas = wish.delta in self._access.options(channel).allowed_delta_types
        shape = DELTAS if deltas else STORED
        return self._subscription(channel, wish, grant, server_side=True, shape=shape)

    def _may_have(self, channel: str) -> bool:
        try:
            options = self._access.options(channel)
        except CommandError as error:
            raise DisconnectError(DisconnectCode.BAD_REQUEST) from error
        return self._access.may_subscribe(channel, options, self.claims.user)

    def room_for(self, request: Subscribe, mine: Collection[str]) -> ChannelSettings:
        """Return the settings of a channel that the client could subscribe to.

        Raises:
            CommandError: It has it already, or too many, or there is no such channel.
            DisconnectError: The request is not of the protocol.
        """
        if not request.channel or request.delta not in ("", "fossil"):
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        if request.channel in mine:
            raise CommandError(ErrorCode.ALREADY_SUBSCRIBED)
        if len(mine) >= self._access.client.channels_max:
            raise CommandError(ErrorCode.LIMIT_EXCEEDED)
        return self._access.options(request.channel)

    def subscribe(self, request: Subscribe, options: ChannelSettings) -> Subscription:
        """Return the subscription that the client asks for.

        Raises:
            CommandError: It may not have it.
            DisconnectError: Its token is for another.
            KeysWantedError: See `KeySet.find`.
        """
        # A token decides alone; so it must, where the name asks for one ($).
        if request.token:
            grant = self._grant(request)
        elif self._access.may_subscribe(request.channel, options, self.claims.user):
            grant = Grant()
        else:
            raise CommandError(ErrorCode.PERMISSION_DENIED)
        return self.granted(request, grant)

    def granted(self, request: Subscribe, grant: Grant) -> Subscription:
        """Return the subscription that the client may have.

        Raises:
            CommandError: The request asks for what there is not.
        """
        shape = self._shape(request, self._access.options(request.channel))
        return self._subscription(request.channel, request, grant, shape=shape)

    def _shape(self, request: Subscribe, options: ChannelSettings) -> Shape:
        """Return how a client wants publications, as far as the namespace lets it.

        Raises:
            CommandError: Its tag filter is not valid, not allowed, or together with deltas.
        """
        tag_filter = read_tag_filter(request.tf, self._access.client)
        deltas = request.delta in options.allowed_delta_types
        if tag_filter is None:
            return DELTAS if deltas else STORED
        if deltas or not options.allow_tags_filter:
            raise CommandError(ErrorCode.BAD_REQUEST)
        return Filtered(tag_filter)

    def _grant(self, request: Subscribe) -> Grant:
        try:
            return self._access.grant(
                request.token, request.channel, user=self.claims.user, client=self.id
            )
        except TokenError as error:
            raise CommandError(ErrorCode.PERMISSION_DENIED) from error

    def renew(self, request: SubRefresh, subscription: Subscription) -> None:
        """Go on with what a new subscription token gives: its time, and what others see.

        What else it gives (`data`, `override`) counts from the next subscription on, as in
        Centrifugo.

        Raises:
            CommandError: It has expired, or cannot be judged now.
            DisconnectError: It is not valid, or for another.
            KeysWantedError: See `KeySet.find`.
        """
        try:
            grant = self._access.grant(
                request.token, request.channel, user=self.claims.user, client=self.id
            )
        except TokenError as error:
            raise DisconnectError(DisconnectCode.INVALID_TOKEN) from error
        self.regrant(subscription, grant)

    def regrant(self, subscription: Subscription, grant: Grant) -> None:
        """Let a subscription have another grant: others see its info from now on."""
        subscription.grant, subscription.info = grant, self.info(grant)

    def known_anew(self, claims: Claims, mine: Iterable[Subscription]) -> None:
        """Go on with other claims, of the same user: others see from now on what they say.

        Subscriptions stay as they are, whatever the claims say of channels.
        """
        self.claims = claims
        for subscription in mine:
            subscription.info = self.info(subscription.grant)

    def info(self, grant: Grant) -> bytes:
        """Return the client as others see it in a channel: `ClientInfo` as JSON."""
        claims = self.claims
        info = ClientInfo(claims.user, self.id, _raw(claims.info), _raw(grant.info))
        return msgspec.json.encode(info)

    def options(self, channel: str, override: Mapping[str, bool]) -> ChannelSettings:
        """Return the settings of a channel as they hold for one subscription.

        Subscriptions without an override share them: a copy for each would take its memory.

        Raises:
            CommandError: There is no such channel.
            DisconnectError: The name is empty.
        """
        options = self._access.options(channel)
        return options.model_copy(update=dict(override)) if override else options

    def _subscription(
        self,
        channel: str,
        wish: Subscribe,
        grant: Grant,
        *,
        server_side: bool = False,
        shape: Shape,
    ) -> Subscription:
        options = self.options(channel, grant.override)
        user = self.claims.user
        reads = self._access.may(Operation.HISTORY, options, user, subscribed=True)
        sees = self._access.may(Operation.PRESENCE, options, user, subscribed=True)
        positioned = wish.positioned and (options.allow_positioning or reads)
        recoverable = options.force_recovery or (
            wish.recoverable and (options.allow_recovery or reads)
        )
        latest = options.auto_cache_recover and options.force_recovery_mode == "cache"
        recovers = wish.recover or (latest and recoverable)
        return Subscription(
            channel,
            options,
            self.info(grant),
            grant,
            server_side=server_side,
            recover=StreamPosition(wish.offset, wish.epoch) if recovers else None,
            positioned=options.force_positioning or positioned,
            recoverable=recoverable,
            pushes_joins=options.join_leave
            and (options.force_push_join_leave or (wish.join_leave and sees)),
            must_recover=bool(wish.flag & _REJECT_UNRECOVERED) and not server_side,
            shape=shape,
        )

    def publish_options(self, request: Publish) -> ChannelSettings:
        """Return the settings of the channel that something is to be published to.

        Raises:
            CommandError: There is no such channel, or the request has no data.
        """
        options = self._access.options(request.channel)
        if not bytes(request.data):
            raise CommandError(ErrorCode.BAD_REQUEST)
        return options

    def check_publish(self, request: Publish, *, subscribed: bool) -> None:
        """Refuse who may not publish.

        Raises:
            CommandError: It may not, or gave no data.
        """
        options = self.publish_options(request)
        user = self.claims.user
        if not self._access.may(Operation.PUBLISH, options, user, subscribed=subscribed):
            raise CommandError(ErrorCode.PERMISSION_DENIED)

    def publish(
        self, command_id: int, request: Publish, subscription: Subscription | None
    ) -> AskPublish:
        """Return what the client publishes, signed with who it is."""
        if subscription is not None:
            info = decode_json(subscription.info)
        else:
            info = {"user": self.claims.user, "client": self.id}
            if self.claims.info is not None:
                info["conn_info"] = self.claims.info
        return AskPublish(command_id, request.channel, bytes(request.data), Meta(info=info))

    def history(self, command_id: int, request: History, *, subscribed: bool) -> AskHistory:
        """Return which part of a channel's history the client asks for.

        Raises:
            CommandError: There is none, it may not, or the request makes no sense.
        """
        options = self._access.options(request.channel)
        if not options.has_history:
            raise CommandError(ErrorCode.NOT_AVAILABLE)
        user = self.claims.user
        if not self._access.may(Operation.HISTORY, options, user, subscribed=subscribed):
            raise CommandError(ErrorCode.PERMISSION_DENIED)
        since = request.since
        if request.reverse and since is not None and since.offset == 0:
            raise CommandError(ErrorCode.BAD_REQUEST)
        most = self._access.client.history_max
        return AskHistory(
            command_id,
            request.channel,
            since=None if since is None else since.offset,
            limit=most if request.limit < 0 else min(request.limit, most),
            reverse=request.reverse,
            meta_ttl_s=options.history_meta_ttl_s,
            epoch="" if since is None else since.epoch,
        )

    def check_presence(self, channel: str, *, subscribed: bool) -> None:
        """Refuse who may not ask who is in a channel.

        Raises:
            CommandError: It may not, or the channel has no presence.
        """
        options = self._access.options(channel)
        if not options.presence:
            raise CommandError(ErrorCode.NOT_AVAILABLE)
        user = self.claims.user
        if not self._access.may(Operation.PRESENCE, options, user, subscribed=subscribed):
            raise CommandError(ErrorCode.PERMISSION_DENIED)


def _raw(value: Any) -> Raw:
    # The very object: a field is left out only where it has its default itself.
    return EMPTY if value is None else Raw(msgspec.json.encode(value))
