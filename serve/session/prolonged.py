"""A session that the user's functions prolong, in place of the client. Sans-I/O.

https://centrifugal.dev/docs/server/proxy has the same as proxies for refresh.
"""

import dataclasses

from serve.authorise.questions import RefreshRequest, SubRefreshRequest
from serve.authorise.ruling import Prolonged, Ruling
from serve.protocol.messages import Close, DisconnectCode, ErrorCode
from serve.session.asks import Ask, AskRefresh
from serve.session.authorised import AuthorisedSession
from serve.session.renewal import AGAIN_S
from serve.session.subscription import Subscription


class ProlongedSession(AuthorisedSession):
    """Ask when a time is up; what it was set for goes on until the answer is there.

    Commands do not wait for that. An answer counts only if what it is about is still there, and
    has got no new time meanwhile.
    """

    def tick(self, now: float) -> None:
        """See `Session.tick`."""
        if self._access.functions.refresh and self._pulse.expired(now):
            self._pulse.expire(None, now)
            self._asks.append(AskRefresh(0, RefreshRequest(**self._who()), self._client.claims))
        super().tick(now)

    def prolonged(self, ask: AskRefresh, ruling: Ruling, now: float) -> None:
        """Answer a question to a function that prolongs with what follows."""
        self._now = now
        if not self._concerns(ask):
            return
        if isinstance(ruling, Close):
            self.shut(ruling)
        elif isinstance(ruling, Prolonged):
            self._go_on_with(ask.about, ruling)
        elif isinstance(ask.about, Subscription):
            super()._over(ask.about)
        else:
            self.shut(DisconnectCode.CONNECTION_EXPIRED)

    def failed(self, ask: Ask, code: ErrorCode, now: float) -> None:
        """See `Session.failed`. A function that fails ends nothing: it is asked again soon."""
        if not isinstance(ask, AskRefresh):
            super().failed(ask, code, now)
        elif not self._concerns(ask):
            return
        elif isinstance(ask.about, Subscription):
            self._renewal.again(ask.about, now)
        else:
            self._pulse.expire(AGAIN_S, now, promptly=True)

    def _concerns(self, ask: AskRefresh) -> bool:
        if self.close is not None:
            return False
        if isinstance(ask.about, Subscription):
            return self.subscriptions.get(ask.about.channel) is ask.about
        return self._client.claims is ask.about

    def _go_on_with(self, about: object, prolonged: Prolonged) -> None:
        if isinstance(about, Subscription):
            self._client.regrant(about, dataclasses.replace(about.grant, **prolonged.changes))
            self._renewal.begin(about, self._now)
        else:
            claims = dataclasses.replace(self._client.claims, **prolonged.changes)
            self._client.known_anew(claims, self.subscriptions.values())
            self._pulse.expire(claims.ttl_s, self._now, promptly=True)

    def _over(self, subscription: Subscription) -> None:
        if not (self._access.functions.sub_refresh and subscription.grant.by_function):
            super()._over(subscription)
        elif self.close is None:
            asked = SubRefreshRequest(channel=subscription.channel, **self._who())
            self._asks.append(AskRefresh(0, asked, subscription))
