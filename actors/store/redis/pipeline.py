"""The store on Valkey or Redis: the nozzle's and the publisher's part. See `interface`.

Key names are in `partition`, scripts in `lua/`.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.message import FIRST_ID, Ack, Entry, id_key
from actors.partition import Keys
from actors.store.interface import Commit, Committed, Group
from actors.store.redis.client import (
    Script,
    async_client,
    is_cluster,
    pack,
    sync_client,
    translated,
)

ONCE_TTL_S: Final = 300
"""How long an idempotency key is remembered: 5 minutes, as in Centrifugo's server API."""
_CLUSTER_POLL_S: Final = 0.005
_SEQ_MAX: Final = 2**64 - 1
"""Of an entry id: a producer may choose it. https://redis.io/docs/latest/commands/xadd/"""


def new_epoch() -> str:
    """Make up an epoch: eight characters."""
    return secrets.token_urlsafe(6)


class RedisQueueReader:
    """Read the queues of a nozzle's partitions. See `interface.QueueReader`.

    XREAD counts entries, not bytes. What goes beyond a partition's share of `read_bytes_max` is
    left for the next read, but for one entry of each partition: so a batch of large entries that
    nobody expected does not become many times larger than what actors pass on inline.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        timeout_s: float = 5.0,
        block_s_max: float = 60.0,
        read_bytes_max: int = 1_000_000,
    ) -> None:
        """Prepare; nothing is connected yet. No read may block longer than `block_s_max`."""
        self._read_bytes_max = read_bytes_max
        self._url = url
        self._keys = keys
        self._cluster = is_cluster(url)
        self._client = async_client(url, timeout_s=timeout_s)
        # A read that waits is silent all that time, so its connection must bear it.
        self._blocking = async_client(url, timeout_s=timeout_s + block_s_max)
        # Entries as they come: the library's dictionaries cost more than all else of a read.
        callback: Any = _as_it_is  # the library's type wants a keyword it never passes
        self._blocking.set_response_callback("XREAD", callback)

    async def applied(self, partitions: Sequence[int]) -> dict[int, str]:
        """See `QueueReader.applied`."""
        found = {}
        with translated(self._url):
            for partition in partitions:
                value: Any = await self._client.hget(self._keys.applied(partition), str(partition))
                found[partition] = value.decode() if value else FIRST_ID
        return found

    async def read(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[list[Entry]]:
        """See `QueueReader.read`. On a Cluster, polls: one XREAD cannot span slots."""
        with translated(self._url):
            if self._cluster:
                return await self._poll(after, limit=limit, block_s=block_s)
            return await self._read(after, limit, max(1, round(block_s * 1000)))

    async def _poll(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[list[Entry]]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        end = loop.time() + block_s
        while True:
            # The library may take our cancellation for a timeout of its own, and try again.
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            found = []
            for partition, last in after.items():
                found += await self._read({partition: last}, limit, None)
            if found or loop.time() >= end:
                return found
            await asyncio.sleep(_CLUSTER_POLL_S)

    async def _read(
        self, after: Mapping[int, str], limit: int, block_ms: int | None
    ) -> list[list[Entry]]:
        queues = {self._keys.queue(partition).encode(): partition for partition in after}
        block: list[str | int] = [] if block_ms is None else ["BLOCK", block_ms]
        streams: Any = await self._blocking.execute_command(
            "XREAD", "COUNT", limit, *block, "STREAMS", *queues, *after.values()
        )
        lists = [_entries(queues[name], items) for name, items in streams or ()]
        return [_within(entries, self._read_bytes_max // len(lists)) for entries in lists]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._blocking.aclose()


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def _entries(partition: int, items: Any) -> list[Entry]:
    entries = []
    for entry_id, fields in items:
        if len(fields) == 4 and fields[0] == b"c" and fields[2] == b"d":
            channel, data, meta = fields[1], fields[3], b""
        else:
            found = dict(zip(fields[::2], fields[1::2], strict=False))
            channel, data, meta = (found.get(name, b"") for name in (b"c", b"d", b"m"))
        # A channel that is not UTF-8 fails the channel check later, and is a dead letter.
        entries.append(
            Entry(partition, entry_id.decode(), channel.decode(errors="replace"), data, meta)
        )
    return entries


def _within(entries: list[Entry], bytes_max: int) -> list[Entry]:
    """Return the first entries, at least one, that have not more bytes than that."""
    total = 0
    for index, entry in enumerate(entries):
        total += len(entry.data) + len(entry.meta)
        if total > bytes_max and index:
            return entries[:index]
    return entries


class RedisLedger:
    """Commit batches with `commit.lua`. See `interface.Ledger`."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        timeout_s: float = 5.0,
        feed_records_max: int = 10_000,
        dead_records_max: int = 10_000,
    ) -> None:
        self._url = url
        self._keys = keys
        self._client = sync_client(url, timeout_s=timeout_s)
        self._script = Script("commit")
        self._limits = (feed_records_max, dead_records_max, ONCE_TTL_S)

    def commit(self, commits: Sequence[Commit]) -> list[Committed]:
        """See `Ledger.commit`."""
        calls = [self._call(commit) for commit in commits]
        with translated(self._url):
            replies = self._script.run_all(self._client, calls)
        return [_committed(reply) for reply in replies]

    def _call(self, commit: Commit) -> tuple[list[str], list[bytes]]:
        p, keys = commit.partition, self._keys
        names = [keys.applied(p), keys.feed(p), keys.dead(p), keys.queue(p)]
        for group in commit.groups:
            names += [
                keys.meta(p, group.channel),
                keys.history(p, group.channel),
                keys.counters(p, group.channel),
            ]
        packed_groups = []
        for group in commit.groups:
            once = {}
            for index, key in group.keys.items():
                names.append(keys.first_result(p, group.channel, key))
                once[index + 1] = len(names)
            packed_groups.append(_packed(group, once))
        trim = _after(commit.claims[0].upto) if commit.own else ""
        payload = (
            [(str(claim.source), claim.after, claim.upto) for claim in commit.claims],
            trim,
            packed_groups,
            [msgspec.to_builtins(ack) for ack in commit.acks],
            [msgspec.json.encode(letter) for letter in commit.dead],
            self._limits,
            new_epoch(),
            round(commit.queued_at_s * 1000),
        )
        return names, [pack(payload)]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _packed(group: Group, once: Mapping[int, int]) -> tuple[Any, ...]:
    return (
        group.channel,
        group.bodies,
        group.history_size,
        group.history_ttl_s,
        group.meta_ttl_s,
        once,
        {index + 1: amounts for index, amounts in group.counts.items()},
        {index + 1: wait for index, wait in group.waits.items()},
        _versions(group) if group.versions else None,
    )


