"""Numbers: totals, rates and percentiles over a sliding window, and their reporter."""

import threading
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from actors.errors import UnavailableError
from actors.metrics import BOUNDS_S, Numbers, Reporter, percentile, rss_bytes


class _Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class _Writer:
    """Keeps what is written; fails as often as told first."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.attempts = 0
        self.parts: dict[str, Mapping[str, Any]] = {}
        self.written = threading.Event()

    def write_stats(self, part: str, numbers: Mapping[str, Any]) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise UnavailableError("away")
        self.parts[part] = numbers
        self.written.set()

    def remove_stats(self, part: str) -> None:
        self.parts.pop(part, None)


def _numbers(clock: _Clock) -> Numbers:
    return Numbers("nozzle", clock=clock, wall=lambda: 5.0)


def test_bounds_grow_by_a_constant_factor_from_a_tenth_of_a_millisecond_to_100_s() -> None:
    """Buckets are log-spaced, so that the relative error is the same everywhere."""
    assert BOUNDS_S[0] == 0.0001
    assert BOUNDS_S[-1] == 100.0
    factors = [high / low for low, high in pairwise(BOUNDS_S)]
    assert factors == pytest.approx([10 ** (1 / 8)] * (len(BOUNDS_S) - 1), rel=1e-4)


def test_snapshot_has_the_agreed_shape() -> None:
    """Every reader of the numbers relies on these members."""
    numbers = _numbers(_Clock())
    numbers.count("entries", 3)
    numbers.gauge("window_used", 2)
    numbers.latency("queue").record(0.001)
    numbers.note("actors", [{"name": "nozzle:0"}])

    snapshot = numbers.snapshot()

    assert snapshot["at_s"] == 5.0
    assert snapshot["kind"] == "nozzle"
    assert snapshot["pid"] > 0
    assert snapshot["node"]
    assert snapshot["cpu_s"] > 0
    assert snapshot["rss_bytes"] > 1_000_000
    assert snapshot["counters"] == {"entries": 3}
    assert snapshot["gauges"] == {"window_used": 2}
    assert snapshot["actors"] == [{"name": "nozzle:0"}]
    assert set(snapshot["latencies"]["queue"]) == {
        "count", "sum_s", "buckets", "p50_s", "p99_s", "mean_s",
    }  # fmt: skip
    assert len(snapshot["latencies"]["queue"]["buckets"]) == len(BOUNDS_S)


def test_rate_covers_the_last_ten_seconds_only() -> None:
    """What happened before the window does not count."""
    clock = _Clock()
    numbers = _numbers(clock)
    numbers.count("entries", 1_000_000)
    for _ in range(30):
        clock.now_s += 1
        numbers.count("entries", 50)
        numbers.snapshot()

    assert numbers.snapshot()["rates"]["entries"] == pytest.approx(50)


def test_rate_of_a_counter_that_rests_falls_to_zero() -> None:
    """A part that does nothing says so within the window."""
    clock = _Clock()
    numbers = _numbers(clock)
    numbers.count("entries", 500)
    for _ in range(12):
        clock.now_s += 1
        numbers.snapshot()

    snapshot = numbers.snapshot()
    assert snapshot["rates"]["entries"] == 0
    assert snapshot["counters"]["entries"] == 500


def test_snapshots_in_quick_succession_leave_the_window_alone() -> None:
    """A second reader of the numbers does not shorten what rates cover."""
    clock = _Clock()
    numbers = _numbers(clock)
    for _ in range(2000):
        clock.now_s += 0.01
        numbers.count("entries")
        numbers.snapshot()

    assert numbers.snapshot()["rates"]["entries"] == pytest.approx(100, rel=0.1)
    assert len(numbers._samples) < 30


def test_percentiles_and_mean_are_close_to_the_truth() -> None:
    """Interpolation in a bucket is off by less than the bucket is wide."""
    numbers = _numbers(_Clock())
    latency = numbers.latency("queue")
    for step in range(1, 1001):
        latency.record(step / 1000)

    described = numbers.snapshot()["latencies"]["queue"]

    assert described["p50_s"] == pytest.approx(0.5, rel=0.05)
    assert described["p99_s"] == pytest.approx(0.99, rel=0.15)
    assert described["mean_s"] == pytest.approx(0.5005)
    assert described["count"] == 1000
    assert described["buckets"][-1] == 1000
    assert described["buckets"] == sorted(described["buckets"])


def test_latencies_of_an_idle_window_are_unknown_not_zero() -> None:
    """No events: no percentile."""
    clock = _Clock()
    numbers = _numbers(clock)
    numbers.latency("queue").record(0.2, 7)
    for _ in range(12):
        clock.now_s += 1
        numbers.snapshot()

    described = numbers.snapshot()["latencies"]["queue"]
    assert described["p50_s"] is None
    assert described["p99_s"] is None
    assert described["mean_s"] is None
    assert described["count"] == 7


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-1.0, 0.00005), (0.0, 0.00005), (1e6, BOUNDS_S[-1])]
)
def test_latencies_outside_the_bounds_are_kept_in_the_outermost_buckets(
    seconds: float, expected: float
) -> None:
    """Clocks of two machines differ; no value may break the recording."""
    numbers = _numbers(_Clock())
    numbers.latency("queue").record(seconds, 2)

    described = numbers.snapshot()["latencies"]["queue"]

    assert described["p50_s"] == pytest.approx(expected)
    assert described["count"] == 2
    assert described["sum_s"] >= 0


def test_percentile_of_a_bound_is_the_bound() -> None:
    """An event exactly at a bound belongs to the bucket below it (`le` of Prometheus)."""
    numbers = _numbers(_Clock())
    numbers.latency("queue").record(BOUNDS_S[8])
    assert numbers.latency("queue").counts[8] == 1
    assert percentile(numbers.latency("queue").counts, 1.0) == BOUNDS_S[8]


def test_reporter_writes_at_once_and_removes_when_stopped() -> None:
    """A part is seen from its start to its orderly end."""
    writer = _Writer()
    reporter = Reporter(writer, "nozzle:0", Numbers("nozzle"))
    reporter.start()
    assert writer.written.wait(5)
    assert writer.parts["nozzle:0"]["kind"] == "nozzle"
    reporter.stop()
    assert writer.parts == {}


def test_reporter_survives_an_absent_server() -> None:
    """Numbers are written again as soon as the server is back."""
    writer = _Writer(failures=3)
    reporter = Reporter(writer, "nozzle:0", Numbers("nozzle"), every_s=0.001, retry_max_s=0.002)
    reporter.start()
    assert writer.written.wait(5)
    reporter.stop()
    assert writer.attempts > 3


def test_reporter_that_never_started_stops() -> None:
    """Stop is safe on a part whose start failed half-way."""
    Reporter(_Writer(), "nozzle:0", Numbers("nozzle")).stop()


def test_memory_of_the_process_is_plausible() -> None:
    """A Python process takes more than a megabyte and less than the address space."""
    assert 1_000_000 < rss_bytes() < 2**44
