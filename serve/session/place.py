"""Where a session is, as its client is told when it connects."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Place:
    """What the connect result says of the server.

    Attributes:
        version: The server's.
        session: The session's secret name; empty: not told. Unlike the client's id, which others
            see in the presence, it lets whoever knows it speak for the client.
        node: The edge that holds it; empty: not told.
    """

    version: str = ""
    session: str = ""
    node: str = ""


NOWHERE: Final = Place()
"""Nothing is told."""
