"""Compares where quiet channels are with where the store says they are."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from actors.errors import UnavailableError
from actors.store.interface import EdgeStore
from serve.hub.channel import Channel

log = logging.getLogger(__name__)


class PositionCheck:
    """Looks, now and then, for channels that have missed something without knowing.

    The feed tells of its own gaps. This finds what it cannot tell: a server that lost data, or
    records that never reached the feed. Only channels with a subscriber that may not miss anything
    are looked at, and of those the ones where nothing has come since the last time.

    Args:
        store: Where the positions are.
        every_s: Time between two rounds.
        channels: Those that have subscribers.
        suspect: Has a channel healed from its history.
    """

    def __init__(
        self,
        store: EdgeStore,
        every_s: float,
        channels: Callable[[], Iterable[Channel]],
        suspect: Callable[[Channel], None],
    ) -> None:
        self._store = store
        self._every_s = every_s
        self._channels = channels
        self._suspect = suspect
        self._tops: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in a task that `close` ends."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="position check")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Do one round, one channel after the other. While the store is away, none is suspect."""
        tops: dict[str, int] = {}
        try:
            for channel in [channel for channel in self._channels() if _watched(channel)]:
                tops[channel.name] = channel.order.top
                if self._tops.get(channel.name) == channel.order.top:
                    await self._compare(channel)
        except UnavailableError as error:
            log.warning("positions not checked", extra={"why": str(error)})
        self._tops = tops

    async def _compare(self, channel: Channel) -> None:
        found = await self._store.history(
            channel.name, since=None, limit=0, meta_ttl_s=channel.options.history_meta_ttl_s
        )
        order = channel.order
        if found.epoch != order.epoch or found.offset > order.top:
            log.warning("channel behind the store", extra={"channel": channel.name})
            self._suspect(channel)


def _watched(channel: Channel) -> bool:
    """Tell whether anybody would have to know; a channel that heals is looked at already."""
    if not channel.order.known or channel.order.waits():
        return False
    return channel.must_be_whole()
