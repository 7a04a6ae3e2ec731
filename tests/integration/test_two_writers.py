"""Two nozzles on the same partitions: what they do together is what one would have done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.message import FIRST_ID, Meta
from actors.metrics import Numbers
from actors.nozzle import Nozzle
from actors.pacing import Backoff
from actors.partition import Keys
from actors.publisher import Publisher
from actors.settings.tree import NozzleSettings, StageSettings, TransformSettings
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisLedger, RedisQueueReader
from actors.transformer import Transformer
from tests.integration.sequential import (
    CHANNELS,
    PARTITIONS,
    Sent,
    Told,
    check_channel,
    settings_of,
    told_by,
)

pytestmark = pytest.mark.redis

ALL = tuple(range(PARTITIONS))
SPREAD = """
def spread(message):
    return [message.replace(channel=channel) for channel in message.data["to"]]
"""


class Line:
    """A transformer and a publisher in this process, which can be paused after a commit."""

    def __init__(self, ledger: RedisLedger, code: Path, *, pauses_after: int | None) -> None:
        (code / "two_writers_spread.py").write_text(SPREAD)
        stage = StageSettings(transforms=(TransformSettings(use="two_writers_spread:spread"),))
        self._transformer = Transformer(stage, str(code))
        self.numbers = Numbers("publisher")
        self._publisher = Publisher(ledger, settings_of, self.numbers, partitions=PARTITIONS)
        self._pauses_after = pauses_after
        self._turn = asyncio.Lock()
        self._resumed = asyncio.Event()
        self.paused = asyncio.Event()
        self.committed = 0

    def send(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """See `Way`: the task's place in the lock's line is the batch's place in the order."""
        return asyncio.get_running_loop().create_task(self._commit(batch, run, number))

    async def send_alone(self, batch: bytes, run: str, number: int) -> None:
        """Nothing here dies by itself."""
        await self._commit(batch, run, number)

    async def commit(self, batch: bytes, run: str, number: int) -> None:
        """Commit as it is."""
        self._publisher.commit(batch, run, number)

    def resume(self) -> None:
        """Go on with what was read long ago."""
        self._resumed.set()

    async def _commit(self, batch: bytes, run: str, number: int) -> None:
        async with self._turn:
            if self.committed == self._pauses_after:
                self.paused.set()
                await self._resumed.wait()
            self._publisher.commit(self._transformer.apply(batch), run, number)
            self.committed += 1


@dataclass
class Pipeline:
    """A server, and everything that is made of it."""

    url: str
    code: Path
    edge: RedisEdgeStore
    ledger: RedisLedger
    reader: RedisQueueReader
    sents: dict[int, Sent] = field(default_factory=dict)

    def nozzle(self, *, batch_max: int = 5, pauses_after: int | None = None) -> tuple[Nozzle, Line]:
        """Make a writer for all partitions."""
        line = Line(self.ledger, self.code, pauses_after=pauses_after)
        settings = NozzleSettings(pace_s=0, block_s=0.1, batch_max=batch_max)
        backoff = Backoff(first_s=0.001, max_s=0.001)
        numbers = Numbers("nozzle")
        return Nozzle(
            self.reader,
            line,
            ALL,
            settings,
            numbers,
            window=4,
            backoff=backoff,
            message_bytes_max=1000,
        ), line

    async def send(self, count: int) -> None:
        """Queue messages, each for one channel of its own partition and one of another."""
        for source in ALL:
            sents = []
            for _ in range(count):
                number = len(self.sents)
                to = (CHANNELS[number % len(CHANNELS)], CHANNELS[(number + 4) % len(CHANNELS)])
                meta = Meta(key=f"{source}.{number // 9}" if number % 5 == 0 else "")
                sent = Sent(number, source, to, "", meta)
                self.sents[number] = sent
                sents.append(sent.message())
            assert await self.edge.enqueue(source, sents, entries_max=10_000) == count

    async def until(self, done: Callable[[int], bool]) -> None:
        """Wait until the number of entries that wait is right."""
        while not done(sum((await self.edge.queue_lengths(ALL)).values())):
            await asyncio.sleep(0.005)

    async def told(self) -> dict[str, list[Told]]:
        """Return what the feeds told of each channel, from their start on."""
        told: dict[str, list[Told]] = {channel: [] for channel in CHANNELS}
        for p in ALL:
            records = await self.edge.read_feed({p: FIRST_ID}, limit=10_000, block_s=1)
            assert [record.seq for record in records] == list(range(1, len(records) + 1))
            for record in records:
                for one in told_by(record):
                    told[one.channel].append(one)
        return told

    def expected(self, channel: str, source: int) -> list[int]:
        """Return what one nozzle gives a channel of a source: each key once, in order."""
        numbers, keys = [], set()
        for sent in self.sents.values():
            if sent.source != source:
                continue
            for made in sent.made():
                if made.channel == channel and made.key not in keys:
                    numbers.append(sent.number)
                    keys |= {made.key} - {""}
        return numbers

    async def check(self) -> None:
        """Compare everything with what one nozzle would have done."""
        told = await self.told()
        for channel in CHANNELS:
            check_channel(told[channel], self.sents)
            for source in ALL:
                numbers = [one.number for one in told[channel] if one.source == source]
                assert numbers == self.expected(channel, source)
            history = await self.edge.history(channel, since=None, limit=0, meta_ttl_s=600)
            assert history.offset == sum(1 for one in told[channel] if one.offset)


