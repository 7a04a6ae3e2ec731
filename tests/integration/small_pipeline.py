"""The whole way of a message in one process, on a Valkey of its own that may come to harm."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis

from actors.errors import RaywireError
from actors.message import Ack, Meta
from actors.metrics import Numbers
from actors.nozzle import Nozzle
from actors.partition import Keys, partition_of
from actors.publisher import Publisher
from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, NozzleSettings, QueueSettings, Settings
from actors.store.embedded import EmbeddedValkey
from actors.store.interface import FeedRecord, NewMessage
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisLedger, RedisQueueReader
from serve.api.intake import Intake
from serve.edge.health import Health
from serve.hub.feed import FeedFollower
from serve.hub.hub import Hub
from serve.protocol.json_codec import JSON
from serve.protocol.messages import Close
from serve.protocol.wire import Wire
from serve.session.connection import Connection
from tests.in_process import ThreadWay

CHANNEL = "news"
SETTINGS = Settings(
    queue=QueueSettings(partitions=2),
    client=ClientSettings(insecure=True),
    channels=ChannelSettings(history_size=100_000, history_ttl_s=600, force_recovery=True),
)
PARTITION = partition_of(CHANNEL, 2)
TIMEOUT_S = 0.5
"""For one command: short, so that a server that hangs is noticed soon."""


class OwnValkey(EmbeddedValkey):
    """The embedded server, and what may happen to it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "valkey", "secret")

    def admin(self) -> redis.Redis:
        """Return a client of the test's own."""
        client: redis.Redis = redis.Redis.from_url(self.url, protocol=2)
        return client

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash does, and wait for the end."""
        assert self._server is not None
        self.signal(signal.SIGKILL)
        self._server._process.wait()

    def forget(self) -> None:
        """Remove the data of a server that does not run."""
        shutil.rmtree(self._data / "appendonlydir")


class CountingStore(RedisEdgeStore):
    """Counts the attempts to enqueue and to read the feed."""

    enqueues = 0
    reads = 0

    async def enqueue(self, partition: int, messages: Sequence[NewMessage], **how: Any) -> int:
        """Count, and go on."""
        self.enqueues += 1
        return await super().enqueue(partition, messages, **how)

    async def read_feed(self, *args: Any, **how: Any) -> list[FeedRecord]:
        """Count, and go on."""
        self.reads += 1
        return await super().read_feed(*args, **how)


class Client:
    """A subscriber that may miss nothing: what it got, and how it ended."""

    def __init__(self, hub: Hub) -> None:
        self.got: list[Any] = []
        self.offsets: list[int] = []
        self.unsubscribed = 0
        self.closed: Close | None = None
        self.subscribed: dict[str, Any] = {}
        self._news = asyncio.Event()
        self.connection: Connection = hub.connect(self, Wire(JSON, bytes, stream=False))
        self._say({"id": 1, "connect": {}})
        self._say({"id": 2, "subscribe": {"channel": CHANNEL}})

    def write(self, block: bytes) -> None:
        """Take a block."""
        for line in block.decode().splitlines():
            message = json.loads(line)
            push = message.get("push", {})
            self.subscribed |= message.get("subscribe", {})
            self.unsubscribed |= push.get("unsubscribe", {}).get("code", 0)
            if "pub" in push:
                self.got.append(push["pub"]["data"])
                self.offsets.append(push["pub"]["offset"])
        self._news.set()

    def close(self, close: Close) -> None:
        """Be closed: the client is gone at once."""
        self.closed = close
        self._news.set()
        self.connection.lost()

    def pause(self) -> None:
        """Needed of a sink."""

    def resume(self) -> None:
        """Needed of a sink."""

    async def until(self, done: Callable[[], object]) -> None:
        """Wait for news until something holds."""
        while not done():
            self._news.clear()
            await self._news.wait()

    @property
    def was_told(self) -> bool:
        """Whether it knows that it must begin anew."""
        return self.unsubscribed == 2500 or (self.closed is not None and self.closed.code == 3010)

    def _say(self, command: dict[str, Any]) -> None:
        self.connection.receive(json.dumps(command).encode())


class Pipeline:
    """Intake, nozzle, publisher, follower and hub, joined as the actors are."""

    def __init__(self, url: str, settings: Settings = SETTINGS) -> None:
        keys = Keys(settings.app)
        partitions = range(settings.queue.partitions)
        self.store = CountingStore(
            url, keys, partitions=len(partitions), timeout_s=TIMEOUT_S, block_s_max=0.2
        )
        self.intake = Intake(self.store, settings.queue, knows=lambda _: True, timeout_s=2.0)
        self.hub = Hub(settings, self.store, self.intake.publish, version="test")
        self.follower = FeedFollower(
            self.store, partitions, self._on_records, self.hub.feed_gap, block_s=0.2
        )
        self.health = Health(self.intake, self.follower, partitions)
        self.numbers = Numbers("nozzle")
        self._ledger = RedisLedger(url, keys, timeout_s=TIMEOUT_S)
        self._publisher = Publisher(
            self._ledger,
            settings.channel_settings,
            Numbers("publisher"),
            partitions=len(partitions),
        )
        self._way = ThreadWay(self._publisher)
        self._reader = RedisQueueReader(url, keys, timeout_s=TIMEOUT_S, block_s_max=0.2)
        self.nozzle = Nozzle(
            self._reader,
            self._way,
            partitions,
            NozzleSettings(block_s=0.2),
            self.numbers,
            window=3,
            message_bytes_max=settings.queue.message_bytes_max,
        )
        self.running: asyncio.Task[None]
        self.acked: list[int] = []
        self.tried = 0

    @property
    def rewinds(self) -> int:
        """How often the nozzle began again."""
        return int(self.numbers.snapshot()["counters"].get("rewinds", 0))

    async def publish(self) -> Ack:
        """Publish the next number; keep it where that succeeded."""
        self.tried += 1
        number = self.tried
        ack = await self.intake.publish(CHANNEL, b"%d" % number, Meta())
        self.acked.append(number)
        return ack

    async def publish_until_it_works(self) -> Ack:
        """Publish one number after another until one is accepted."""
        while True:
            try:
                return await self.publish()
            except RaywireError:
                await asyncio.sleep(0.01)

    async def history(self) -> list[int]:
        """Return the numbers that the channel has kept."""
        found = await self.store.history(CHANNEL, since=None, limit=None, meta_ttl_s=600)
        return [json.loads(body)["data"] for _, body in found.publications]

    def _on_records(self, records: list[FeedRecord]) -> None:
        for record in records:
            self.intake.resolve(record.acks)
        self.hub.deliver(records)

    async def close(self) -> None:
        """Close what has connections."""
        await self.health.close()
        await self.hub.close()
        await self.intake.close()
        await self.follower.close()
        self._way.close()
        self._ledger.close()
        await self._reader.close()
        await self.store.close()


@asynccontextmanager
async def running_pipeline(url: str, settings: Settings = SETTINGS) -> AsyncIterator[Pipeline]:
    """Run a pipeline; the body has a minute."""
    pipeline = Pipeline(url, settings)
    await pipeline.hub.start()
    pipeline.follower.start()
    pipeline.running = asyncio.create_task(pipeline.nozzle.run())
    try:
        async with asyncio.timeout(60):
            await pipeline.follower.ready()
            yield pipeline
    finally:
        pipeline.nozzle.drain()
        pipeline.running.cancel()
        await asyncio.gather(pipeline.running, return_exceptions=True)
        await pipeline.close()


def attempts_max(outage_s: float) -> int:
    """Return how many attempts a backoff of 0.05 to 2 s leaves room for, at its shortest waits."""
    attempts, waited_s, wait_s = 1, 0.0, 0.025
    while waited_s < outage_s:
        attempts += 1
        waited_s += wait_s
        wait_s = min(1.0, wait_s * 2)
    return attempts


async def until(done: Callable[[], object], *, poll_s: float = 0.01) -> None:
    """Look again and again until something holds: it is another process that makes it so."""
    while not done():
        await asyncio.sleep(poll_s)


class Stopwatch:
    """How long ago it was made, in seconds."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """The time."""
        return time.monotonic() - self._began_s