def _versions(group: Group) -> dict[int, tuple[str, str, str]]:
    return {
        index + 1: (str(version), epoch, f"{group.ids[index]}")
        for index, (version, epoch) in group.versions.items()
    }


def _after(entry_id: str) -> str:
    """Return the id right after one."""
    ms, seq = id_key(entry_id)
    return f"{ms}-{seq + 1}" if seq < _SEQ_MAX else f"{ms + 1}-0"


def _committed(reply: Any) -> Committed:
    done, applied, results = reply
    return Committed(
        applied=[value.decode() for value in applied],
        done=bool(done),
        acks=[
            Ack(int(source), token.decode(), int(offset), epoch.decode(), error.decode())
            for source, token, offset, epoch, error in results
        ],
    )


class RedisMarks:
    """Tell and ask who works on what. See `interface.Marks`."""

    def __init__(self, url: str, keys: Keys, *, timeout_s: float = 5.0) -> None:
        self._url = url
        self._key = keys.marks
        self._client = sync_client(url, timeout_s=timeout_s)

    def mark(self, nozzle: str, text: str) -> None:
        """See `Marks.mark`."""
        with translated(self._url):
            self._client.hset(self._key, nozzle, text)

    def marked(self, nozzle: str) -> str:
        """See `Marks.marked`."""
        with translated(self._url):
            found: Any = self._client.hget(self._key, nozzle)
        return found.decode() if found else ""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class RedisStats:
    """Write a part's numbers (see `interface.StatsWriter`), and read those of all."""

    def __init__(self, url: str, keys: Keys, *, timeout_s: float = 5.0) -> None:
        self._url = url
        self._key = keys.stats
        self._client = sync_client(url, timeout_s=timeout_s)

    def write_stats(self, part: str, numbers: Mapping[str, Any]) -> None:
        """See `StatsWriter.write_stats`."""
        with translated(self._url):
            self._client.hset(self._key, part, json.dumps(dict(numbers)))

    def remove_stats(self, part: str) -> None:
        """See `StatsWriter.remove_stats`."""
        with translated(self._url):
            self._client.hdel(self._key, part)

    def read_stats(self) -> dict[str, dict[str, Any]]:
        """Return part -> the numbers it wrote last, with `at_s`."""
        with translated(self._url):
            found: Any = self._client.hgetall(self._key)
        return {part.decode(): json.loads(numbers) for part, numbers in found.items()}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
