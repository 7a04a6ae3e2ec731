"""A pipeline without actors, for tests of what stands around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from actors.metrics import Numbers
from actors.nozzle import Nozzle
from actors.publisher import Publisher
from actors.settings.tree import NozzleSettings, Settings
from actors.store.memory.store import MemoryStore


class InProcessWay:
    """The way of a nozzle's batches through a function and a publisher. See `nozzle.Way`."""

    def __init__(
        self, publisher: Publisher, apply: Callable[[bytes], bytes] = lambda batch: batch
    ) -> None:
        self._publisher = publisher
        self._apply = apply

    async def send(self, batch: bytes, run: str, number: int) -> None:
        """Transform and commit one batch."""
        self._publisher.commit(self._apply(batch), run, number)

    async def send_alone(self, batch: bytes, run: str, number: int) -> None:
        """Do the same: nothing here can die by itself."""
        await self.send(batch, run, number)

    async def commit(self, batch: bytes, run: str, number: int) -> None:
        """Commit one batch as it is."""
        self._publisher.commit(batch, run, number)


class ThreadWay:
    """The same in one thread, as an actor has: it keeps the order of the calls."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._actor = ThreadPoolExecutor(1)

    def send(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """Commit one batch."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._actor, self._publisher.commit, batch, run, number)

    async def send_alone(self, batch: bytes, run: str, number: int) -> None:
        """Do the same."""
        await self.send(batch, run, number)

    async def commit(self, batch: bytes, run: str, number: int) -> None:
        """Do the same."""
        await self.send(batch, run, number)

    def close(self) -> None:
        """End the thread."""
        self._actor.shutdown()


@asynccontextmanager
async def pipeline(store: MemoryStore, settings: Settings) -> AsyncIterator[None]:
    """Run a nozzle and a publisher on a store of two partitions."""
    publisher = Publisher(
        store,
        settings.channel_settings,
        Numbers("publisher"),
        partitions=2,
    )
    nozzle = Nozzle(
        store,
        InProcessWay(publisher),
        range(2),
        NozzleSettings(pace_s=0, block_s=0.05),
        Numbers("nozzle"),
        window=8,
        message_bytes_max=65_536,
    )
    running = asyncio.create_task(nozzle.run())
    try:
        yield
    finally:
        nozzle.drain()
        await running
