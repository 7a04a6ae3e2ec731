"""The parts as processes: each role builds one plain class with its real store and its reporter.

Made remote in `supervisor` only. What may fail is built on first use and not in a constructor,
so that errors arrive as what they are, and not as the death of an actor.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Sequence
from typing import Any, Final

from actors import logs
from actors.metrics import Numbers, Reporter
from actors.nozzle import Nozzle
from actors.partition import Keys
from actors.publisher import Publisher
from actors.route import Route, Stage
from actors.settings.tree import Settings, StageSettings
from actors.store.redis.pipeline import RedisLedger, RedisMarks, RedisQueueReader, RedisStats
from actors.transformer import Transformer

log = logging.getLogger(__name__)


# Collections look through what was made since the last; at Python's 700 objects that is several
# times a batch. What was loaded at the start is never looked at again.
_GC_EVERY: Final = 50_000


def settle_memory() -> None:
    """Spare the garbage collector what will live as long as the process. Call it after loading."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_EVERY, 20, 50)


class _Role:
    """What all roles share: logs, numbers, and a thread that reports them."""

    def __init__(self, part: str, kind: str, settings: Settings, url: str) -> None:
        logs.set_up("INFO", json=True)
        self.part = part
        self.settings = settings
        self.url = url
        self.keys = Keys(settings.app)
        self.numbers = Numbers(kind)
        self._reporter = Reporter(
            RedisStats(url, self.keys, timeout_s=settings.redis.timeout_s), part, self.numbers
        )
        self._reporter.start()
        settle_memory()

    def marks(self) -> RedisMarks:
        """Return a new connection to the marks."""
        return RedisMarks(self.url, self.keys, timeout_s=self.settings.redis.timeout_s)

    def stop_reporting(self) -> None:
        """Take the part's numbers away: it ends on purpose."""
        self._reporter.stop()


class NozzleRole:
    """A nozzle and the way its batches take. An asynchronous actor."""

    def __init__(self, index: int, settings: Settings, url: str) -> None:
        self._role = _Role(f"nozzle:{index}", "nozzle", settings, url)
        queue, count = settings.queue, settings.nozzle.count
        self._partitions = [p for p in range(queue.partitions) if p % count == index]
        self._marks = self._role.marks()
        self._nozzle: Nozzle | None = None
        self._stopped = asyncio.Event()

    async def run(self, stages: Sequence[tuple[str, Sequence[Any]]], publisher: Any) -> None:
        """Run until drained; a call while it runs waits with the first.

        Args:
            stages: Name, and handles of the transformers, of each stage.
            publisher: Handle of the publisher.
        """
        if self._nozzle is not None:
            await self._stopped.wait()
            return
        settings = self._role.settings
        reader = RedisQueueReader(
            self._role.url,
            self._role.keys,
            timeout_s=settings.redis.timeout_s,
            block_s_max=settings.nozzle.block_s,
        )
        self._nozzle = Nozzle(
            reader,
            Route(
                self._role.part,
                [Stage(name, handles) for name, handles in stages],
                publisher,
                self._marks,
            ),
            self._partitions,
            settings.nozzle,
            self._role.numbers,
            window=settings.window,
            message_bytes_max=settings.queue.message_bytes_max,
        )
        try:
            await self._nozzle.run()
        finally:
            self._nozzle = None
            self._stopped.set()
            self._stopped = asyncio.Event()
            await reader.close()

    async def drain(self) -> None:
        """Read no more, and return when what was under way is committed."""
        if self._nozzle is not None:
            stopped = self._stopped
            self._nozzle.drain()
            await stopped.wait()

    async def stop(self) -> None:
        """Report no more."""
        self._role.stop_reporting()

    async def ping(self) -> int:
        """Return the process id."""
        return os.getpid()


class TransformerRole:
    """A transformer. A synchronous actor: Ray keeps the order of calls for no other kind."""

    def __init__(self, index: int, stage: StageSettings, settings: Settings, url: str) -> None:
        self._role = _Role(f"transformer:{stage.name}:{index}", "transformer", settings, url)
        self._stage = stage
        self._transformer: Transformer | None = None
        self._marks: RedisMarks | None = None

    def ready(self) -> int:
        """Load the transforms, which may take minutes, and return the process id.

        Raises:
            SettingsError: A transform cannot be loaded.
        """
        self._loaded()
        return os.getpid()

    def apply(self, batch: bytes) -> bytes:
        """Transform one batch."""
        return self._loaded().apply(batch)

    def apply_alone(self, batch: bytes, nozzle: str, mark: str) -> bytes:
        """Transform one batch, and tell before that it is being worked on, should we die of it."""
        transformer = self._loaded()
        if self._marks is None:
            self._marks = self._role.marks()
        self._marks.mark(nozzle, mark)
        return transformer.apply(batch)

    def stop(self) -> None:
        """Report no more."""
        if self._transformer is not None:
            self._transformer.close()
        self._role.stop_reporting()

    def ping(self) -> int:
        """Return the process id."""
        return os.getpid()

    def _loaded(self) -> Transformer:
        if self._transformer is None:
            settings = self._role.settings
            self._transformer = Transformer(
                self._stage,
                str(settings.code),
                is_last=self._stage.name == settings.stages[-1].name,
                numbers=self._role.numbers,
            )
            self._transformer.guard()
            settle_memory()
        return self._transformer


class PublisherRole:
    """A publisher. A synchronous actor: Ray keeps the order of calls for no other kind."""

    def __init__(self, index: int, settings: Settings, url: str) -> None:
        self._role = _Role(f"publisher:{index}", "publisher", settings, url)
        ledger = RedisLedger(
            url,
            self._role.keys,
            timeout_s=settings.redis.timeout_s,
            feed_records_max=settings.feed.records_max,
            dead_records_max=settings.dead.records_max,
        )
        self._publisher = Publisher(
            ledger,
            settings.channel_settings,
            self._role.numbers,
            partitions=settings.queue.partitions,
        )

    def commit(self, batch: bytes, run: str, number: int) -> None:
        """Commit one batch. See `Publisher.commit`."""
        self._publisher.commit(batch, run, number)

    def stop(self) -> None:
        """Report no more."""
        self._role.stop_reporting()

    def ping(self) -> int:
        """Return the process id."""
        return os.getpid()
