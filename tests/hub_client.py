"""A hub without a feed: a store in memory and clients without sockets, for its tests."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from actors.errors import UnavailableError
from actors.message import Ack, Meta
from actors.partition import partition_of
from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import Claim, Commit, FeedRecord, Group, History
from actors.store.memory.store import MemoryStore
from serve.hub.hub import Hub
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import Close
from serve.protocol.wire import Wire
from serve.session.connection import Connection

WIRE = Wire(JSON, bytes, stream=False)
STREAM = Wire(JSON, lambda block: block + b"\n", stream=True)
ONE_WAY = Wire(ONE_WAY_JSON, bytes, stream=False)
CACHE = ChannelSettings(
    history_size=1, history_ttl_s=60, force_recovery=True, force_recovery_mode="cache"
)
SETTINGS = Settings(
    client=ClientSettings(insecure=True, connections_max=600),
    namespaces={
        "plain": ChannelSettings(),
        "kept": ChannelSettings(history_size=100, history_ttl_s=60, force_recovery=True),
        "loose": ChannelSettings(history_size=100, history_ttl_s=60),
        "cache": CACHE,
        "latest": CACHE.model_copy(update={"auto_cache_recover": True}),
        "seen": ChannelSettings(presence=True, join_leave=True, force_push_join_leave=True),
    },
)


class Store(MemoryStore):
    """A store that can be away, and whose answers can be held back."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.committed = 0

    async def history(self, channel: str, **how: Any) -> History:
        """Read, when the gate is open."""
        await self.gate.wait()
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away")
        return await super().history(channel, **how)

    def publish(
        self, channel: str, *data: Any, size: int = 100, tags: dict[str, str] | None = None
    ) -> FeedRecord:
        """Commit publications, and return the feed's record of them."""
        partition = partition_of(channel, 8)
        after = self._applied.get((partition, partition), "0-0")
        self.committed += 1
        upto = f"{self.committed}-0"
        head = b'"tags":%b,' % json.dumps(tags).encode() if tags else b""
        bodies = [b'{%b"data":%b}' % (head, json.dumps(item).encode()) for item in data]
        group = Group(channel, bodies, [(partition, upto)] * len(bodies))
        if not channel.startswith("plain"):
            group.history_size, group.history_ttl_s = size, 60
        (done,) = self.commit([Commit(partition, [Claim(partition, after, upto)], [group], [], [])])
        assert done.done
        return self._feeds[partition][-1]


class Client:
    """A connection with a sink that remembers."""

    def __init__(self, hub: Hub, wire: Wire = WIRE) -> None:
        self.blocks: list[bytes] = []
        self.closed: Close | None = None
        self.paused = False
        self.news = asyncio.Event()
        self.connection: Connection = hub.connect(self, wire, one_way=wire is ONE_WAY)

    def write(self, block: bytes) -> None:
        """Take a block."""
        if self.closed is None:
            self.blocks.append(block)
            self.news.set()

    def close(self, close: Close) -> None:
        """Be closed: the client is gone at once."""
        self.closed = close
        self.news.set()
        self.connection.lost()

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True

    def resume(self) -> None:
        """Read again."""
        self.paused = False

    def say(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame."""
        self.connection.receive("\n".join(map(json.dumps, commands)).encode())

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for news until something holds."""
        async with asyncio.timeout(5):
            while not done():
                self.news.clear()
                await self.news.wait()

    async def subscribed(self, *channels: str, **wishes: Any) -> "Client":
        """Connect and subscribe."""
        self.say({"id": 1, "connect": {}})
        for number, channel in enumerate(channels, 2):
            self.say({"id": number, "subscribe": {"channel": channel, **wishes}})
        await self.until(lambda: len(self.replies()) == len(channels) + 1)
        return self

    def heard(self) -> list[Any]:
        """Return all messages so far."""
        text = b"\n".join(self.blocks).replace(b"\n\n", b"\n").strip()
        return [json.loads(line) for line in text.split(b"\n")] if text else []

    def replies(self) -> list[Any]:
        """Return the replies."""
        return [message for message in self.heard() if "id" in message]

    def pushes(self, kind: str = "pub") -> list[Any]:
        """Return the pushes of a kind."""
        return [m["push"][kind] for m in self.heard() if kind in m.get("push", {})]

    def data(self) -> list[Any]:
        """Return what was published to it."""
        return [publication["data"] for publication in self.pushes()]


async def refuse(channel: str, data: bytes, meta: Meta) -> Ack:
    """Publish nowhere."""
    raise AssertionError(channel, data, meta)


async def settled() -> None:
    """Let all tasks that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)
