"""One run: a system, load on it, strikes, and the comparison at the end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from actors.partition import partition_of
from actors.store.redis.edge import RedisEdgeStore
from tests.chaos.ledger import Ledger
from tests.chaos.load import ApiProducer, QueueProducer, Rate, Stores
from tests.chaos.pulse import Pulse, probe_source
from tests.chaos.report import Report, interruptions
from tests.chaos.schedule import Kind, strikes
from tests.chaos.striker import RECOVERS_WITHIN_S, Striker
from tests.chaos.subscriber import Subscriber
from tests.chaos.target import PARTITIONS, Target, TargetError
from tests.chaos.verdict import Kept, Past, judge

_SUBSCRIBERS: Final = 4
_API_PRODUCERS: Final = 2
_API_SHARE: Final = 0.1
_MOVED: Final = tuple(f"moved.{index}" for index in range(10))
_SETTLES_WITHIN_S: Final = 90.0
_PAGE: Final = 5_000
_LOOK_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        seed: Fixes the strikes.
        chaos_s: How long there are strikes.
        rate: Messages a second of all producers together.
        channels: How many they publish to, besides the probes'.
        kinds: What is done to the system.
    """

    seed: int
    chaos_s: float
    rate: float = 1_000.0
    channels: int = 200
    kinds: Sequence[Kind] = tuple(Kind)


class _Publication(msgspec.Struct):
    data: "_Data"


class _Data(msgspec.Struct, rename={"source": "from"}):
    source: str
    n: int
    double: int = 0


_decode: Final = msgspec.json.Decoder(_Publication).decode


async def run(plan: Plan, work: Path, tell: Callable[[str], None]) -> Report:
    """Do a whole run in an empty directory, and report; no process is left.

    Raises:
        TargetError: The system does not start at all.
        TimeoutError: It starts, but serves nobody.
    """
    target = Target(work)
    tell("starting")
    try:
        await target.start()
        report = await _struck(plan, target, tell)
        tell("stopping")
        try:
            await target.stop()
        except TargetError as error:
            report.troubles.append(str(error))
    finally:
        await target.crash()
        left = await target.leftovers()
    report.troubles += [f"left running: {process.pid} {process.title[:80]}" for process in left]
    report.troubles += [f"did not start: {why}" for why in target.failed_starts]
    return report


async def _struck(plan: Plan, target: Target, tell: Callable[[str], None]) -> Report:
    ledger, pulse = Ledger(), Pulse()
    sources = _sources(plan.channels)
    subscribers = _subscribers(sources, target, pulse)
    striker = Striker(target, pulse, subscribers, tell)
    stores = Stores(target.redis_url, PARTITIONS)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(stores.close)
        await stack.enter_async_context(_running([s.run() for s in subscribers]))
        stopping = asyncio.Event()
        producers = [
            asyncio.create_task(producer.run(stopping))
            for producer in _producers(plan, sources, target, ledger, stores)
        ]
        stack.push_async_callback(_end, producers)
        async with asyncio.timeout(RECOVERS_WITHIN_S):
            await pulse.beats(time.monotonic())
        tell(f"all subscribers are served; strikes for {plan.chaos_s:.0f} s")
        await striker.run(strikes(plan.seed, plan.kinds), time.monotonic() + plan.chaos_s)
        tell("settling")
        stopping.set()
        troubles = await _settled(producers, stores, subscribers)
        pasts = {c: await _past(stores.now(), c) for c in _all_channels(sources)}
    trails = [(s.name, c, trail) for s in subscribers for c, trail in s.trails.items()]
    troubles += [*striker.troubles, *ledger.rejected]
    troubles += [trouble for subscriber in subscribers for trouble in subscriber.troubles]
    return Report(
        plan.seed,
        judge(ledger.accepted, pasts, trails),
        troubles,
        interruptions(striker.done, pulse),
        {
            "accepted": ledger.total,
            "received": sum(len(s.offsets) for _, _, t in trails for s in t.stretches),
            "strikes": sum(not done.missed for done in striker.done),
            "refused": ledger.refused,
            "lost answers": ledger.lost_answers,
            "broken connections": sum(s.breaks for s in subscribers),
            "gaps told": sum(s.told for s in subscribers),
            "median latency s": round(pulse.typical_s(), 3),
        },
    )


