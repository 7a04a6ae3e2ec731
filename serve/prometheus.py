"""The numbers of all parts as Prometheus text.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
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

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_FRESH_S: Final = 10.0
"""A part that has not written its numbers for so long is left out."""

_LABELS: Final = ("part", "kind", "stage")
_BOUNDS: Final = tuple(f"{bound:g}" for bound in BOUNDS_S)
_BAD: Final = re.compile(r"[^a-zA-Z0-9_]")

_HELP: Final = {
    "counters": "Total of {name} since the part started (docs/metrics.md).",
    "gauges": "Present value of {name} (docs/metrics.md).",
    "latencies": "How long {name} took, in seconds (docs/metrics.md).",
}

_Add = Callable[[Any, list[str], Any], None]


def render(
    stats: Mapping[str, Mapping[str, Any]],
    queue_lengths: Mapping[int, int],
    *,
    clock: Callable[[], float] = time.time,
) -> bytes:
    """Return the text.

    Args:
        stats: Part -> its numbers; actors/metrics.py has the shape.
        queue_lengths: Partition -> entries not applied yet.
        clock: Seconds since the epoch.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(stats, queue_lengths, clock()))
    return generate_latest(registry)


class _Numbers(Collector):
    """Makes metric families of numbers read before."""

    def __init__(
        self,
        stats: Mapping[str, Mapping[str, Any]],
        queue_lengths: Mapping[int, int],
        now_s: float,
    ) -> None:
        self._parts = {
            part: numbers
            for part, numbers in sorted(stats.items())
            if now_s - numbers.get("at_s", 0.0) < _FRESH_S
        }
        self._queue_lengths = queue_lengths

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are known when there are numbers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return one family for each number that any part has."""
        yield self._queue()
        yield self._process(CounterMetricFamily, "cpu_seconds", "CPU time of the process.", "cpu_s")
        yield self._process(
            GaugeMetricFamily,
            "resident_memory_bytes",
            "Resident memory of the process.",
            "rss_bytes",
        )
        yield from self._families("counters", CounterMetricFamily, "", _add_value)
        yield from self._families("gauges", GaugeMetricFamily, "", _add_value)
        yield from self._families("latencies", HistogramMetricFamily, "_seconds", _add_buckets)

    def _queue(self) -> Metric:
        family = GaugeMetricFamily(
            "raywire_partition_queue_length", "Entries of a partition that are not applied yet.",
            labels=["partition"],
        )  # fmt: skip
        for partition, length in sorted(self._queue_lengths.items()):
            family.add_metric([str(partition)], length)
        return family

    def _process(self, kind: type[Any], name: str, text: str, member: str) -> Metric:
        family: Metric = kind(f"raywire_{name}", text, labels=_LABELS)
        for part, numbers in self._parts.items():
            _add_value(family, _labels(part, numbers), numbers.get(member, 0))
        return family

    def _families(self, group: str, kind: type[Any], unit: str, add: _Add) -> Iterator[Metric]:
        names = sorted(
            {name for numbers in self._parts.values() for name in numbers.get(group, {})}
        )
        for beginning, members in groupby(names, key=lambda name: split_labels(name)[0]):
            text = _HELP[group].format(name=beginning)
            labelled = [(name, split_labels(name)[1]) for name in members]
            family: Metric = kind(
                f"raywire_{_BAD.sub('_', beginning)}{unit}",
                text,
                labels=(*_LABELS, *labelled[0][1]),
            )
            for name, own in labelled:
                for part, numbers in self._parts.items():
                    value = numbers.get(group, {}).get(name)
                    if value is not None:
                        add(family, [*_labels(part, numbers), *own.values()], value)
            yield family


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
