"""The clients of one edge by their user ids: whom a directive means."""

from collections.abc import Iterator

from serve.directives.directive import DisconnectClients, ToClients
from serve.session.connection import Connection


class Audience:
    """Find clients by user, and carry out directives for them. For the event loop's thread."""

    def __init__(self) -> None:
        self._of_user: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: Connection) -> None:
        """Know a client whose user id is settled."""
        self._of_user.setdefault(connection.session.user, {})[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a client, known or not."""
        user = connection.session.user
        mine = self._of_user.get(user)
        if mine is not None:
            mine.pop(connection, None)
            if not mine:
                del self._of_user[user]

    def count(self, user: str) -> int:
        """Return how many clients a user has here; anonymous ones are nobody's."""
        return len(self._of_user.get(user, ())) if user else 0

    def carry_out(self, directive: ToClients, wall_s: float) -> None:
        """Do to each client what it is meant to have; `wall_s` is seconds since the epoch."""
        for connection in list(self._meant(directive)):
            connection.direct(directive, wall_s)

    def _meant(self, directive: ToClients) -> Iterator[Connection]:
        spared = directive.whitelist if isinstance(directive, DisconnectClients) else ()
        for connection in self._of_user.get(directive.user, ()):
            session = connection.session
            if (
                (not directive.client or directive.client == session.client)
                and (not directive.session or directive.session == session.place.session)
                and session.client not in spared
            ):
                yield connection
