"""What of a session expires, and what prolongs it: the connection, and single subscriptions.

Sans-I/O. A time counts from the reply that tells the client of it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from serve.auth.access import Access
from serve.protocol.messages import (
    CommandError,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    Refresh,
    RefreshResult,
    SubRefresh,
    SubRefreshResult,
)
from serve.session.client import Client
from serve.session.pulse import Pulse, ttl
from serve.session.subscription import Subscription

AGAIN_S: Final = 60.0
"""How long something goes on whose function has failed; then it is asked again. As Centrifugo has
it (`internal/proxy/refresh_handler.go`)."""

_EXPIRED: Final = (ErrorCode.TOKEN_EXPIRED, ErrorCode.EXPIRED)


class Renewal:
    """Prolong with new tokens, and tell what has not been prolonged in time.

    Args:
        access: Judges tokens, and has the delays after which it is too late.
        pulse: Ends the connection when its time is up.
    """

    def __init__(self, access: Access, pulse: Pulse) -> None:
        self._access = access
        self._pulse = pulse
        self._ends: dict[Subscription, float] = {}

    def begin(self, subscription: Subscription, now: float) -> tuple[bool, int]:
        """Set by its grant when a subscription expires, also anew; return `expires` and `ttl`."""
        self._ends.pop(subscription, None)
        grant = subscription.grant
        if grant.ttl_s is not None:
            late_s = 0.0 if grant.by_function else self._access.client.expired_sub_close_delay_s
            self._ends[subscription] = now + grant.ttl_s + late_s
        # Who has no token cannot bring a new one: told of an end, clients would give up then.
        return ttl(None if grant.by_function else grant.ttl_s)

    def again(self, subscription: Subscription, now: float) -> None:
        """Let a subscription that has expired do so again, in `AGAIN_S`."""
        self._ends[subscription] = now + AGAIN_S

    def forget(self, subscription: Subscription) -> None:
        """Let a subscription that has ended expire no more."""
        self._ends.pop(subscription, None)

    def expired(self, now: float) -> list[Subscription]:
        """Return, once, the subscriptions whose time is up."""
        found = [subscription for subscription, at in self._ends.items() if at <= now]
        for subscription in found:
            del self._ends[subscription]
        return found

    def stop(self) -> None:
        """Let nothing be due any more, of the connection either."""
        self._ends.clear()
        self._pulse.stop()

    def deadline(self) -> float:
        """Return when the next subscription expires; infinite where none does."""
        return min(self._ends.values(), default=math.inf)

    def refresh(
        self,
        client: Client,
        request: Refresh,
        subscriptions: Mapping[str, Subscription],
        now: float,
        *,
        version: str,
    ) -> RefreshResult:
        """Prolong the connection, and let others see what the new token says of the client.

        What it says of channels counts from the next connection on, as in Centrifugo.

        Raises:
            CommandError: The token cannot be judged now; nothing has changed.
            DisconnectError: It is not valid, of another user, or gives other channels.
            KeysWantedError: See `KeySet.find`.
        """
        if not request.token or not client.refreshes:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        try:
            claims = self._access.claims(request.token)
        except CommandError as error:
            if error.code in _EXPIRED:
                raise DisconnectError(DisconnectCode.CONNECTION_EXPIRED) from error
            raise
        if claims.user != client.claims.user:
            raise DisconnectError(DisconnectCode.INVALID_TOKEN)
        old = client.claims
        if claims.channels.keys() - subscriptions or (
            old.channels.keys() - claims.channels
        ).intersection(subscriptions):
            # Which channels the server subscribes is settled at connect: have it come again.
            raise DisconnectError(DisconnectCode.INSUFFICIENT_STATE)
        # What it does not say stays as it was.
        info = old.info if claims.info is None else claims.info
        meta = old.meta if claims.meta is None else claims.meta
        claims = replace(claims, info=info, meta=meta)
        client.known_anew(claims, subscriptions.values())
        self._pulse.expire(claims.ttl_s, now)
        return RefreshResult(client.id, version, *ttl(claims.ttl_s))

    def sub_refresh(
        self,
        client: Client,
        request: SubRefresh,
        subscriptions: Mapping[str, Subscription],
        now: float,
    ) -> SubRefreshResult:
        """Prolong a subscription.

        Raises:
            CommandError: It is not there, or the token has expired, which Centrifugo lets pass, or
                cannot be judged now; nothing has changed.
            DisconnectError: The token is not valid, for another, or not asked for.
            KeysWantedError: See `KeySet.find`.
        """
        if not request.channel:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        subscription = subscriptions.get(request.channel)
        if subscription is None:
            raise CommandError(ErrorCode.PERMISSION_DENIED)
        if subscription.server_side or subscription.grant.by_function:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        if not request.token:
            raise CommandError(ErrorCode.BAD_REQUEST)
        client.renew(request, subscription)
        return SubRefreshResult(*self.begin(subscription, now))