# --- who takes part


def _sources(channels: int) -> list[str]:
    """Name the channels that are published to, probes apart."""
    api = max(10, round(channels * 0.2))
    moving = max(10, round(channels * 0.2))
    plain = max(10, channels - api - moving)
    counts = {"api": api, "moving": moving, "plain": plain}
    return [f"{kind}.{index}" for kind, count in counts.items() for index in range(count)]


def _all_channels(sources: Sequence[str]) -> list[str]:
    return [*sources, *_MOVED, *(probe_source(p, PARTITIONS) for p in range(PARTITIONS))]


def _producers(
    plan: Plan, sources: Sequence[str], target: Target, ledger: Ledger, stores: Stores
) -> list[QueueProducer | ApiProducer]:
    api = [source for source in sources if source.startswith("api.")]
    others = [source for source in sources if not source.startswith("api.")]
    made: list[QueueProducer | ApiProducer] = []
    for index in range(_API_PRODUCERS):
        rate = Rate(api[index::_API_PRODUCERS], plan.rate * _API_SHARE / _API_PRODUCERS)
        made.append(ApiProducer(rate, ledger, url=target.api_url, api_key=target.api_key))
    for p in range(PARTITIONS):
        mine = [source for source in others if partition_of(source, PARTITIONS) == p]
        if mine:
            rate = Rate(mine, plan.rate * (1 - _API_SHARE) * len(mine) / len(others))
            probe = probe_source(p, PARTITIONS)
            made.append(QueueProducer(p, rate, probe, ledger, stores))
    return made


def _subscribers(sources: Sequence[str], target: Target, pulse: Pulse) -> list[Subscriber]:
    """Each channel has two subscribers; the probes have all."""
    probes = [probe_source(p, PARTITIONS) for p in range(PARTITIONS)]
    shared = [*sources, *_MOVED]
    made = []
    for index in range(_SUBSCRIBERS):
        half = shared[index % 2 :: 2]
        made.append(Subscriber(f"subscriber {index}", [*half, *probes], target.socket_url, pulse))
    return made


# --- the end


async def _settled(
    producers: Sequence[asyncio.Task[None]],
    stores: Stores,
    subscribers: Sequence[Subscriber],
) -> list[str]:
    """Wait until nothing is under way any more; return what still is after a while."""
    try:
        async with asyncio.timeout(_SETTLES_WITHIN_S):
            await asyncio.gather(*producers)
            store = stores.now()
            while any((await store.queue_lengths(range(PARTITIONS))).values()):
                await asyncio.sleep(_LOOK_EVERY_S)
            for subscriber in subscribers:
                tops = {c: await _top(store, c) for c in subscriber.trails}
                await subscriber.reach(tops)
    except TimeoutError:
        busy = sum(not task.done() for task in producers)
        lengths = await stores.now().queue_lengths(range(PARTITIONS))
        return [f"not settled after {_SETTLES_WITHIN_S:.0f} s: producers {busy}, queues {lengths}"]
    return []


async def _top(store: RedisEdgeStore, channel: str) -> int:
    return (await store.history(channel, since=None, limit=0, meta_ttl_s=86_400)).offset


async def _past(store: RedisEdgeStore, channel: str) -> Past:
    """Read a whole history."""
    kept: list[Kept] = []
    while True:
        page = await store.history(channel, since=len(kept), limit=_PAGE, meta_ttl_s=86_400)
        for _, body in page.publications:
            data = _decode(body).data
            kept.append(Kept(data.source, data.n, data.double == 2 * data.n))
        if not page.publications:
            assert page.offset == len(kept), f"{channel}: history from {len(kept)} on is gone"
            return Past(page.epoch, kept)


@contextlib.asynccontextmanager
async def _running(works: Sequence[Coroutine[None, None, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and raise what one of them broke on."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
