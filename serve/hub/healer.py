"""Fills what the feed missed of a channel from its history."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from actors.errors import UnavailableError
from actors.pacing import Backoff
from actors.store.interface import EdgeStore, History
from serve.hub.channel import Channel

_BACKOFF: Final = Backoff()
log = logging.getLogger(__name__)

_LIMIT: Final = 1_000
"""Publications in one read."""
_SIDE_BY_SIDE_MAX: Final = 16
_SKIP_AFTER: Final = 5
"""Reads that explain nothing, after which a gap is accepted."""
_WAIT_S: Final = 5.0
"""How long `settled` waits."""


class Healer:
    """Reads the history for channels whose order waits for it, until it waits no more.

    While the store is away it tries again. A gap that the history cannot fill ends the
    subscriptions that may not miss anything.

    Args:
        store: Where the histories are.
        wanted: Whether a channel still has subscribers.
        flush: Sends what has come in order.
    """

    def __init__(
        self,
        store: EdgeStore,
        wanted: Callable[[Channel], bool],
        flush: Callable[[Channel], None],
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._flush = flush
        self._tasks: dict[Channel, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_SIDE_BY_SIDE_MAX)
        self._closed = False

    def look(self, channel: Channel) -> None:
        """Begin to heal a channel if it waits for that, in a task that `close` ends."""
        if channel.order.waits() and channel not in self._tasks and not self._closed:
            task = asyncio.get_running_loop().create_task(self._heal(channel))
            self._tasks[channel] = task

    async def settled(self, channel: Channel) -> None:
        """Wait until a channel's position is known and nothing of it is held.

        Raises:
            UnavailableError: That took too long.
        """
        try:
            async with asyncio.timeout(_WAIT_S):
                while channel.order.waits() and channel in self._tasks:
                    await asyncio.wait((self._tasks[channel],))
        except TimeoutError as error:
            raise UnavailableError("the channel's position is not known yet") from error

    async def close(self) -> None:
        """Stop; what is held stays so."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _heal(self, channel: Channel) -> None:
        failures = idle = 0
        order = channel.order
        try:
            while order.waits() and self._wanted(channel):
                top, doubts = order.top, order.doubts
                try:
                    history = await self._read(channel)
                except UnavailableError as error:
                    log.warning("channel not healed yet", extra={"why": str(error)})
                    await asyncio.sleep(_BACKOFF.wait_s(failures + 1))
                    failures += 1
                    continue
                sure = order.doubts == doubts
                self._mend(channel, history, sure=sure)
                idle = idle + 1 if order.waits() and order.top == top and sure else 0
                if idle >= _SKIP_AFTER:
                    self._skip(channel)
                self._flush(channel)
                if idle:
                    await asyncio.sleep(_BACKOFF.wait_s(idle))
        finally:
            # Here and not in a callback: the next gap may be found before that would run.
            del self._tasks[channel]

    async def _read(self, channel: Channel) -> History:
        order = channel.order
        async with self._room:
            return await self._store.history(
                channel.name,
                since=order.top if order.known else None,
                limit=_LIMIT if order.known else 0,
                meta_ttl_s=channel.options.history_meta_ttl_s,
            )

    def _mend(self, channel: Channel, history: History, *, sure: bool) -> None:
        if not channel.order.heal(history, sure=sure):
            log.warning("publications lost", extra={"channel": channel.name})
            channel.lose()

    def _skip(self, channel: Channel) -> None:
        log.warning("gap not explained", extra={"channel": channel.name})
        channel.lose()
        channel.order.skip()
