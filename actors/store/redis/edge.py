"""The store on Valkey or Redis: the edge's part. See `interface.EdgeStore`."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.errors import NumberGapError
from actors.message import FIRST_ID, Ack
from actors.partition import Keys, partition_of
from actors.store.interface import FeedGroup, FeedRecord, History, NewMessage, forgotten
from actors.store.redis.box import RedisBoxes
from actors.store.redis.client import Script, async_client, is_cluster, pack, translated
from actors.store.redis.control import RedisControl
from actors.store.redis.dead import RedisDeadLetters
from actors.store.redis.pipeline import new_epoch

PRODUCER_TTL_S: Final = 3600
"""How long the last number of a producer is remembered after its last message."""


class _Header(msgspec.Struct, array_like=True, gc=False):
    """Field `h` of a feed record."""

    seq: int
    queued_at_ms: int
    groups: list[FeedGroup]
    acks: list[Ack]


_decode_header: Final = msgspec.msgpack.Decoder(_Header).decode
_decode_join: Final = msgspec.json.Decoder(tuple[str, str, str]).decode


class RedisEdgeStore:
    """Implement `interface.EdgeStore`."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        partitions: int,
        timeout_s: float = 5.0,
        feed_records_max: int = 10_000,
        block_s_max: float = 5.0,
    ) -> None:
        """Prepare; nothing is connected yet. No read may block longer than `block_s_max`."""
        self._url = url
        self._keys = keys
        self._partitions = partitions
        self._feed_records_max = feed_records_max
        self._cluster = is_cluster(url)
        self._client = async_client(url, timeout_s=timeout_s)
        self._blocking = async_client(url, timeout_s=timeout_s + block_s_max)
        # Apart: there may be many who wait at boxes, and the feed must not wait for its turn.
        self._at_boxes = async_client(url, timeout_s=timeout_s + block_s_max)
        self.dead_letters = RedisDeadLetters(self._client, url, keys)
        self.boxes = RedisBoxes(self._client, self._at_boxes, url, keys)
        self.control = RedisControl(self._client, self._blocking, url, keys)
        self._enqueue = Script("enqueue")
        self._history = Script("history")
        self._presence = Script("presence")

    async def enqueue(
        self,
        partition: int,
        messages: Sequence[NewMessage],
        *,
        entries_max: int,
        producer: str = "",
        first_number: int = 0,
        begins: bool = False,
    ) -> int:
        """See `EdgeStore.enqueue`."""
        keys = [self._keys.queue(partition), self._keys.producer(partition, producer)]
        body = pack([(m.channel, m.data, m.meta) for m in messages])
        number = first_number if producer else 0
        with translated(self._url):
            accepted: Any = await self._enqueue.run_async(
                self._client, keys, [entries_max, number, PRODUCER_TTL_S, int(begins), body]
            )
        if accepted < 0:
            raise NumberGapError(f"number {first_number} does not follow on those accepted")
        return int(accepted)

    async def feed_ends(self, partitions: Sequence[int]) -> dict[int, tuple[str, int]]:
        """See `EdgeStore.feed_ends`."""
        ends = {}
        with translated(self._url):
            for p in partitions:
                # seq first: a record added in between shows as a gap, which is healed.
                seq: Any = await self._client.hget(self._keys.applied(p), "seq")
                last: Any = await self._client.xrevrange(self._keys.feed(p), count=1)
                ends[p] = (last[0][0].decode() if last else FIRST_ID, int(seq or 0))
        return ends

    async def read_feed(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[FeedRecord]:
        """See `EdgeStore.read_feed`. On a Cluster, polls: one XREAD cannot span slots."""
        feeds = {self._keys.feed(p).encode(): p for p in after}
        block_ms = max(1, round(block_s * 1000))
        if not self._cluster:
            return await self._read(feeds, list(after.values()), limit, block_ms)
        records = []
        for (name, p), last in zip(feeds.items(), after.values(), strict=True):
            # Waiting is shared out: a poll of all partitions takes at most 5 ms each.
            records += await self._read({name: p}, [last], limit, min(block_ms, 5))
        return records

    async def _read(
        self, feeds: Mapping[bytes, int], after: list[str], limit: int, block_ms: int
    ) -> list[FeedRecord]:
        with translated(self._url):
            reply: Any = await self._blocking.execute_command(
                "XREAD", "COUNT", limit, "BLOCK", block_ms, "STREAMS", *feeds, *after
            )
        if not reply:
            return []
        return [
            _record(feeds[name], record_id.decode(), fields)
            for name, items in reply
            for record_id, fields in items
        ]

    async def history(
        self,
        channel: str,
        *,
        since: int | None,
        limit: int | None,
        reverse: bool = False,
        meta_ttl_s: int,
    ) -> History:
        """See `EdgeStore.history`."""
        p = partition_of(channel, self._partitions)
        keys = [self._keys.meta(p, channel), self._keys.history(p, channel)]
        args = [
            "" if since is None else since,
            "" if limit is None else limit,
            "1" if reverse else "0",
            meta_ttl_s,
            new_epoch(),
        ]
        with translated(self._url):
            top, epoch, first, bodies = await self._history.run_async(self._client, keys, args)
        numbered = list(enumerate(bodies, int(first)))
        if reverse:
            numbered.reverse()
        return History(int(top), epoch.decode(), numbered)

    async def history_remove(self, channel: str) -> None:
        """See `EdgeStore.history_remove`.

        The list alone: an element's offset follows from the top offset and the list's length, so
        what is published next has the next offset, and a stretch that is gone shows as a gap.
        """
        key = self._keys.history(partition_of(channel, self._partitions), channel)
        with translated(self._url):
            await self._client.delete(key)

    async def counters(self, channel: str) -> dict[str, int]:
        """See `EdgeStore.counters`."""
        key = self._keys.counters(partition_of(channel, self._partitions), channel)
        with translated(self._url):
            found: Any = await self._client.hgetall(key)
        return {name.decode(): int(total) for name, total in found.items()}

    async def enter(
        self, channel: str, client: str, info: bytes, *, ttl_s: float, announce: bool
    ) -> None:
        """See `EdgeStore.enter`."""
        join = _join(channel, "join", info) if announce else b""
        await self._there(channel, "enter", client, info, round(ttl_s * 1000), join)

    async def leave(self, channel: str, client: str, info: bytes, *, announce: bool) -> None:
        """See `EdgeStore.leave`."""
        join = _join(channel, "leave", info) if announce else b""
        await self._there(channel, "leave", client, info, 0, join)

    async def presence(self, channel: str) -> dict[str, bytes]:
        """See `EdgeStore.presence`."""
        flat = await self._there(channel, "list")
        return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}

    async def presence_stats(self, channel: str) -> tuple[int, int]:
        """See `EdgeStore.presence_stats`."""
        there = await self.presence(channel)
        return len(there), len({json.loads(info).get("user", "") for info in there.values()})

    async def _there(self, channel: str, *args: Any) -> Any:
        p = partition_of(channel, self._partitions)
        keys = [
            self._keys.presence(p, channel),
            self._keys.presence_expiry(p, channel),
            self._keys.feed(p),
            self._keys.applied(p),
        ]
        with translated(self._url):
            return await self._presence.run_async(
                self._client, keys, [*args, *([self._feed_records_max] if len(args) > 1 else [])]
            )

    async def queue_lengths(self, partitions: Sequence[int]) -> dict[int, int]:
        """See `EdgeStore.queue_lengths`."""
        with translated(self._url):
            return {p: int(await self._client.xlen(self._keys.queue(p))) for p in partitions}

    async def read_stats(self) -> dict[str, dict[str, Any]]:
        """See `EdgeStore.read_stats`."""
        with translated(self._url):
            found: Any = await self._client.hgetall(self._keys.stats)
            parts = {part.decode(): json.loads(numbers) for part, numbers in found.items()}
            if old := forgotten(parts, time.time()):
                await self._client.hdel(self._keys.stats, *old)
        return {part: numbers for part, numbers in parts.items() if part not in old}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._blocking.aclose()
        await self._at_boxes.aclose()


def _join(channel: str, kind: str, info: bytes) -> bytes:
    return json.dumps([channel, kind, info.decode()]).encode()


def _record(partition: int, record_id: str, fields: Mapping[bytes, bytes]) -> FeedRecord:
    change = fields.get(b"j")
    if change is not None:
        channel, kind, info = _decode_join(change)
        joins = [(channel, kind, info.encode())]
        last_seq = int(fields.get(b"s", 0))  # records of before it was written have none
        return FeedRecord(partition, record_id, 0, 0.0, [], [], [], joins, last_seq)
    header = _decode_header(fields[b"h"])
    return FeedRecord(
        partition=partition,
        id=record_id,
        seq=header.seq,
        queued_at_s=header.queued_at_ms / 1000,
        groups=header.groups,
        # Bodies have no raw newlines: see `interface.Group`.
        bodies=fields[b"p"].split(b"\n") if header.groups else [],
        acks=header.acks,
    )
