"""What unit tests of sessions do with one, whatever kind it is."""

import json
from typing import Any, Generic, TypeVar

from serve.session.asks import Ask
from serve.session.session import Session

S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=Ask)


class SessionClient(Generic[S]):
    """A session with a clock.

    Attributes:
        session: Made by whoever knows its kind.
        now: The time.
    """

    session: S
    now = 100.0

    def heard(self) -> list[Any]:
        """Return what the session says."""
        return [json.loads(message) for message in self.session.take_messages()]

    def ask(self, kind: type[A]) -> A:
        """Return the one thing that the session asks for now."""
        (ask,) = self.session.take_asks()
        assert isinstance(ask, kind)
        return ask

    def wait(self, seconds: float) -> list[Any]:
        """Let time pass."""
        self.now += seconds
        self.session.tick(self.now)
        return self.heard()

    @property
    def closed(self) -> int | None:
        """With which code the session is closed."""
        return None if self.session.close is None else self.session.close.code
