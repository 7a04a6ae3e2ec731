"""What Ray itself takes of a batch's way: two calls of actors that do nothing, at a nozzle's pace.

    python benchmarks/ray_calls.py [--secs S] [--pace MS] [--bytes N]

Compare with `raywire bench` of the same minute: the rest of its latency and CPU is ours. CPU in
cores, latency from a batch's sending until the nozzle knows that it is done; JSON on stdout.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import ray

from serve.system.local_ray import start

_OPTIONS: Final[dict[str, Any]] = {
    "num_cpus": 0.1,
    "max_task_retries": 0,
    "enable_task_events": False,
}
_WARM_UP_S: Final = 2.0


class _Idle:
    """A transformer or a publisher that does nothing. A synchronous actor, as ours are."""

    def apply(self, batch: bytes) -> bytes:
        return batch

    def commit(self, _batch: bytes, _run: str, _number: int) -> None:
        return

    def cpu_s(self) -> float:
        return time.process_time()


class _Nozzle:
    """Sends batches as ours does. An asynchronous actor."""

    async def run(
        self, transformer: Any, publisher: Any, secs: float, pace_s: float, size: int
    ) -> list[float]:
        batch, took_s, under_way = os.urandom(size), list[float](), set[asyncio.Task[None]]()

        async def done(ref: Any, began_s: float) -> None:
            await ref
            took_s.append(time.monotonic() - began_s)

        end_s = time.monotonic() + secs
        while (began_s := time.monotonic()) < end_s:
            ref = publisher.commit.remote(transformer.apply.remote(batch), "run", len(took_s))
            task = asyncio.create_task(done(ref, began_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, began_s + pace_s - time.monotonic()))
        await asyncio.gather(*under_way)
        return took_s

    async def cpu_s(self) -> float:
        return time.process_time()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secs", type=float, default=10.0)
    parser.add_argument("--pace", type=float, default=7.0, help="ms from batch to batch")
    parser.add_argument("--bytes", type=int, default=16_000, help="of a batch")
    args = parser.parse_args()
    start(cpus=4, object_store_bytes=100_000_000)
    nozzle, transformer, publisher = (
        ray.remote(kind).options(**_OPTIONS).remote() for kind in (_Nozzle, _Idle, _Idle)
    )
    actors = {"nozzle": nozzle, "transformer": transformer, "publisher": publisher}

    def run(secs: float) -> list[float]:
        found: list[float] = ray.get(
            nozzle.run.remote(transformer, publisher, secs, args.pace / 1e3, args.bytes)
        )
        return found

    run(_WARM_UP_S)
    before = {name: ray.get(actor.cpu_s.remote()) for name, actor in actors.items()}
    took_s = sorted(run(args.secs))
    cpu = {name: ray.get(a.cpu_s.remote()) - before[name] for name, a in actors.items()}
    found = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "ray": ray.__version__,
        "batches_per_s": round(len(took_s) / args.secs, 1),
        "mean_ms": round(sum(took_s) / len(took_s) * 1e3, 2),
        "p99_ms": round(took_s[int(len(took_s) * 0.99)] * 1e3, 2),
        "cpu": {name: round(cpu_s / args.secs, 3) for name, cpu_s in cpu.items()},
        "cpu_total": round(sum(cpu.values()) / args.secs, 3),
    }
    ray.shutdown()
    json.dump(found, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
