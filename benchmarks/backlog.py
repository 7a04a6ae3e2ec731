"""Queue a million messages while nothing is read, then watch the memory of all parts meanwhile.

    python benchmarks/backlog.py [--messages N] [--size BYTES]

Starts a system of its own on temporary data, stops its nozzle and supervisor (SIGSTOP), fills the
queue, and lets them go on. One subscriber follows one of eight channels. A table on stderr, JSON on
stdout.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import redis  # noqa: TID251 - as any producer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from actors.partition import Keys, partition_of
from serve.cli.bench_own import own_settings, own_system
from serve.cli.bench_payload import make_payload, padding_for
from serve.cli.system import find_system
from serve.cli.tail import own_token, websocket_url

_CHANNELS: Final = tuple(f"backlog{number}" for number in range(8))
_BLOCK: Final = 1000
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run it, and print what was seen."""
    options = argparse.ArgumentParser()
    options.add_argument("--messages", type=int, default=1_000_000)
    options.add_argument("--size", type=int, default=200)
    asked = options.parse_args()
    settings = own_settings(replicas=1, nozzles=1)
    settings["queue"] = {"entries_max": 2 * asked.messages}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "raywire.yaml"
        file.write_text(json.dumps(settings))
        with own_system(file, replicas=1, nozzles=1) as (used, data):
            result = run(used, data, messages=asked.messages, size=asked.size)
    _show(result)
    print(json.dumps(result, indent=1))  # noqa: T201 - a script


def run(settings: Path, data: Path, *, messages: int, size: int) -> dict[str, Any]:
    """Fill, drain, and return the figures."""
    system = find_system(settings, data)
    token = own_token(system, _CHANNELS[:1])
    if token is None:
        raise SystemExit("the system has no secret for tokens")
    client = redis.Redis.from_url(system.redis_url, protocol=2)
    with client, following(websocket_url(system.listen), token()) as follower:
        memory = Memory(_processes(client, system.keys))
        with memory.sampled():
            # The supervisor, too: it would replace a nozzle that is silent for long.
            stopped = [memory.pids["nozzle:0"], memory.pids["supervisor"]]
            time.sleep(2)
            before = dict(memory.now)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                fill_s = fill(client, system.keys, system.partitions, messages, size)
                filled, stored = dict(memory.now), client.info("memory")["used_memory"]
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            began_s = time.monotonic()
            drain(client, system.keys, system.partitions)
            drain_s = time.monotonic() - began_s
            follower.wait(messages // len(_CHANNELS))
            time.sleep(2)
            after = dict(memory.now)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "command": f"python benchmarks/backlog.py --messages {messages} --size {size}",
        "messages": messages,
        "size": size,
        "filled_per_s": round(messages / fill_s),
        "drained_per_s": round(messages / drain_s),
        "valkey_used_mb_when_full": round(stored / 1e6, 1),
        "received_by_the_subscriber": follower.received,
        "expected_by_the_subscriber": messages // len(_CHANNELS),
        "subscriber_closed": follower.closed,
        "rss_mb": {
            part: {
                "before": before[part],
                "queue_full": filled[part],
                "peak": memory.peak[part],
                "after": after[part],
            }
            for part in sorted(memory.pids)
        },
    }


class Memory:
    """The resident memory of some processes, in MB, looked at ten times a second."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.now: dict[str, float] = {}
        self.peak: dict[str, float] = dict.fromkeys(pids, 0.0)
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Look until the context ends."""
        self._look()
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            self._look()

    def _look(self) -> None:
        for part, pid in self.pids.items():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            self.now[part] = round(pages * _PAGE_BYTES / 1e6, 1)
            self.peak[part] = max(self.peak[part], self.now[part])


class Follower:
    """A subscriber of one channel that counts what comes."""

    def __init__(self, socket: ClientConnection, token: str) -> None:
        self.received = 0
        self.closed = ""
        self._all = threading.Event()
        self._wanted = sys.maxsize
        self._socket = socket
        self._socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
        reply = str(self._socket.recv()).split("\n")[0]
        if "error" in json.loads(reply):
            raise SystemExit(f"the subscriber was refused: {reply}")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self, count: int) -> None:
        """Wait, for a minute at most, until so many publications have come."""
        self._wanted = count
        if self.received < count:
            self._all.wait(60)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            for frame in self._socket:
                if frame == "{}":
                    self._socket.send("{}")
                self.received += str(frame).count("~rw:")
                if self.received >= self._wanted:
                    self._all.set()
        except ConnectionClosed as error:
            self.closed = str(error)
            self._all.set()


@contextlib.contextmanager
def following(url: str, token: str) -> Iterator[Follower]:
    """Follow until the context ends."""
    with connect(url, max_size=None, max_queue=None) as socket:
        follower = Follower(socket, token)
        try:
            yield follower
        finally:
            follower.close()


def fill(client: redis.Redis, keys: Keys, partitions: int, messages: int, size: int) -> float:
    """Append messages, to each channel in turn, and return how long it took."""
    padding = padding_for(size)
    queues = [keys.queue(partition_of(channel, partitions)) for channel in _CHANNELS]
    began_s = time.monotonic()
    for first in range(0, messages, _BLOCK):
        pipeline = client.pipeline(transaction=False)
        for index in range(first, min(messages, first + _BLOCK)):
            number, place = divmod(index, len(_CHANNELS))
            payload = make_payload(place, number, time.monotonic_ns(), padding)
            pipeline.xadd(queues[place], {b"c": _CHANNELS[place].encode(), b"d": payload})
        pipeline.execute()
    return time.monotonic() - began_s


def drain(client: redis.Redis, keys: Keys, partitions: int) -> None:
    """Wait until everything queued is applied."""
    while sum(client.xlen(keys.queue(p)) for p in range(partitions)):
        time.sleep(0.1)


def _processes(client: redis.Redis, keys: Keys) -> dict[str, int]:
    """Return the parts and their processes, and the server's."""
    found = {part.decode(): json.loads(text) for part, text in client.hgetall(keys.stats).items()}
    pids = {
        "edge" if part.startswith("edge:") else part: int(numbers["pid"])
        for part, numbers in found.items()
        if numbers.get("pid")
    }
    return pids | {"valkey": int(client.info("server")["process_id"])}


def _show(result: dict[str, Any]) -> None:
    lines = [f"{'part':24}{'before':>10}{'queue full':>12}{'peak':>10}{'after':>10}   MB"]
    for part, mb in result["rss_mb"].items():
        values = (mb["before"], mb["queue_full"], mb["peak"], mb["after"])
        lines.append(f"{part:24}{values[0]:>10}{values[1]:>12}{values[2]:>10}{values[3]:>10}")
    lines.append(
        f"{result['filled_per_s']:,} messages/s in, {result['drained_per_s']:,} messages/s out"
    )
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - a script


if __name__ == "__main__":
    main()
