"""Producers that publish without end, and repeat what is not known to be accepted."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from actors.errors import UnavailableError
from actors.pacing import Backoff
from actors.partition import Keys
from actors.store.interface import NewMessage
from actors.store.redis.edge import RedisEdgeStore
from serve.cli.publish_sender import Sender
from tests.chaos.ledger import Ledger
from tests.chaos.pulse import PROBES_PER_S

_ENTRIES_MAX: Final = 200_000
_BLOCK_MAX: Final = 300
_TICK_S: Final = 0.05
_ASK_AGAIN_S: Final = 2.0
_ANSWER_WITHIN_S: Final = 15.0
_REPEAT_EVERY: Final = 5
_TOO_MANY: Final = 111
_INTERNAL: Final = 100
_BACKOFF: Final = Backoff(max_s=1.0)

_encode: Final = msgspec.json.Encoder().encode

Item = tuple[str, int, float]
"""A message: source, number, and when it was due."""


def body(item: Item) -> dict[str, Any]:
    """Return a message's data."""
    source, number, due_s = item
    return {"from": source, "n": number, "due_s": due_s}


class Stores:
    """Valkey's store, wherever it is at the moment: each `raywire up` has it on another port."""

    def __init__(self, url: Callable[[], str | None], partitions: int) -> None:
        self._url = url
        self._partitions = partitions
        self._made: dict[str, RedisEdgeStore] = {}
        self._last = ""

    def now(self) -> RedisEdgeStore:
        """Return the store at the address that is told now, or was told last."""
        self._last = self._url() or self._last
        store = self._made.get(self._last)
        if store is None:
            store = self._made[self._last] = RedisEdgeStore(
                self._last, Keys(), partitions=self._partitions, timeout_s=2.0
            )
        return store

    async def close(self) -> None:
        """Close all."""
        for store in self._made.values():
            await store.close()


@dataclass(frozen=True, slots=True)
class Rate:
    """What a producer publishes: its sources in turn, `per_s` messages a second."""

    sources: Sequence[str]
    per_s: float


