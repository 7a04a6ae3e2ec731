"""The numbers of all parts as Prometheus text.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from actors.metrics import BOUNDS_S, split_labels
from serve.edge.prometheus_names import NAMES, Name

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_FRESH_S: Final = 10.0
"""A part that has not written its numbers for so long is left out."""

_LABELS: Final = ("part", "kind", "stage")
_BOUNDS: Final = tuple(f"{bound:g}" for bound in BOUNDS_S)
_BAD: Final = re.compile(r"[^a-zA-Z0-9_]")

NO_HELP: Final = "See docs/metrics.md."

_Add = Callable[[Any, list[str], Any], None]


def render(
    stats: Mapping[str, Mapping[str, Any]],
    queue_lengths: Mapping[int, int],
    dead_letters: Mapping[int, int],
    *,
    clock: Callable[[], float] = time.time,
) -> bytes:
    """Return the text.

    Args:
        stats: Part -> its numbers; actors/metrics.py has the shape.
        queue_lengths: Partition -> entries not applied yet.
        dead_letters: Partition -> dead letters that it keeps.
        clock: Seconds since the epoch.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(stats, queue_lengths, dead_letters, clock()))
    return generate_latest(registry)


class _Numbers(Collector):
    """Makes metric families of numbers read before."""

    def __init__(
        self,
        stats: Mapping[str, Mapping[str, Any]],
        queue_lengths: Mapping[int, int],
        dead_letters: Mapping[int, int],
        now_s: float,
    ) -> None:
        self._parts = {
            part: numbers
            for part, numbers in sorted(stats.items())
            if now_s - numbers.get("at_s", 0.0) < _FRESH_S
        }
        self._queue_lengths = queue_lengths
        self._dead_letters = dead_letters

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are known when there are numbers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return one family for each number that any part has."""
        yield _by_partition(
            "queue_length", "Entries of a partition that are not applied yet.", self._queue_lengths
        )
        yield _by_partition(
            "dead_letters", "Dead letters that a partition keeps.", self._dead_letters
        )
        yield self._process(CounterMetricFamily, "cpu_seconds", "CPU time of the process.", "cpu_s")
        yield self._process(
            GaugeMetricFamily,
            "resident_memory_bytes",
            "Resident memory of the process.",
            "rss_bytes",
        )
        yield from self._families("counters", CounterMetricFamily, _add_value)
        yield from self._families("gauges", GaugeMetricFamily, _add_value)
        yield from self._families("latencies", HistogramMetricFamily, _add_buckets)

    def _process(self, kind: type[Any], name: str, text: str, member: str) -> Metric:
        family: Metric = kind(f"raywire_{name}", text, labels=_LABELS)
        for part, numbers in self._parts.items():
            _add_value(family, _labels(part, numbers), numbers.get(member, 0))
        return family

    def _families(self, group: str, kind: type[Any], add: _Add) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for part, numbers in self._parts.items():
            labels = _labels(part, numbers)
            for member, value in numbers.get(group, {}).items():
                beginning, own = split_labels(member)
                name, text = _name(labels[1], beginning)
                if name not in families:
                    families[name] = kind(f"raywire_{name}", text, labels=(*_LABELS, *own))
                add(families[name], [*labels, *own.values()], value)
        yield from (families[name] for name in sorted(families))


def _by_partition(name: str, text: str, values: Mapping[int, int]) -> Metric:
    family = GaugeMetricFamily(f"raywire_partition_{name}", text, labels=["partition"])
    for partition, value in sorted(values.items()):
        family.add_metric([str(partition)], value)
    return family


def _name(kind: str, member: str) -> Name:
    """Return what a number is called; one that is not in the list keeps its own name."""
    known = NAMES.get(kind, {}).get(member)
    return known or Name(_BAD.sub("_", f"{kind}_{member}"), NO_HELP)


def _labels(part: str, numbers: Mapping[str, Any]) -> list[str]:
    """Return part, kind and stage: a transformer's part is `transformer:STAGE:NUMBER`."""
    kind, _, rest = part.partition(":")
    stage = rest.rpartition(":")[0] if kind == "transformer" else ""
    return [part, str(numbers.get("kind", kind)), stage]


def _add_value(family: Any, labels: list[str], value: Any) -> None:
    family.add_metric(labels, value)


def _add_buckets(family: Any, labels: list[str], value: Any) -> None:
    buckets = [*zip(_BOUNDS, value["buckets"], strict=True), ("+Inf", value["count"])]
    family.add_metric(labels, buckets=buckets, sum_value=value["sum_s"])