@pytest.fixture
async def pipeline(valkey_url: str, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """A pipeline on an empty server."""
    keys = Keys()
    edge = RedisEdgeStore(valkey_url, keys, partitions=PARTITIONS)
    ledger, reader = RedisLedger(valkey_url, keys), RedisQueueReader(valkey_url, keys)
    yield Pipeline(valkey_url, tmp_path, edge, ledger, reader)
    await reader.close()
    await edge.close()
    ledger.close()


@asynccontextmanager
async def running(*nozzles: Nozzle) -> AsyncIterator[None]:
    """Run nozzles, and drain them in the end."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for nozzle in nozzles:
            tasks.create_task(nozzle.run())
        yield
        for nozzle in nozzles:
            nozzle.drain()


async def test_writer_that_was_paused_changes_nothing(pipeline: Pipeline) -> None:
    """Another one has done its work; what it had read is old when it goes on, and is left out."""
    await pipeline.send(40)
    first, line = pipeline.nozzle(pauses_after=2)
    second, _ = pipeline.nozzle()
    async with running(first):
        await line.paused.wait()
        async with running(second):
            await pipeline.until(lambda waiting: waiting == 0)
            await pipeline.send(40)
            await pipeline.until(lambda waiting: waiting == 0)
        assert line.committed == 2
        line.resume()
        await pipeline.send(10)
        await pipeline.until(lambda waiting: waiting == 0)
    assert line.committed > 2
    await pipeline.check()


async def test_writer_that_goes_on_in_the_middle_of_another(pipeline: Pipeline) -> None:
    """Its old batches overlap those of the one that took over."""
    await pipeline.send(60)
    first, line = pipeline.nozzle(pauses_after=1)
    second, other = pipeline.nozzle(batch_max=7, pauses_after=3)
    async with running(first, second):
        await line.paused.wait()
        await other.paused.wait()
        line.resume()
        other.resume()
        await pipeline.until(lambda waiting: waiting == 0)
    await pipeline.check()


async def test_writers_side_by_side(pipeline: Pipeline) -> None:
    """Both do the same work from the start, and one of the two takes effect each time."""
    await pipeline.send(60)
    first, one = pipeline.nozzle(pauses_after=0)
    second, two = pipeline.nozzle(batch_max=7, pauses_after=0)
    async with running(first, second):
        for line in (one, two):
            await line.paused.wait()
            line.resume()
        await pipeline.until(lambda waiting: waiting == 0)
        await pipeline.send(20)
        await pipeline.until(lambda waiting: waiting == 0)
    await pipeline.check()
