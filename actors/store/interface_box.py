"""What edges leave for one another: boxes, each of which only one edge empties.

Every edge has one under its own name, and may have others for a while.
"""

from collections.abc import Sequence
from typing import Final, Protocol

NOTES_MAX: Final = 1_000
"""Notes that may wait in one box."""


class Boxes(Protocol):
    """What an edge needs to reach another one, which it knows by name only.

    Every method may raise `UnavailableError`; a note may then have been left, or taken, or not.
    """

    async def open(self, edge: str, *, ttl_s: float) -> None:
        """Have a box for so long from now on, and keep what is in it. To be renewed in time."""
        ...

    async def close(self, edge: str) -> None:
        """Have no box any more. What is in it is gone."""
        ...

    async def post(self, edge: str, notes: Sequence[bytes]) -> int | None:
        """Leave notes, in order, and return how many were accepted; None: there is no such box.

        Fewer than given: `NOTES_MAX` wait in the box, and the rest was not accepted.
        """
        ...

    async def take(self, edge: str, *, limit: int, block_s: float) -> list[bytes]:
        """Take the oldest notes out of a box, each at most once; waits for the first.

        Only one may take from a box at a time.
        """
        ...
