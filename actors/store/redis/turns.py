"""How many calls of one client may be under way: the others wait for their turn."""

import asyncio
from typing import Any, Final

import redis.exceptions

_CALLS_MAX: Final = 64
"""The library opens a connection for each call under way, and past 100 of them (Sentinels and each
server of a Cluster: too) it raises at once. Well below that, as a call that is sent on to another
server of a Cluster takes a second connection. More would not be faster: the event loop and the
server do one thing at a time."""
_TURN_S: Final = 10.0
"""A server that is well does tens of thousands of calls meanwhile. One that hangs keeps each turn
for its whole time limit, so most who wait would wait in vain."""


class InTurn:
    """Mixed into an asynchronous client: its calls begin in the order in which they are made.

    The time limit for the server's answer begins with the turn, so a burst of calls is only slow.

    Raises:
        redis.exceptions.MaxConnectionsError: From a call whose turn did not come in 10 s: it was
            not sent.
    """

    turn_s = _TURN_S

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = asyncio.Semaphore(_CALLS_MAX)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command when its turn comes, and return the answer."""
        try:
            async with asyncio.timeout(self.turn_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise redis.exceptions.MaxConnectionsError(
                f"{_CALLS_MAX} calls are under way, and none ended in time for another"
            ) from error
        try:
            # The class that this one is mixed into has it.
            return await super().execute_command(*args, **options)  # type: ignore[misc]
        finally:
            self._turns.release()
