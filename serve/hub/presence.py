"""Keeps the clients of this edge in the presence of their channels.

An entry expires unless renewed (`client.presence_ttl_s`), so that those of an edge that died go by
themselves.
"""

import asyncio
import logging
from collections.abc import Sequence
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


class PresenceKeeper:
    """Enter, renew and remove what stands in the presence for this edge's clients.

    A client that leaves a channel and comes back at once is there in the end: the one call waits
    for the other, whichever connections to the server they take.
    """

    def __init__(self, store: EdgeStore, limits: ClientSettings) -> None:
        self._store = store
        self._limits = limits
        self._entries: dict[Subscription, str] = {}
        self._leaving: dict[tuple[str, str], asyncio.Event] = {}
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
            while leaving := self._leaving.get((subscription.channel, client)):
                await leaving.wait()
            if subscription in self._entries:
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
                    if subscription in self._entries
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
        await self._store.enter(
            subscription.channel,
            client,
            subscription.info,
            ttl_s=self._limits.presence_ttl_s,
            announce=announce,
        )
        if subscription not in self._entries and not self._is_back(subscription.channel, client):
            # It left meanwhile, and the two calls may have changed places on their way.
            await self._remove(subscription, client, announce=announce)

    def _is_back(self, channel: str, client: str) -> bool:
        return any(
            other.channel == channel and whose == client for other, whose in self._entries.items()
        )

    async def _leave(self, subscription: Subscription) -> None:
        client = self._entries.pop(subscription, None)
        if client is not None:
            await self._remove(subscription, client, announce=subscription.options.join_leave)

    async def _remove(self, subscription: Subscription, client: str, *, announce: bool) -> None:
        key, done = (subscription.channel, client), asyncio.Event()
        self._leaving[key] = done
        try:
            await self._store.leave(
                subscription.channel, client, subscription.info, announce=announce
            )
        except UnavailableError as error:
            log.warning("presence not removed, it will expire", extra={"why": str(error)})
        finally:
            done.set()
            if self._leaving.get(key) is done:
                del self._leaving[key]
