"""A pipeline on a cluster of three nodes, one of which is lost under load. Run as a program.

In a process of its own, as the other tests have a Ray of their own. Prints one JSON object:
`numbers` as they stand in each channel's history, and `back_s`, how long nothing was applied.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from actors.message import decode_json
from actors.partition import Keys, partition_of
from actors.settings.tree import ChannelSettings, Settings, StageSettings, TransformSettings
from actors.store.interface import NewMessage
from actors.store.redis.edge import RedisEdgeStore
from actors.supervisor import Pipeline
from serve.system import local_ray

CODE = """
def double(message):
    return message.replace(data={"n": message.data["n"], "twice": message.data["n"] * 2})
"""
CHANNELS = [f"c:{n}" for n in range(6)]
BLOCK = 50
MEMORY = 80_000_000
# As cluster.yaml has it on the head: a lost node is noticed within some seconds, not fifteen.
NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1_000,
    "health_check_timeout_ms": 1_000,
}


def lose(node: Any) -> None:
    """End all processes of a node at once, as a power cut would."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = subprocess.run(["pgrep", "-P", str(raylet)], capture_output=True, text=True, check=True)
    for pid in (raylet, *map(int, found.stdout.split())):
        os.kill(pid, signal.SIGKILL)


def node_of(settings: Settings, name: str) -> str:
    """The id of the node on which a transformer is."""
    handle: Any = ray.get_actor(name, namespace=settings.app)
    return str(
        ray.get(handle.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
    )


async def publish(store: RedisEdgeStore, first: int) -> None:
    """Append a block of messages to every channel."""
    for channel in CHANNELS:
        block = [NewMessage(channel, b'{"n":%d}' % n) for n in range(first, first + BLOCK)]
        await store.enqueue(partition_of(channel, 8), block, entries_max=1_000_000)


async def until_applied(store: RedisEdgeStore) -> None:
    """Wait until the queue is empty."""
    async with asyncio.timeout(60):
        while any((await store.queue_lengths(range(8))).values()):
            await asyncio.sleep(0.05)


async def run(settings: Settings, url: str, nodes: list[Any]) -> dict[str, Any]:
    """Publish, lose the node of a transformer, and go on publishing."""
    store = RedisEdgeStore(url, Keys(settings.app), partitions=8)
    try:
        await publish(store, 0)
        await until_applied(store)
        lost = await asyncio.to_thread(node_of, settings, "transformer:one:0")
        (victim,) = [node for node in nodes if node.node_id == lost]
        lose(victim)
        began_s = time.monotonic()
        for block in range(1, 20):
            await publish(store, block * BLOCK)
        await until_applied(store)
        back_s = time.monotonic() - began_s
        numbers = {}
        for channel in CHANNELS:
            found = await store.history(channel, since=None, limit=None, meta_ttl_s=600)
            numbers[channel] = [decode_json(body)["data"]["n"] for _, body in found.publications]
        return {"numbers": numbers, "back_s": back_s}
    finally:
        await store.close()


def main(url: str) -> None:
    """Start all, run, end all."""
    with tempfile.TemporaryDirectory() as directory:
        code = Path(directory)
        (code / "node_transforms.py").write_text(CODE)
        transform = TransformSettings(channels="c:*", use="node_transforms:double")
        settings = Settings(
            app="nodes",
            code=code,
            stages=(
                StageSettings(
                    name="one",
                    transforms=(transform,),
                    replicas=2,
                    num_cpus=0.1,
                    resources={"workers": 1},
                ),
            ),
            namespaces={"c": ChannelSettings(history_size=10_000, history_ttl_s=600)},
        )
        head = {
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": MEMORY,
            "_system_config": NOTICE,
        }
        local_ray.prepare()
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = [
            cluster.add_node(num_cpus=1, resources={"workers": 2}, object_store_memory=MEMORY)
            for _ in range(2)
        ]
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        pipeline = Pipeline(settings, url)
        try:
            end_s = time.monotonic() + 60
            while not pipeline.is_ready():
                assert time.monotonic() < end_s, pipeline.state()
                time.sleep(0.05)
            result = asyncio.run(run(settings, url, nodes))
        finally:
            pipeline.stop()
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call] # Ray's
    print(json.dumps(result))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(sys.argv[1])
