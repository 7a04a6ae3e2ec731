"""Numbers of all parts as Prometheus text."""

import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from actors.metrics import BOUNDS_S, Numbers, labelled
from serve.edge.prometheus import render
from serve.edge.prometheus_names import NAMES


def parse(text: bytes) -> dict[str, dict[tuple[str, str], float]]:
    """Return sample name -> (part, le) -> value."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.labels.get("part", ""), sample.labels.get("le", ""))
            found.setdefault(sample.name, {})[key] = sample.value
    return found


def numbers(kind: str) -> dict[str, Any]:
    made = Numbers(kind, wall=lambda: 100.0)
    made.count("batches", 3)
    made.gauge("odd one", 2)
    made.latency("commit").record(0.01, 4)
    made.latency("commit").record(1000.0)
    return made.snapshot()


def test_every_number_has_a_sample() -> None:
    """Counters, gauges and latencies, by part, with help and type."""
    text = render({"publisher:0": numbers("publisher")}, {}, {}, clock=lambda: 101.0)

    found = parse(text)
    assert found["raywire_batches_committed_total"] == {("publisher:0", ""): 3}
    assert found["raywire_publisher_odd_one"] == {("publisher:0", ""): 2}
    assert found["raywire_commit_seconds_count"] == {("publisher:0", ""): 5}
    assert found["raywire_resident_memory_bytes"][("publisher:0", "")] > 0
    assert b"# TYPE raywire_commit_seconds histogram" in text
    assert b"# HELP raywire_batches_committed_total Batches committed." in text


def test_buckets_are_cumulative_up_to_infinity() -> None:
    """The last bucket counts what took longer than every bound."""
    found = parse(render({"p:0": numbers("publisher")}, {}, {}, clock=lambda: 101.0))

    buckets = found["raywire_commit_seconds_bucket"]
    assert len(buckets) == len(BOUNDS_S) + 1
    assert buckets["p:0", "+Inf"] == 5
    assert max(v for (_, le), v in buckets.items() if le != "+Inf") == 4


def test_transformers_carry_their_stage() -> None:
    """`transformer:STAGE:NUMBER` has the label stage; other parts have none."""
    parts = {"transformer:clean:0": numbers("transformer"), "nozzle:0": numbers("nozzle")}

    text = render(parts, {}, {}, clock=lambda: 101.0).decode()

    labels = 'kind="transformer",part="transformer:clean:0",stage="clean"'
    assert f"raywire_batches_transformed_total{{{labels}}} 3.0" in text
    assert 'raywire_batches_read_total{kind="nozzle",part="nozzle:0",stage=""} 3.0' in text


def test_names_follow_the_conventions() -> None:
    """Base units, each name once, and all of them in docs/metrics.md."""
    names = [name for kind in NAMES.values() for name in kind.values()]
    document = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()

    assert len({name.name for name in names}) == len(names)
    for name, text in names:
        assert re.fullmatch(r"[a-z][a-z_]*", name)
        assert not name.endswith(("_s", "_ms", "_total"))
        assert f"`{name}`" in document
        assert text.endswith(".")


def test_labels_of_a_name_are_labels_of_its_samples() -> None:
    """Numbers with the same beginning are one family, beside others whose names begin so."""
    made = Numbers("edge", wall=lambda: 100.0)
    for function in ("rpc", "connect"):
        made.count(labelled("authorise_calls", function=function, outcome="allowed"), 2)
        made.latency(labelled("authorise", function=function)).record(0.01)
    made.count("authorise_calls_made", 5)
    text = render({"edge:a": made.snapshot()}, {}, {}, clock=lambda: 101.0).decode()

    where = 'kind="edge"'
    for function in ("rpc", "connect"):
        labels = f'function="{function}",{where},outcome="allowed",part="edge:a",stage=""'
        assert f"raywire_authorise_calls_total{{{labels}}} 2.0" in text
        labels = f'function="{function}",{where},part="edge:a",stage=""'
        assert f"raywire_authorise_seconds_count{{{labels}}} 1.0" in text
    assert f'raywire_edge_authorise_calls_made_total{{{where},part="edge:a",stage=""}} 5.0' in text
    assert text.count("# TYPE raywire_authorise_calls_total counter") == 1
    assert text.count("# TYPE raywire_authorise_seconds histogram") == 1


def test_silent_parts_are_left_out() -> None:
    """A part that has not written for ten seconds has no samples."""
    text = render({"nozzle:0": numbers("nozzle")}, {}, {}, clock=lambda: 111.0)

    assert b"nozzle:0" not in text


def test_what_partitions_hold_is_told_of_each() -> None:
    """What waits in their queues, and the dead letters that they keep."""
    text = render({}, {0: 5, 1: 0}, {0: 0, 1: 7}).decode()

    assert 'raywire_partition_queue_length{partition="0"} 5.0' in text
    assert 'raywire_partition_queue_length{partition="1"} 0.0' in text
    assert 'raywire_partition_dead_letters{partition="0"} 0.0' in text
    assert 'raywire_partition_dead_letters{partition="1"} 7.0' in text
