"""The store in memory: for unit tests, where a server would only be in the way.

Keeps the contract of `interface`, which `tests/integration/test_store_contract.py` holds it to. One
event loop, no persistence.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from actors.errors import NumberGapError
from actors.message import FIRST_ID, Ack, DeadLetter, Entry, id_key, splice_counts
from actors.partition import partition_of
from actors.store.interface import (
    Commit,
    Committed,
    FeedGroup,
    FeedRecord,
    Group,
    History,
    NewMessage,
    forgotten,
)
from actors.store.memory.box import MemoryBoxes
from actors.store.memory.control import MemoryControl
from actors.store.memory.dead import MemoryDeadLetters

_T = TypeVar("_T")


class _Version(NamedTuple):
    """A version, and the entry that had it."""

    number: int
    epoch: str
    entry: tuple[int, str]

    def is_stale_after(self, seen: "_Version") -> bool:
        """Tell whether it is not above one seen before it. See `Meta`."""
        return self != seen and self.number <= seen.number and self.epoch in ("", seen.epoch)


class _Channel:
    """What is kept of one channel."""

    def __init__(self) -> None:
        self.offset = 0
        self.epoch = secrets.token_hex(4)
        self.bodies: list[bytes] = []
        self.counters: dict[str, int] = {}
        self.version = _Version(0, "", (0, ""))
        self.first_results: dict[str, tuple[int, str]] = {}
        self.presence: dict[str, tuple[bytes, float]] = {}

    def sees(self, group: Group, index: int) -> bool:
        """Take note of a body's version; False: it is stale."""
        if index in group.versions:
            version = _Version(*group.versions[index], group.ids[index])
            if version.is_stale_after(self.version):
                return False
            self.version = version
        return True

    def count(self, body: bytes, amounts: Mapping[str, int]) -> bytes:
        """Add amounts to the counters, and return the body with the totals."""
        if not amounts:
            return body
        for name, amount in amounts.items():
            self.counters[name] = self.counters.get(name, 0) + amount
        return splice_counts(body, {name: self.counters[name] for name in amounts})