class QueueProducer:
    """Appends to one partition's queue as `raywire publish` does, and its probes."""

    def __init__(
        self, partition: int, rate: Rate, probe: str, ledger: Ledger, stores: Stores
    ) -> None:
        self._partition = partition
        self._ledger = ledger
        self._stores = stores
        self._name = f"chaos-{partition}"
        self._number = 1
        self._probe = probe
        self._sources = itertools.cycle(rate.sources)
        self._per_s = rate.per_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until `stopping` is set; what is under way then is still resolved."""
        loads, probes = _due(self._per_s, skip=True), _due(PROBES_PER_S, skip=False)
        while not stopping.is_set():
            sources = [(next(self._sources), due_s) for due_s in next(loads)]
            sources += [(self._probe, due_s) for due_s in next(probes)]
            await self._publish(_numbered(sources, self._ledger))
            await _pause(stopping, _TICK_S)

    async def _publish(self, items: Sequence[Item]) -> None:
        """Send until all is accepted; numbers keep what is repeated from taking effect twice."""
        while items:
            sender = Sender(
                self._stores.now(),
                self._waits,
                partition=self._partition,
                entries_max=_ENTRIES_MAX,
                timeout_s=_ASK_AGAIN_S,
                stopping=asyncio.Event(),
                producer=self._name,
                first_number=self._number,
            )
            try:
                await sender.send([NewMessage(i[0], _encode(body(i))) for i in items])
            except UnavailableError:
                self._ledger.lost_answers += 1
            done = sender.number - self._number
            for source, number, _ in items[:done]:
                self._ledger.accept(source, number)
            self._number, items = sender.number, items[done:]

    def _waits(self, why: str) -> None:
        if "full" in why:
            self._ledger.refused += 1


class ApiProducer:
    """Publishes over HTTP, each message under an idempotency key, in batches and one by one."""

    def __init__(
        self, rate: Rate, ledger: Ledger, *, url: str, api_key: str, batch_max: int = 25
    ) -> None:
        self._sources = itertools.cycle(rate.sources)
        self._ledger = ledger
        self._url = url
        self._key = api_key
        self._batch_max = min(batch_max, len(rate.sources))
        self._tick_s = self._batch_max / rate.per_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until `stopping` is set; what is under way then is still resolved."""
        headers = {"X-API-Key": self._key}
        async with httpx.AsyncClient(
            base_url=self._url, headers=headers, timeout=_ANSWER_WITHIN_S
        ) as client:
            for round_ in itertools.count():
                if stopping.is_set():
                    return
                now_s = time.monotonic()
                # Each source once: the next message of a source waits for the result of this.
                sources = [(next(self._sources), now_s) for _ in range(self._batch_max)]
                items = _numbered(sources, self._ledger)
                call = self._batch if round_ % 4 else self._singly
                await self._publish(client, items, call)
                if round_ % _REPEAT_EVERY == 0:
                    # As after an answer that was lost: nothing may happen twice.
                    await call(client, items)
                await _pause(stopping, self._tick_s)

    async def _publish(
        self, client: httpx.AsyncClient, items: Sequence[Item], call: "_Call"
    ) -> None:
        for attempt in itertools.count(1):
            replies = await call(client, items)
            items = [
                item
                for item, reply in zip(items, replies, strict=True)
                if not self._settled(item, reply)
            ]
            if not items:
                return
            await asyncio.sleep(_BACKOFF.wait_s(attempt))

    def _settled(self, item: Item, reply: Mapping[str, Any] | None) -> bool:
        source, number, _ = item
        error = {"code": _INTERNAL} if reply is None else reply.get("error")
        if error is None:
            self._ledger.accept(source, number)
            return True
        if error["code"] == _TOO_MANY:
            self._ledger.refused += 1
            return False
        if error["code"] == _INTERNAL:
            self._ledger.lost_answers += 1
            return False
        self._ledger.reject(source, number, str(error))
        return True

    async def _batch(
        self, client: httpx.AsyncClient, items: Sequence[Item]
    ) -> Sequence[Mapping[str, Any] | None]:
        commands = [{"publish": _request(item)} for item in items]
        answer = await _answer(client, "batch", {"commands": commands, "parallel": True})
        if answer is not None and "replies" in answer:
            replies: list[Mapping[str, Any] | None] = answer["replies"]
            return replies
        return [answer for _ in items]  # the error of all

    async def _singly(
        self, client: httpx.AsyncClient, items: Sequence[Item]
    ) -> Sequence[Mapping[str, Any] | None]:
        calls = [_answer(client, "publish", _request(item)) for item in items]
        return list(await asyncio.gather(*calls))


_Replies = Sequence[Mapping[str, Any] | None]
_Call = Callable[[httpx.AsyncClient, Sequence[Item]], Awaitable[_Replies]]


def _request(item: Item) -> dict[str, Any]:
    source, number, _ = item
    return {"channel": source, "data": body(item), "idempotency_key": f"{source}-{number}"}


async def _answer(
    client: httpx.AsyncClient, method: str, content: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the answer of the API; None: there was none, or none of ours."""
    try:
        answer = await client.post(f"/api/{method}", json=content)
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    return found


def _numbered(sources: Sequence[tuple[str, float]], ledger: Ledger) -> list[Item]:
    """Give each message the next number of its source."""
    next_number: dict[str, int] = {}
    items = []
    for source, due_s in sources:
        number = next_number.setdefault(source, ledger.next_number(source))
        next_number[source] = number + 1
        items.append((source, number, due_s))
    return items


def _due(per_s: float, *, skip: bool) -> Iterator[list[float]]:
    """Yield the times of the messages that have become due since the last call.

    Args:
        per_s: Messages a second.
        skip: After an interruption leave out what is more than one block; else make up for it.
    """
    step_s = 1 / per_s
    due_s = time.monotonic()
    while True:
        times: list[float] = []
        now_s = time.monotonic()
        while due_s <= now_s and len(times) < _BLOCK_MAX:
            times.append(due_s)
            due_s += step_s
        if skip:
            due_s = max(due_s, now_s)
        yield times


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
