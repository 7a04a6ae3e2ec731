"""The pipeline as Ray actors: order, once-only effect, and coming back, by killing them."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions

from actors.errors import SettingsError
from actors.message import decode_json
from actors.partition import Keys, partition_of
from actors.settings import ChannelSettings, Settings, StageSettings, TransformSettings
from actors.store import NewMessage
from actors.store_redis_edge import RedisEdgeStore
from actors.supervisor import Pipeline

pytestmark = pytest.mark.ray

CODE = """
import os

def double(message):
    return message.replace(data={"n": message.data["n"], "twice": message.data["n"] * 2})

def odd_ones(message):
    return message if message.data["n"] % 2 else None

class Model:
    def set_up(self):
        self.pid = os.getpid()

    def batch(self, messages):
        return [m.replace(data={**m.data, "batch": True}) for m in messages]

class Broken:
    def set_up(self):
        raise ValueError("no such model")

    def __call__(self, message):
        return message
"""


def make_settings(code: Path, *stages: StageSettings, **more: Any) -> Settings:
    """Settings of a pipeline of its own, with code of the test's."""
    (code / "my_transforms.py").write_text(CODE)
    return Settings(
        app=f"t{uuid.uuid4().hex[:8]}",
        code=code,
        stages=stages,
        namespaces={"c": ChannelSettings(history_size=100_000, history_ttl_s=600)},
        **more,
    )


def stage(name: str, use: str, *, replicas: int = 1) -> StageSettings:
    """A stage of one transform of `my_transforms`."""
    transform = TransformSettings(channels="c:*", use=f"my_transforms:{use}")
    return StageSettings(name=name, transforms=(transform,), replicas=replicas, num_cpus=0.1)


@contextmanager
def pipeline(settings: Settings, url: str) -> Iterator[Pipeline]:
    """A running pipeline; drained and ended afterwards."""
    made = Pipeline(settings, url)
    try:
        end_s = time.monotonic() + 60
        while not made.is_ready():
            assert time.monotonic() < end_s, made.state()
            time.sleep(0.05)
        yield made
    finally:
        made.stop()


@asynccontextmanager
async def edge_store(settings: Settings, url: str) -> Any:
    """The edge's store of that pipeline."""
    store = RedisEdgeStore(url, Keys(settings.app), partitions=settings.queue.partitions)
    try:
        yield store
    finally:
        await store.close()


async def publish(store: RedisEdgeStore, channels: list[str], count: int) -> None:
    """Enqueue messages n = 0 ... count - 1 for each channel, a hundred at a time."""
    for first in range(0, count, 100):
        for channel in channels:
            messages = [
                NewMessage(channel, b'{"n":%d}' % n) for n in range(first, min(first + 100, count))
            ]
            partition = partition_of(channel, 8)
            accepted = await store.enqueue(partition, messages, entries_max=1_000_000)
            assert accepted == len(messages)


async def history(store: RedisEdgeStore, channel: str) -> list[Any]:
    """The data of all a channel's publications, whose offsets must follow one another."""
    found = await store.history(channel, since=None, limit=None, meta_ttl_s=600)
    assert [offset for offset, _ in found.publications] == list(range(1, found.offset + 1))
    return [decode_json(body)["data"] for _, body in found.publications]


async def applied(store: RedisEdgeStore, within_s: float = 60) -> None:
    """Wait until the queue is empty."""
    async with asyncio.timeout(within_s):
        while any((await store.queue_lengths(range(8))).values()):
            await asyncio.sleep(0.05)


def kill(settings: Settings, name: str) -> None:
    """SIGKILL the process of an actor, found by its name; waits for it to be up first."""
    handle: Any = ray.get_actor(name, namespace=settings.app)
    end_s = time.monotonic() + 30
    while True:
        try:
            pid: int = ray.get(handle.ping.remote(), timeout=30)
        except ray.exceptions.RayActorError:
            assert time.monotonic() < end_s, f"{name} does not come back"
            time.sleep(0.05)
        else:
            os.kill(pid, signal.SIGKILL)
            return


async def test_messages_pass_all_stages_in_order(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """Two stages, one of them a pool: every channel keeps the order of the queue."""
    settings = make_settings(
        tmp_path, stage("one", "double", replicas=3), stage("two", "Model"), nozzle={"count": 2}
    )
    channels = [f"c:{n}" for n in range(20)]
    with pipeline(settings, valkey_url):
        async with edge_store(settings, valkey_url) as store:
            await publish(store, channels, 500)
            await applied(store)
            expected = [{"n": n, "twice": 2 * n, "batch": True} for n in range(500)]
            for channel in channels:
                assert await history(store, channel) == expected


async def test_dropped_messages_leave_no_gap(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """A transform that drops messages leaves offsets without holes."""
    settings = make_settings(tmp_path, stage("one", "odd_ones"))
    with pipeline(settings, valkey_url):
        async with edge_store(settings, valkey_url) as store:
            await publish(store, ["c:a"], 100)
            await applied(store)
            assert [data["n"] for data in await history(store, "c:a")] == list(range(1, 100, 2))


@pytest.mark.parametrize("victim", ["nozzle:0", "publisher:0", "transformer:one:0", "supervisor"])
async def test_killed_actor_loses_and_repeats_nothing(
    local_ray: None, valkey_url: str, tmp_path: Path, victim: str
) -> None:
    """Whichever actor is killed under load, all is applied once, in order, and it comes back."""
    settings = make_settings(tmp_path, stage("one", "double", replicas=2))
    channels = [f"c:{n}" for n in range(8)]
    with pipeline(settings, valkey_url):
        async with edge_store(settings, valkey_url) as store:
            kill_it: Callable[[], Awaitable[None]] = lambda: asyncio.to_thread(  # noqa: E731
                kill, settings, victim
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(publish(store, channels, 4000))
                for _ in range(2):
                    await kill_it()
            await applied(store)
            expected = [{"n": n, "twice": 2 * n} for n in range(4000)]
            for channel in channels:
                assert await history(store, channel) == expected


async def test_pipeline_goes_on_where_it_stopped(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """What was queued while nothing ran is applied by the next start."""
    settings = make_settings(tmp_path, stage("one", "double"))
    async with edge_store(settings, valkey_url) as store:
        with pipeline(settings, valkey_url):
            await publish(store, ["c:a"], 300)
        await publish(store, ["c:a"], 200)
        with pipeline(settings, valkey_url):
            await applied(store)
        numbers = [data["n"] for data in await history(store, "c:a")]
        assert numbers == [*range(300), *range(200)]


def test_transform_that_cannot_be_set_up_ends_the_start(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """The error is the user's own, with their line."""
    settings = make_settings(tmp_path, stage("one", "Broken"))
    with pytest.raises(SettingsError) as raised, pipeline(settings, valkey_url):
        pass
    assert "no such model" in str(raised.value)
    assert "my_transforms.py" in str(raised.value)
    assert "ray" not in str(raised.value)
