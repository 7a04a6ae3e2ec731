"""The pipeline as Ray actors: order, once-only effect, and coming back, by killing them."""

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions
import redis

from actors.errors import SettingsError
from actors.message import decode_json
from actors.partition import Keys, partition_of
from actors.settings.tree import ChannelSettings, Settings, StageSettings, TransformSettings
from actors.store.interface import NewMessage
from actors.store.redis.edge import RedisEdgeStore
from actors.supervisor import Pipeline

pytestmark = pytest.mark.ray

CODE = """
import itertools
import os

def double(message):
    return message.replace(data={"n": message.data["n"], "twice": message.data["n"] * 2})

def odd_ones(message):
    return message if message.data["n"] % 2 else None

def deadly(message):
    if message.channel == "c:a" and message.data["n"] == 5:
        os.kill(os.getpid(), 11)
    return message

def endless(message):
    if message.data["n"] == 1:
        sum(itertools.repeat(1))  # in C, with the interpreter's lock held
    return message

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


def stage(name: str, use: str, **more: Any) -> StageSettings:
    """A stage of one transform of `my_transforms`."""
    transform = TransformSettings(channels="c:*", use=f"my_transforms:{use}")
    return StageSettings(name=name, transforms=(transform,), num_cpus=0.1, **more)


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
    """SIGKILL the process of an actor, found by its name."""
    os.kill(pid_of(settings, name), signal.SIGKILL)


def pid_of(settings: Settings, name: str) -> int:
    """The process of an actor, found by its name; waits for it to be up first."""
    handle: Any = ray.get_actor(name, namespace=settings.app)
    end_s = time.monotonic() + 30
    while True:
        try:
            pid: int = ray.get(handle.ping.remote(), timeout=30)
        except ray.exceptions.RayActorError:
            assert time.monotonic() < end_s, f"{name} does not come back"
            time.sleep(0.05)
        else:
            return pid


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


async def test_killed_actors_lose_and_repeat_nothing(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """Whichever actor is killed under load, all is applied once, in order, and it comes back."""
    settings = make_settings(tmp_path, stage("one", "double", replicas=2))
    channels = [f"c:{n}" for n in range(8)]
    with pipeline(settings, valkey_url):
        async with edge_store(settings, valkey_url) as store:
            for victim in ("nozzle:0", "publisher:0", "transformer:one:0", "supervisor"):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(publish(store, channels, 2000))
                    for _ in range(2):
                        await asyncio.to_thread(kill, settings, victim)
                await applied(store)
            expected = [{"n": n, "twice": 2 * n} for n in range(2000)] * 4
            for channel in channels:
                assert await history(store, channel) == expected


async def test_pipeline_goes_on_where_it_stopped(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """What was queued while nothing ran is applied by the next start; what is dropped, never."""
    settings = make_settings(tmp_path, stage("one", "odd_ones"))
    async with edge_store(settings, valkey_url) as store:
        with pipeline(settings, valkey_url):
            await publish(store, ["c:a"], 300)
        await publish(store, ["c:a"], 200)
        with pipeline(settings, valkey_url):
            await applied(store)
        numbers = [data["n"] for data in await history(store, "c:a")]
        assert numbers == [*range(1, 300, 2), *range(1, 200, 2)]


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


def dead_letters(url: str, settings: Settings) -> list[dict[str, Any]]:
    """All dead letters of a pipeline."""
    found: list[dict[str, Any]] = []
    with redis.Redis.from_url(url) as client:
        for partition in range(8):
            records: Any = client.xrange(Keys(settings.app).dead(partition))
            found += [json.loads(fields[b"d"]) for _, fields in records]
    return found


async def test_message_that_kills_its_process_becomes_a_dead_letter(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """It is found and set aside, also with stages, pools, nozzles; the others arrive, in order."""
    settings = make_settings(
        tmp_path,
        stage("one", "double", replicas=2),
        stage("two", "deadly", replicas=2),
        nozzle={"count": 2},
    )
    async with edge_store(settings, valkey_url) as store:
        # All of it waits when the pipeline starts, so it goes in one batch.
        await publish(store, ["c:a"], 8)
        with pipeline(settings, valkey_url):
            await publish(store, ["c:b", "c:c"], 30)
            await applied(store)
        assert [data["n"] for data in await history(store, "c:a")] == [0, 1, 2, 3, 4, 6, 7]
        for channel in ("c:b", "c:c"):
            assert [data["n"] for data in await history(store, channel)] == list(range(30))
    (letter,) = dead_letters(valkey_url, settings)
    assert (letter["channel"], letter["stage"]) == ("c:a", "two")
    assert json.loads(letter["data"])["n"] == 5
    assert "process ended on it 2 times" in letter["error"]


async def test_message_that_hangs_in_c_becomes_a_dead_letter(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """What no exception can interrupt loses its process when the stage's limit is over."""
    settings = make_settings(tmp_path, stage("one", "endless", time_limit_s=0.5))
    async with edge_store(settings, valkey_url) as store:
        await publish(store, ["c:a"], 3)
        with pipeline(settings, valkey_url):
            await applied(store, within_s=90)
        assert [data["n"] for data in await history(store, "c:a")] == [0, 2]
    (letter,) = dead_letters(valkey_url, settings)
    assert json.loads(letter["data"])["n"] == 1


async def test_paused_nozzle_is_replaced_and_does_no_harm_when_it_goes_on(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """A process that was stopped is noticed by its silence; the effects are those of one."""
    settings = make_settings(tmp_path, stage("one", "double"))
    with pipeline(settings, valkey_url):
        async with edge_store(settings, valkey_url) as store:
            await publish(store, ["c:a"], 500)
            pid = await asyncio.to_thread(pid_of, settings, "nozzle:0")
            os.kill(pid, signal.SIGSTOP)
            await publish(store, ["c:a", "c:b"], 500)
            await applied(store)
            # Ray has ended it by now; a process that is gone cannot be resumed.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            await publish(store, ["c:a"], 100)
            await applied(store)
            numbers = [data["n"] for data in await history(store, "c:a")]
            assert numbers == [*range(500), *range(500), *range(100)]
            assert [data["n"] for data in await history(store, "c:b")] == list(range(500))