class MemoryStore:
    """Implement every protocol of `interface` at once."""

    def __init__(
        self,
        partitions: int = 8,
        *,
        feed_records_max: int = 1000,
        dead_records_max: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.partitions = partitions
        self.dead_letters = MemoryDeadLetters(
            dead_records_max, next_id=self._next_id, enqueue=self._enqueue, tell=self._tell
        )
        self.boxes = MemoryBoxes(clock=clock, wait_for=self._wait_for, tell=self._tell)
        self.control = MemoryControl(
            next_id=self._next_id, tell=self._tell, wait_for=self._wait_for
        )
        self.stats: dict[str, dict[str, Any]] = {}
        self._feed_records_max = feed_records_max
        self._clock = clock
        self._queues: dict[int, list[Entry]] = {p: [] for p in range(partitions)}
        self._applied: dict[tuple[int, int], str] = {}
        self._feeds: dict[int, list[FeedRecord]] = {p: [] for p in range(partitions)}
        self._seqs: dict[int, int] = {}
        self._channels: dict[str, _Channel] = {}
        self._producers: dict[tuple[int, str], int] = {}
        self._last_id = FIRST_ID
        self._news = asyncio.Condition()
        self._telling: asyncio.Task[None] | None = None

    # --- queue

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
        accepted = 0
        last = self._producers.get((partition, producer), 0) if producer else 0
        if producer and first_number > last + 1:
            if not begins:
                raise NumberGapError(f"number {first_number} does not follow on those accepted")
            last = first_number - 1
        for number, message in enumerate(messages, first_number):
            if not (producer and number <= last):
                if not self._enqueue(partition, message, entries_max):
                    break
                last = number
            accepted += 1
        if producer and accepted:
            self._producers[partition, producer] = last
        await self._tell()
        return accepted

    def _enqueue(self, partition: int, message: NewMessage, entries_max: int) -> bool:
        if len(self._queues[partition]) >= entries_max:
            return False
        self._queues[partition].append(
            Entry(partition, self._next_id(), message.channel, message.data, message.meta)
        )
        return True

    async def applied(self, partitions: Sequence[int]) -> dict[int, str]:
        """See `QueueReader.applied`."""
        return {p: self._applied.get((p, p), FIRST_ID) for p in partitions}

    async def read(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[list[Entry]]:
        """See `QueueReader.read`."""

        def entries() -> list[list[Entry]]:
            found = []
            for partition, last in after.items():
                low = id_key(last)
                queue = [e for e in self._queues[partition] if id_key(e.id) > low]
                if queue:
                    found.append(queue[:limit])
            return found

        return await self._wait_for(entries, block_s)

    async def queue_lengths(self, partitions: Sequence[int]) -> dict[int, int]:
        """See `EdgeStore.queue_lengths`."""
        return {p: len(self._queues[p]) for p in partitions}

    # --- commit

    def commit(self, commits: Sequence[Commit]) -> list[Committed]:
        """See `Ledger.commit`."""
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> Committed:
        target = commit.partition
        applied = [self._applied.get((target, c.source), FIRST_ID) for c in commit.claims]
        if applied != [claim.after for claim in commit.claims]:
            return Committed(applied=applied, done=False, acks=[])
        groups: list[FeedGroup] = []
        bodies: list[bytes] = []
        acks: list[Ack] = []
        for group in commit.groups:
            feed_group, kept = self._append(group, acks)
            if kept:
                groups.append(feed_group)
                bodies += kept
        for claim in commit.claims:
            self._applied[target, claim.source] = claim.upto
            if commit.own and claim.source == target:
                low = id_key(claim.upto)
                self._queues[target] = [e for e in self._queues[target] if id_key(e.id) > low]
        self.dead_letters.append(target, commit.dead)
        self._seqs[target] = self._seqs.get(target, 0) + 1
        self._append_record(
            FeedRecord(
                partition=target,
                id=self._next_id(),
                seq=self._seqs[target],
                queued_at_s=commit.queued_at_s,
                groups=groups,
                bodies=bodies,
                acks=[*commit.acks, *acks],
            )
        )
        return Committed(applied=[c.upto for c in commit.claims], done=True, acks=acks)

    def _append(self, group: Group, acks: list[Ack]) -> tuple[FeedGroup, list[bytes]]:
        channel = self._channel(group.channel)
        kept: list[bytes] = []
        keeps_history = group.history_size > 0
        first = channel.offset + 1
        for index, plain in enumerate(group.bodies):
            key = group.keys.get(index, "")
            result = channel.first_results.get(key) if key else None
            if result is None:
                if channel.sees(group, index):
                    kept.append(channel.count(plain, group.counts.get(index, {})))
                    channel.offset += keeps_history
                result = (channel.offset, channel.epoch) if keeps_history else (0, "")
                if key:
                    channel.first_results[key] = result
            if index in group.waits:
                source, token = group.waits[index]
                acks.append(Ack(source, token, *result))
        if keeps_history:
            channel.bodies = (channel.bodies + kept)[-group.history_size :]
            return FeedGroup(group.channel, first, channel.epoch, len(kept)), kept
        return FeedGroup(group.channel, 0, "", len(kept)), kept

    @property
    def dead(self) -> list[DeadLetter]:
        """Return all dead letters, in the order of their deaths."""
        return self.dead_letters.all()

    def close(self) -> Any:
        """Do nothing; may be awaited or not, as the protocols have it."""
        return _Nothing()

    # --- feed

    async def feed_ends(self, partitions: Sequence[int]) -> dict[int, tuple[str, int]]:
        """See `EdgeStore.feed_ends`."""
        return {
            p: (self._feeds[p][-1].id if self._feeds[p] else FIRST_ID, self._seqs.get(p, 0))
            for p in partitions
        }

    async def read_feed(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[FeedRecord]:
        """See `EdgeStore.read_feed`."""

        def records() -> list[FeedRecord]:
            found: list[FeedRecord] = []
            for partition, last in after.items():
                low = id_key(last)
                feed = self._feeds[partition]
                found += [record for record in feed if id_key(record.id) > low][:limit]
            return found

        return await self._wait_for(records, block_s)

    def _append_record(self, record: FeedRecord) -> None:
        feed = self._feeds[record.partition]
        feed.append(record)
        del feed[: -self._feed_records_max]
        try:
            task = asyncio.get_running_loop().create_task(self._tell())
        except RuntimeError:
            return
        self._telling = task

    # --- channels

    async def history(
        self,
        channel: str,
        *,
        since: int | None,
        limit: int | None,
        reverse: bool = False,
        meta_ttl_s: int,
    ) -> History:
        """See `EdgeStore.history`. The epoch is not forgotten here."""
        del meta_ttl_s
        kept = self._channel(channel)
        oldest = kept.offset - len(kept.bodies) + 1
        numbered = list(enumerate(kept.bodies, oldest))
        if reverse:
            numbered.reverse()
            if since is not None:
                known = oldest <= since <= kept.offset + 1
                numbered = [(o, body) for o, body in numbered if o < since] if known else []
        elif since is not None:
            numbered = [(o, body) for o, body in numbered if o > since]
        if limit is not None:
            numbered = numbered[:limit]
        return History(kept.offset, kept.epoch, numbered)

    async def history_remove(self, channel: str) -> None:
        """See `EdgeStore.history_remove`."""
        self._channel(channel).bodies.clear()

    async def counters(self, channel: str) -> dict[str, int]:
        """See `EdgeStore.counters`."""
        return dict(self._channel(channel).counters)

    async def enter(
        self, channel: str, client: str, info: bytes, *, ttl_s: float, announce: bool
    ) -> None:
        """See `EdgeStore.enter`."""
        there = client in await self.presence(channel)
        self._channel(channel).presence[client] = (info, self._clock() + ttl_s)
        if announce and not there:
            await self._announce(channel, "join", info)

    async def leave(self, channel: str, client: str, info: bytes, *, announce: bool) -> None:
        """See `EdgeStore.leave`."""
        there = client in await self.presence(channel)
        self._channel(channel).presence.pop(client, None)
        if announce and there:
            await self._announce(channel, "leave", info)

    async def presence(self, channel: str) -> dict[str, bytes]:
        """See `EdgeStore.presence`."""
        now = self._clock()
        there = self._channel(channel).presence
        return {client: info for client, (info, until) in there.items() if until > now}

    async def presence_stats(self, channel: str) -> tuple[int, int]:
        """See `EdgeStore.presence_stats`."""
        there = await self.presence(channel)
        users = {msgspec.json.decode(info).get("user", "") for info in there.values()}
        return len(there), len(users)

    # --- stats

    def write_stats(self, part: str, numbers: Mapping[str, Any]) -> None:
        """See `StatsWriter.write_stats`."""
        self.stats[part] = dict(numbers)

    def remove_stats(self, part: str) -> None:
        """See `StatsWriter.remove_stats`."""
        self.stats.pop(part, None)

    async def read_stats(self) -> dict[str, dict[str, Any]]:
        """See `EdgeStore.read_stats`."""
        for part in forgotten(self.stats, self._clock()):
            del self.stats[part]
        return {part: dict(numbers) for part, numbers in self.stats.items()}

    # --- inside

    def _channel(self, channel: str) -> _Channel:
        return self._channels.setdefault(channel, _Channel())

    def _next_id(self) -> str:
        last_ms, last_seq = id_key(self._last_id)
        now_ms = int(self._clock() * 1000)
        self._last_id = f"{now_ms}-0" if now_ms > last_ms else f"{last_ms}-{last_seq + 1}"
        return self._last_id

    async def _announce(self, channel: str, kind: str, info: bytes) -> None:
        partition = partition_of(channel, self.partitions)
        joins, last_seq = [(channel, kind, info)], self._seqs.get(partition, 0)
        self._append_record(
            FeedRecord(partition, self._next_id(), 0, 0.0, [], [], [], joins, last_seq)
        )
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _wait_for(self, look: Callable[[], list[_T]], block_s: float) -> list[_T]:
        found = look()
        if found or block_s <= 0:
            return found
        try:
            async with asyncio.timeout(block_s), self._news:
                await self._news.wait_for(lambda: bool(look()))
        except TimeoutError:
            return []
        return look()


class _Nothing:
    """What `close` returns: nothing, awaitable."""

    def __await__(self) -> Any:
        return iter(())
