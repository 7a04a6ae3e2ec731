"""Clients that know what they may be told, and an edge's store whose every answer can be held."""

import asyncio
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from actors.errors import UnavailableError
from actors.message import id_key
from actors.store.interface import FeedRecord, History
from actors.store.redis.edge import RedisEdgeStore
from serve.hub.hub import Hub
from serve.protocol.json_codec import JSON
from serve.protocol.messages import Close
from serve.protocol.wire import Wire
from serve.session.connection import Connection

WIRE = Wire(JSON, bytes, stream=False)


class Truth:
    """What was published: channel and epoch -> offset -> data. An epoch never comes back."""

    def __init__(self) -> None:
        self._data: dict[tuple[str, str], dict[int, int]] = {}

    def note(self, channel: str, epoch: str, offset: int, data: int) -> None:
        """Know of a publication."""
        known = self._data.setdefault((channel, epoch), {})
        assert offset == len(known) + 1
        known[offset] = data

    def data(self, channel: str, epoch: str, offset: int) -> int | None:
        """Return what a position stands for; None: nothing was published there."""
        return self._data.get((channel, epoch), {}).get(offset)

    def top(self, channel: str, epoch: str) -> int:
        """Return the last offset of an epoch."""
        return len(self._data.get((channel, epoch), {}))


class Store(RedisEdgeStore):
    """A store that is asked for the feed when it is told, and can be slow or away."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = asyncio.Semaphore(0)
        self.limit = 1
        self.away = 0
        self._busy = 0

    async def read_feed(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[FeedRecord]:
        """Read once for each permit, and never wait for records."""
        await self.reads.acquire()
        self._busy += 1
        try:
            self._fail()
            ends = await self.feed_ends(list(after))
            if all(id_key(ends[p][0]) <= id_key(last) for p, last in after.items()):
                return []
            return await super().read_feed(after, limit=min(limit, self.limit), block_s=block_s)
        finally:
            self._busy -= 1

    async def history(self, channel: str, **how: Any) -> History:
        """Read, when the gate is open."""
        await self.gate.wait()
        self._busy += 1
        try:
            self._fail()
            return await super().history(channel, **how)
        finally:
            self._busy -= 1

    def _fail(self) -> None:
        if self.away:
            self.away -= 1
            raise UnavailableError("away")

    async def settled(self) -> None:
        """Wait until nothing is under way that no gate holds."""
        calm = 0
        while calm < 20:
            await asyncio.sleep(0)
            calm = 0 if self._busy else calm + 1


class State(Enum):
    """What a client knows of its subscription."""

    AWAY = "away"
    JOINING = "joining"
    LIVE = "live"
    TOLD = "told"
    """It was told that something is missing; the connection stands."""


class Client:
    """A client that recovers from its last position, and notes everything that may not be.

    A publication must be the next of its epoch, unless it was told before that it is not:
    `recovered: false`, unsubscribed, or disconnected.
    """

    def __init__(self, channel: str, truth: Truth) -> None:
        self.channel = channel
        self.state = State.AWAY
        self.faults: list[str] = []
        self.recoveries = {True: 0, False: 0}
        self._truth = truth
        self._offset = -1
        self._epoch = ""
        self._connection: Connection | None = None
        self._commands = 0

    @property
    def position(self) -> tuple[str, int]:
        """Its epoch and offset."""
        return self._epoch, self._offset

    def come(self, hub: Hub) -> None:
        """Connect and subscribe."""
        self._commands = 1
        self._connection = hub.connect(self, WIRE)
        self._say({"id": 1, "connect": {}})
        self.subscribe()

    def subscribe(self) -> None:
        """Subscribe, and recover from the last position if there is one."""
        wish: dict[str, Any] = {"channel": self.channel}
        if self._offset >= 0:
            wish |= {"recover": True, "offset": self._offset, "epoch": self._epoch}
        self.state = State.JOINING
        self._commands += 1
        self._say({"id": self._commands, "subscribe": wish})

    def go(self) -> None:
        """Lose the connection."""
        if self._connection is not None:
            self.state = State.AWAY
            connection, self._connection = self._connection, None
            connection.lost()

    def _say(self, command: dict[str, Any]) -> None:
        if self._connection is not None:
            self._connection.receive(json.dumps(command).encode())

    # --- the sink

    def write(self, block: bytes) -> None:
        """Take what the edge says."""
        for line in block.split(b"\n"):
            if line and self._connection is not None:
                self._hear(json.loads(line))

    def close(self, close: Close) -> None:
        """Be closed, which tells enough."""
        del close
        self.go()

    def pause(self) -> None:
        """Do nothing: there is nothing to pause."""

    def resume(self) -> None:
        """Do nothing."""

    # --- what it hears

    def _hear(self, message: dict[str, Any]) -> None:
        if "subscribe" in message:
            self._start(message["subscribe"])
        elif "error" in message:
            self.state = State.TOLD
        elif "pub" in message.get("push", {}):
            self._take(message["push"]["pub"])
        elif "unsubscribe" in message.get("push", {}):
            if message["push"]["unsubscribe"]["code"] != 2500:
                self.faults.append(f"unsubscribed: {message}")
            self.state = State.TOLD

    def _start(self, result: dict[str, Any]) -> None:
        self.state = State.LIVE
        recovered = result.get("recovered", False)
        if result.get("was_recovering"):
            self.recoveries[recovered] += 1
        if not recovered:
            self._offset, self._epoch = result.get("offset", 0), result["epoch"]
        elif result["epoch"] != self._epoch:
            self.faults.append(f"recovered in epoch {result['epoch']}, not {self._epoch}")
        for publication in result.get("publications", []):
            self._take(publication)

    def _take(self, publication: dict[str, Any]) -> None:
        offset, data = publication["offset"], publication["data"]
        if self.state is not State.LIVE:
            self.faults.append(f"{publication} while {self.state}")
        elif offset != self._offset + 1:
            self.faults.append(f"{publication} after {self._offset}")
        elif self._truth.data(self.channel, self._epoch, offset) != data:
            self.faults.append(f"{publication} is not of epoch {self._epoch}")
        self._offset = offset
