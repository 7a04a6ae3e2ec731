"""A session that the server API can reach. Sans-I/O, as `session` is."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from actors.store.interface import History as StoredHistory
from serve.auth.tokens import Grant
from serve.directives.directive import (
    DisconnectClients,
    RefreshClients,
    SubscribeClients,
    ToClients,
    UnsubscribeClients,
)
from serve.protocol.messages import (
    EMPTY,
    Close,
    CommandError,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    Refreshed,
    Subscribed,
    UnsubscribeCode,
)
from serve.session.asks import Ask, AskGrant, AskJoin
from serve.session.prolonged import ProlongedSession
from serve.session.pulse import ttl
from serve.session.session import State
from serve.session.subscription import Subscription

LATER_MAX: Final = 100
"""Directives that wait for the reply to connect; more are passed over."""


class DirectedSession(ProlongedSession):
    """Carry out directives, between the client's own commands and in the order they are told.

    A directive does not wait for the client's commands under way. But one for a client that has no
    reply to its connect yet waits for that (unless it ends the connection), and a subscription that
    has not been told to the client yet ends right after it is.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """See `Session`."""
        super().__init__(*args, **options)
        self._later: list[tuple[ToClients, float]] = []
        self._revoked: set[Subscription] = set()

    def direct(self, directive: ToClients, now: float, wall_s: float) -> Subscription | None:
        """Carry out a directive; return the subscription that it has ended, if one.

        Args:
            directive: It is meant for this client.
            now: The caller's clock, in seconds.
            wall_s: Seconds since the epoch.
        """
        self._now = now
        if self.close is not None:
            return None
        if isinstance(directive, DisconnectClients):
            self.shut(Close(directive.code, directive.reason))
        elif self.state is not State.CONNECTED:
            if len(self._later) < LATER_MAX:
                self._later.append((directive, wall_s))
        elif isinstance(directive, UnsubscribeClients):
            return self._revoke(directive.channel)
        elif isinstance(directive, SubscribeClients):
            self._grant(directive, wall_s)
        else:
            self._prolong(directive, wall_s)
        return None

    def joined(self, ask: AskJoin, histories: Sequence[StoredHistory], now: float) -> None:
        """See `Session.joined`. The caller forgets what is not in `subscriptions` then."""
        if isinstance(ask, AskGrant):
            self._now = now
            self._granted(ask, histories[0])
        else:
            super().joined(ask, histories, now)
        for subscription in self._revoked.intersection(ask.subscriptions):
            if self.subscriptions.get(subscription.channel) is subscription:
                self._revoke(subscription.channel)
        self._revoked.difference_update(ask.subscriptions)
        if self.state is State.CONNECTED:
            later, self._later = self._later, []
            for directive, wall_s in later:
                self.direct(directive, now, wall_s)

    def failed(self, ask: Ask, code: ErrorCode, now: float) -> None:
        """See `Session.failed`. The client hears nothing of what the server wanted for it."""
        if isinstance(ask, AskJoin):
            self._revoked.difference_update(ask.subscriptions)
        if isinstance(ask, AskGrant):
            self._forget(ask.subscriptions[0])
        else:
            super().failed(ask, code, now)

    # --- subscribe

    def _grant(self, directive: SubscribeClients, wall_s: float) -> None:
        """Begin to subscribe, unless it is so already, or cannot be: then nothing happens."""
        ttl_s = directive.expire_at_s - wall_s if directive.expire_at_s else None
        full = len(self.subscriptions) >= self._limits.channels_max
        if directive.channel in self.subscriptions or full or _is_over(ttl_s):
            return
        try:
            subscription = self._made(directive, ttl_s)
        except (CommandError, DisconnectError):
            return  # This edge knows no such namespace; the one that was asked does.
        self.subscriptions[directive.channel] = subscription
        self._renewal.begin(subscription, self._now)
        self._asks.append(AskGrant(0, (subscription,), connecting=False, data=directive.data))

    def _made(self, directive: SubscribeClients, ttl_s: float | None) -> Subscription:
        info = msgspec.json.decode(directive.info) if directive.info else None
        grant = Grant(info, ttl_s=ttl_s)
        options = self._client.options(directive.channel, directive.override)
        return Subscription(
            directive.channel,
            options,
            self._client.info(grant),
            grant,
            server_side=True,
            recover=directive.since,
            positioned=options.force_positioning,
            recoverable=options.force_recovery or directive.since is not None,
            pushes_joins=options.join_leave and options.force_push_join_leave,
        )

    def _granted(self, ask: AskGrant, history: StoredHistory) -> None:
        """Tell the client of its subscription, and give it what it missed and what was held."""
        (subscription,) = ask.subscriptions
        channel = subscription.channel
        if self.close is not None or self.subscriptions.get(channel) is not subscription:
            return
        try:
            result = subscription.start(history)
            place = (result.recoverable, result.epoch, result.offset, result.positioned)
            self._messages.append(self._codec.push(channel, Subscribed(*place, ask.data or EMPTY)))
            if result.publications:
                first = history.publications[0][0]
                bodies = [body for _, body in history.publications]
                self._messages += self._codec.publications(channel, first, bodies)
            self._send_held(subscription)
        except DisconnectError as error:
            self.shut(error.code)

    # --- unsubscribe, refresh

    def _revoke(self, channel: str) -> Subscription | None:
        subscription = self.subscriptions.get(channel)
        if subscription is None or self.close is not None:
            return None
        if not subscription.started:
            # Its reply comes first: a client ignores news of what it does not have.
            self._revoked.add(subscription)
            return None
        self._end(subscription, UnsubscribeCode.SERVER_UNSUBSCRIBE)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        if self.subscriptions.get(subscription.channel) is subscription:
            del self.subscriptions[subscription.channel]
        self._renewal.forget(subscription)

    def _prolong(self, directive: RefreshClients, wall_s: float) -> None:
        ttl_s = directive.expire_at_s - wall_s if directive.expire_at_s else None
        if directive.expired or _is_over(ttl_s):
            self.shut(DisconnectCode.CONNECTION_EXPIRED)
            return
        claims = dataclasses.replace(self._client.claims, ttl_s=ttl_s)
        if directive.info:
            claims = dataclasses.replace(claims, info=msgspec.json.decode(directive.info))
        self._client.known_anew(claims, self.subscriptions.values())
        self._pulse.expire(ttl_s, self._now, promptly=not self._client.refreshes)
        self._messages.append(self._codec.push("", Refreshed(*ttl(ttl_s))))


def _is_over(ttl_s: float | None) -> bool:
    return ttl_s is not None and ttl_s <= 0
