"""The numbers of one part: counters, gauges and latencies, and the thread that reports them.

Recording is a dictionary look-up and an addition; all arithmetic (rates, percentiles) is done when
a snapshot is taken, once a second. docs/metrics.md names every number.
"""

import logging
import os
import resource
import socket
import sys
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol

import msgspec

from actors.errors import UnavailableError

log = logging.getLogger(__name__)

BOUNDS_S: Final = tuple(round(1e-4 * 10 ** (step / 8), 9) for step in range(49))
"""Upper bounds of the latency buckets, 0.1 ms to 100 s, eight to a decade."""

WINDOW_S: Final = 10.0
"""Rates and percentiles cover about this much of the past."""

_SAMPLE_EVERY_S: Final = 0.5
_PAGE_BYTES: Final = resource.getpagesize()


def labelled(name: str, **labels: str) -> str:
    """Return the name of a number that is one of several, told apart by labels.

    Names with the same beginning have the same labels, in the same order.
    """
    return f"{name}{{{','.join(f'{label}={value}' for label, value in labels.items())}}}"


def split_labels(name: str) -> tuple[str, dict[str, str]]:
    """Return the beginning of a name, and its labels, if it has any."""
    beginning, _, rest = name.partition("{")
    return beginning, dict(pair.split("=", 1) for pair in rest.removesuffix("}").split(",") if pair)


class Latency:
    """How long something took: counts in fixed buckets."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """Not cumulative; the last is for what took longer than every bound."""
        self.sum_s = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Count `count` events that took `seconds` each; less than zero (clocks differ) is zero."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += count
        if seconds > 0:
            self.sum_s += seconds * count


class _Sample(msgspec.Struct, frozen=True):
    """The totals at one moment."""

    taken_s: float
    cpu_s: float
    counters: dict[str, int]
    latencies: dict[str, tuple[list[int], float]]


class Numbers:
    """The numbers of one part.

    One thread may write while another takes snapshots: a snapshot may miss what is being recorded
    at that moment, the next one has it.
    """

    def __init__(
        self,
        kind: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._kind = kind
        self._clock = clock
        self._wall = wall
        self._node = socket.gethostname()
        self._counters: dict[str, int] = {}
        self._gauges: dict[str, float] = {}
        self._latencies: dict[str, Latency] = {}
        self._notes: dict[str, Any] = {}
        self._samples = deque([_Sample(clock(), time.process_time(), {}, {})])

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter; 0 makes it appear."""
        self._counters[name] = self._counters.get(name, 0) + n

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._gauges[name] = value

    def latency(self, name: str) -> Latency:
        """Return the latency of that name, made on first use. Keep it: a look-up less each time."""
        latency = self._latencies.get(name)
        if latency is None:
            latency = self._latencies[name] = Latency()
        return latency

    def note(self, key: str, value: Any) -> None:
        """Put another member into the snapshot, as the supervisor does with `actors`."""
        self._notes[key] = value

    def snapshot(self) -> dict[str, Any]:
        """Return all numbers as JSON values; the shape is in docs/metrics.md.

        Percentiles and mean are None where nothing was recorded within the window.
        """
        now = _Sample(
            self._clock(),
            time.process_time(),
            dict(self._counters),
            {
                name: (list(latency.counts), latency.sum_s)
                for name, latency in list(self._latencies.items())
            },
        )
        base = self._base(now)
        span_s = now.taken_s - base.taken_s
        return {
            "at_s": self._wall(),
            "kind": self._kind,
            "pid": os.getpid(),
            "node": self._node,
            "cpu_s": now.cpu_s,
            "cpu": (now.cpu_s - base.cpu_s) / span_s if span_s > 0 else 0.0,
            "rss_bytes": rss_bytes(),
            "counters": now.counters,
            "rates": {
                name: (total - base.counters.get(name, 0)) / span_s if span_s > 0 else 0.0
                for name, total in now.counters.items()
            },
            "gauges": dict(self._gauges),
            "latencies": {
                name: _describe(counts, sum_s, *base.latencies.get(name, ([0] * len(counts), 0.0)))
                for name, (counts, sum_s) in now.latencies.items()
            },
            **self._notes,
        }

    def _base(self, now: _Sample) -> _Sample:
        """Remember `now` and return the sample that begins the window."""
        samples = self._samples
        while len(samples) > 1 and samples[1].taken_s <= now.taken_s - WINDOW_S:
            samples.popleft()
        base = samples[0]
        if now.taken_s - samples[-1].taken_s >= _SAMPLE_EVERY_S:
            samples.append(now)
        return base


