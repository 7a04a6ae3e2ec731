"""Keeps the clients of this edge in the presence of their channels.

An entry expires unless renewed (`client.presence_ttl_s`), so that those of an edge that died go by
themselves.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct, json

from actors.errors import UnavailableError
from actors.settings.client import ClientSettings
from actors.store.interface import EdgeStore
from serve.session.subscription import Subscription

log = logging.getLogger(__name__)

_BATCH: Final = 100
"""Entries that are renewed, or removed, side by side."""


class _Who(Struct):
    client: str


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0
    """How many have it, or wait for it."""


class PresenceKeeper:
    """Enter, renew and remove what stands in the presence for this edge's clients.

    What is done for one client in one channel is done in turn, whichever connections to the server
    it takes: one that leaves and comes back at once is there in the end, and one that leaves while
    it enters, or is renewed, is not.
    """

    def __init__(self, store: EdgeStore, limits: ClientSettings) -> None:
        self._store = store
        self._limits = limits
        self._entries: dict[Subscription, str] = {}
        self._turns: dict[tuple[str, str], _Turn] = {}
        self._task: asyncio.Task[None] | None = None

    def __contains__(self, subscription: Subscription) -> bool:
        return subscription in self._entries

    def start(self) -> None:
        """Begin to renew, in a task of its own that `close` ends."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="presence")

    async def close(self) -> None:
        """Stop renewing. Entries that are left expire."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def enter(self, subscription: Subscription) -> None:
        """Let others see the client, where the channel's settings say so.

        Raises:
            UnavailableError: It may or may not have taken effect; `leave` is to be called.
        """
        if subscription.options.presence or subscription.options.join_leave:
            client = json.decode(subscription.info, type=_Who).client
            self._entries[subscription] = client
            await self._put(subscription, client, announce=subscription.options.join_leave)

    async def leave(self, subscriptions: Sequence[Subscription]) -> None:
        """Let others see them no more. What cannot be removed now expires."""
        for start in range(0, len(subscriptions), _BATCH):
            batch = subscriptions[start : start + _BATCH]
            await asyncio.gather(*map(self._leave, batch))

    async def renew(self) -> None:
        """Renew every entry once. What fails is tried again in the next round."""
        entries = list(self._entries.items())
        for start in range(0, len(entries), _BATCH):
            results = await asyncio.gather(
                *(
                    self._put(subscription, client, announce=False)
                    for subscription, client in entries[start : start + _BATCH]
                ),
                return_exceptions=True,
            )
            errors = [result for result in results if isinstance(result, BaseException)]
            if errors:
                facts = {"entries": len(errors), "why": str(errors[0])}
                log.warning("presence not renewed", extra=facts)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._limits.presence_update_s)
            await self.renew()

    async def _put(self, subscription: Subscription, client: str, *, announce: bool) -> None:
        async with self._turn(subscription.channel, client):
            if subscription in self._entries:
                await self._store.enter(
                    subscription.channel,
                    client,
                    subscription.info,
                    ttl_s=self._limits.presence_ttl_s,
                    announce=announce,
                )

    async def _leave(self, subscription: Subscription) -> None:
        client = self._entries.pop(subscription, None)
        if client is None:
            return
        async with self._turn(subscription.channel, client):
            try:
                await self._store.leave(
                    subscription.channel,
                    client,
                    subscription.info,
                    announce=subscription.options.join_leave,
                )
            except UnavailableError as error:
                log.warning("presence not removed, it will expire", extra={"why": str(error)})

    @asynccontextmanager
    async def _turn(self, channel: str, client: str) -> AsyncIterator[None]:
        """Wait for those who have come before, in their order."""
        key = channel, client
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]
