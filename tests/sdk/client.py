"""What the tests ask of a client, whichever SDK it is of."""

import abc
import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WAIT_S = 30


class CallError(Exception):
    """The SDK reported that a call failed; `code` as the server said."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code


@dataclass(frozen=True)
class Options:
    """How a client connects.

    Attributes:
        token: The connection's.
        asks: It has a function for tokens: see `drive.mjs`.
        data: Goes with the command to connect; None: nothing.
    """

    token: str = ""
    asks: bool = False
    data: Any = None


class Client(abc.ABC):
    """A client, with what it was told and nobody has looked at yet."""

    def __init__(self) -> None:
        self.id = ""
        self._heard: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    @abc.abstractmethod
    async def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the SDK by the name it has in `drive.mjs`; return its result.

        Raises:
            CallError: The server refused, or did not answer.
        """

    def tell(self, name: str, event: Any) -> None:
        """Take an event."""
        self._heard[name].put_nowait(event)

    async def hear(self, name: str) -> Any:
        """Return the next event of a kind."""
        async with asyncio.timeout(WAIT_S):
            return await self._heard[name].get()

    def heard(self, name: str) -> list[Any]:
        """Return the events of a kind that came and were not looked at."""
        queue = self._heard[name]
        return [queue.get_nowait() for _ in range(queue.qsize())]

    async def subscribe(self, channel: str, wishes: Mapping[str, Any] | None = None) -> Any:
        """Subscribe; return the event that says so."""
        await self.call("subscribe", channel, wishes or {})
        return await self.hear("subscribed")

    async def data(self, count: int) -> list[Any]:
        """Return the data of the next publications."""
        return [(await self.hear("publication"))["data"] for _ in range(count)]


def snake(value: Any) -> Any:
    """Return the same with the keys of the Python SDK: `wasRecovering` is `was_recovering`."""
    if isinstance(value, dict):
        return {re.sub("[A-Z]", _lower, key): snake(part) for key, part in value.items()}
    if isinstance(value, list):
        return [snake(part) for part in value]
    return value


def _lower(letter: re.Match[str]) -> str:
    return f"_{letter[0].lower()}"
