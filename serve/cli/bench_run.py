"""One run of a benchmark: processes that offer and receive, and what came of it."""

import multiprocessing
import time
from array import array
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Final, Self

from actors.errors import UnavailableError
from serve.cli.bench_payload import Load, quantile
from serve.cli.bench_processes import Usage, name_of
from serve.cli.bench_produce import produce
from serve.cli.bench_receive import receive

_ANSWER_WITHIN_S: Final = 60.0
_HEADSTART_NS: Final = 200_000_000
_LOOK_EVERY_S: Final = 0.05


class Worker:
    """A process of the benchmark, and the pipe to it."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe: Connection
        self._pipe, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=target, args=(theirs, *args), daemon=True
        )
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def tell(self, what: Any) -> None:
        """Send something."""
        self._pipe.send(what)

    def hear(self, within_s: float = _ANSWER_WITHIN_S) -> Any:
        """Receive an answer.

        Raises:
            UnavailableError: The process has died, or does not answer.
        """
        try:
            if self._pipe.poll(within_s):
                return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise UnavailableError("a process of the benchmark has died") from error
        raise UnavailableError("a process of the benchmark does not answer")


def run_load(
    load: Load,
    *,
    subs: int,
    drain_s: float,
    measure_cpu: Callable[[int | None], Usage],
    parts: Mapping[str, Mapping[str, Any]],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Offer the load, and return what was measured.

    Args:
        load: What is offered.
        subs: Subscribers; number i follows channel i modulo the number of channels.
        drain_s: How long to wait for what has not arrived when the last message is sent.
        measure_cpu: Returns what the system's processes have used so far. Gets the server's
            process, where that is known.
        parts: Names of processes: part -> its numbers.
        tell: Told what is going on.

    Raises:
        UnavailableError: The edge or the server cannot be reached, or refuses.
    """
    tell("connecting")
    with Worker(receive, load, range(subs)) as receiver, Worker(produce, load) as producer:
        word, why = receiver.hear()
        if word != "ready":
            raise UnavailableError(f"subscribers could not connect: {why}")
        word, server_pid = producer.hear()
        if word != "ready":
            raise UnavailableError(str(server_pid))
        start_ns = time.monotonic_ns() + _HEADSTART_NS
        receiver.tell(("warm", start_ns + int(load.warmup_s * 1e9)))
        producer.tell(start_ns)
        tell(f"warming up for {load.warmup_s:g} s")
        _sleep_until(start_ns + int(load.warmup_s * 1e9))
        before, before_s = measure_cpu(server_pid), time.monotonic()
        tell(f"measuring for {load.secs - load.warmup_s:g} s")
        _sleep_until(start_ns + int(load.secs * 1e9))
        after, after_s = measure_cpu(server_pid), time.monotonic()
        offered = producer.hear()
        expected = _expected(offered["sent"], len(load.channels), subs)
        tell("waiting for the last messages")
        _drain(receiver, expected, drain_s)
        receiver.tell("end")
        received = receiver.hear()
        latencies = array("q")
        latencies.frombytes(receiver.hear())
    result = _result(load, subs, offered, received, expected)
    result |= _latencies(latencies)
    result["cpu"] = _cpu(after.since(before), after_s - before_s, parts)
    result["cpu_total"] = round(sum(result["cpu"].values()), 3)
    return result


def _drain(receiver: Worker, expected: int, drain_s: float) -> None:
    until_s = time.monotonic() + drain_s
    while time.monotonic() < until_s:
        receiver.tell("count")
        if receiver.hear() >= expected:
            return
        time.sleep(_LOOK_EVERY_S)


def _expected(sent: int, channels: int, subs: int) -> int:
    """Return how many deliveries there must be, all subscribers together."""
    in_channel = [len(range(channel, sent, channels)) for channel in range(channels)]
    return sum(in_channel[each % channels] for each in range(subs))


def _result(
    load: Load, subs: int, offered: Mapping[str, Any], received: Mapping[str, Any], expected: int
) -> dict[str, Any]:
    return {
        "rate": load.rate,
        "secs": round(load.secs - load.warmup_s, 3),
        "warmup_s": load.warmup_s,
        "size": load.size,
        "channels": len(load.channels),
        "subs": subs,
        "sent": offered["sent"],
        "producer_error": offered["error"],
        "producer_late_p99_ms": offered["lag_p99_ms"],
        "expected": expected,
        "delivered": received["delivered"],
        "lost": expected - received["delivered"],
        "repeated": received["repeated"],
        "out_of_order": received["disordered"],
        "strange": received["strange"],
        "bench_cpu_s": round(offered["cpu_s"] + received["cpu_s"], 2),
    }


def _latencies(latencies: "array[int]") -> dict[str, Any]:
    ordered = array("q", sorted(latencies))
    mean = sum(ordered) / len(ordered) / 1e6 if ordered else None
    return {
        "measured": len(ordered),
        "mean_ms": round(mean, 3) if mean is not None else None,
        "p50_ms": quantile(ordered, 0.50),
        "p99_ms": quantile(ordered, 0.99),
        "max_ms": quantile(ordered, 1.0),
    }


def _cpu(
    used: Mapping[int, float], wall_s: float, parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    cores: dict[str, float] = {}
    for pid, seconds in used.items():
        name = name_of(pid, parts)
        cores[name] = cores.get(name, 0.0) + seconds / wall_s
    ordered = sorted(cores.items(), key=lambda item: -item[1])
    return {name: round(value, 3) for name, value in ordered}


def _sleep_until(at_ns: int) -> None:
    time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