def _describe(
    counts: list[int], sum_s: float, base_counts: list[int], base_sum_s: float
) -> dict[str, Any]:
    """Return the shape of one latency: totals since the start, percentiles since the base."""
    cumulative = list(accumulate(counts))
    recent = [count - before for count, before in zip(counts, base_counts, strict=True)]
    recent_count = sum(recent)
    return {
        "count": cumulative[-1],
        "sum_s": sum_s,
        "buckets": cumulative[:-1],
        "p50_s": percentile(recent, 0.50),
        "p99_s": percentile(recent, 0.99),
        "mean_s": (sum_s - base_sum_s) / recent_count if recent_count else None,
    }


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return the latency that `share` (0 to 1) of the events did not exceed, in seconds.

    Interpolated within the bucket; what took longer than every bound counts as the last bound.

    Args:
        counts: Events in each bucket, not cumulative, with the one above `BOUNDS_S` last.
        share: 0.5 for the median.
    """
    total = sum(counts)
    if total == 0:
        return None
    wanted = share * total
    below = 0
    for bucket, count in enumerate(counts[:-1]):
        if count and below + count >= wanted:
            low = BOUNDS_S[bucket - 1] if bucket else 0.0
            return low + (BOUNDS_S[bucket] - low) * (wanted - below) / count
        below += count
    return BOUNDS_S[-1]


def rss_bytes() -> int:
    """Return the memory of this process: resident now on Linux, the highest so far elsewhere."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        # KiB by getrusage(2) of the BSDs, bytes by that of macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Writer(Protocol):
    """What a reporter needs: a `StatsWriter` of `actors.store.interface`, which is above this."""

    def write_stats(self, part: str, numbers: Mapping[str, Any]) -> None:
        """Replace the numbers of one part."""
        ...

    def remove_stats(self, part: str) -> None:
        """Forget a part that has ended."""
        ...


class Reporter:
    """Writes a part's snapshot once a second, from a daemon thread of its own.

    While the server is away it goes on quietly, less and less often (up to `retry_max_s`). Only
    that thread uses the writer.
    """

    def __init__(
        self,
        writer: Writer,
        part: str,
        numbers: Numbers,
        *,
        every_s: float = 1.0,
        retry_max_s: float = 8.0,
    ) -> None:
        self._writer = writer
        self._part = part
        self._numbers = numbers
        self._every_s = every_s
        self._retry_max_s = retry_max_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"report {part}", daemon=True)

    def start(self) -> None:
        """Begin; the first snapshot is written at once."""
        self._thread.start()

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """End, and remove the part's numbers if the server can be reached within `timeout_s`."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        wait_s = 0.0
        away_s = 0.0
        while not self._stopped.wait(wait_s):
            away_s = 0.0 if self._write() else min(self._retry_max_s, away_s * 2 or self._every_s)
            wait_s = away_s or self._every_s
        try:
            self._writer.remove_stats(self._part)
        except UnavailableError as error:
            log.debug("numbers not removed", extra={"part": self._part, "why": str(error)})

    def _write(self) -> bool:
        try:
            self._writer.write_stats(self._part, self._numbers.snapshot())
        except UnavailableError as error:
            log.debug("numbers not written", extra={"part": self._part, "why": str(error)})
            return False
        return True
