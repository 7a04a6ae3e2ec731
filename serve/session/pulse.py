"""What is due when in a session's life: pings, and the ends of those who do not answer."""

import math
from typing import Final

from actors.settings.client import ClientSettings
from serve.protocol.messages import DisconnectCode, DisconnectError

_NEVER: Final = math.inf
_TTL_MAX: Final = 2**32 - 1


def ttl(ttl_s: float | None) -> tuple[bool, int]:
    """Return `expires` and `ttl` of a result; None: never."""
    return (False, 0) if ttl_s is None else (True, max(1, math.ceil(min(ttl_s, _TTL_MAX))))


class Pulse:
    """Keep a session's times. Reads no clock: `now` is the caller's, in seconds.

    Args:
        limits: The settings.
        now: When the session began.
        spread: 0 to 1: where in the second half of the interval the first ping is.
        answers: The client answers pings, and may refresh its token.
    """

    def __init__(self, limits: ClientSettings, *, now: float, spread: float, answers: bool) -> None:
        self._limits = limits
        self._spread = spread
        self._answers = answers
        self._stale_at = now + limits.stale_close_delay_s
        self._ping_at = self._pong_at = self._expires_at = _NEVER
        self._pinged_at = now
        self._unanswered = 0

    def connected(self, ttl_s: float | None, now: float, *, promptly: bool = False) -> None:
        """Begin to ping; the client is no longer stale, and its token ends as `expire` says."""
        self._stale_at = _NEVER
        self.expire(ttl_s, now, promptly=promptly)
        self._ping_at = now + self._limits.ping_interval_s * (1 + self._spread) / 2

    def expire(self, ttl_s: float | None, now: float, *, promptly: bool = False) -> None:
        """Set when the token ends; None: never. `promptly`: the client cannot refresh it."""
        if ttl_s is None:
            self._expires_at = _NEVER
        else:
            grace_s = self._limits.expired_close_delay_s if self._answers and not promptly else 0.0
            self._expires_at = now + ttl_s + grace_s

    def expired(self, now: float) -> bool:
        """Tell whether the time is up that `expire` has set: `tick` would say so, too."""
        return now >= self._expires_at

    def stop(self) -> None:
        """Let nothing be due any more."""
        self._stale_at = self._ping_at = self._pong_at = self._expires_at = _NEVER

    def pong(self) -> None:
        """Take the answer to a ping.

        Raises:
            DisconnectError: There is none to answer.
        """
        if self._unanswered == 0:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        self._unanswered -= 1
        latest = self._pinged_at + self._limits.pong_timeout_s
        self._pong_at = latest if self._unanswered else _NEVER

    def unheard(self, now: float) -> None:
        """Know that nothing is read from the client now: an answer may be late by no fault of its.

        It has its whole time again.
        """
        if self._unanswered:
            self._pong_at = now + self._limits.pong_timeout_s

    def tick(self, now: float) -> bool:
        """Tell whether a ping is due, and count it as sent.

        Raises:
            DisconnectError: The client's time is up.
        """
        if now >= self._stale_at:
            raise DisconnectError(DisconnectCode.STALE)
        if now >= self._pong_at:
            raise DisconnectError(DisconnectCode.NO_PONG)
        if now >= self._expires_at:
            raise DisconnectError(DisconnectCode.CONNECTION_EXPIRED)
        if now < self._ping_at:
            return False
        self._ping_at = now + self._limits.ping_interval_s
        self._pinged_at = now
        if self._answers:
            self._unanswered += 1
            self._pong_at = min(self._pong_at, now + self._limits.pong_timeout_s)
        return True

    def deadline(self) -> float:
        """Return when `tick` has something to do; infinite where it never has."""
        return min(self._stale_at, self._ping_at, self._pong_at, self._expires_at)
