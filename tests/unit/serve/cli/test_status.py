"""`raywire status`: what the parts have written, put together."""

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from actors.metrics import Numbers
from serve.cli.status_facts import Stats, Status, summarize
from serve.cli.status_tables import render

_NOW_S = 1000.0


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _part(kind: str, *, at_s: float = _NOW_S, **members: Any) -> dict[str, Any]:
    """Numbers as a part of that kind would have written them, with some members replaced."""
    numbers = Numbers(kind, wall=lambda: at_s)
    return numbers.snapshot() | {"node": "here", "pid": 7, "cpu": 0.25} | members


def _latency(p99_s: float | None) -> dict[str, Any]:
    return {"mean_s": p99_s, "p50_s": p99_s, "p99_s": p99_s}


def _summarize(stats: Stats) -> Status:
    return summarize(stats, {0: 3, 1: 4}, app="raywire", now_s=_NOW_S, dead_letters=12)


def test_stages_stand_in_the_order_of_a_messages_way() -> None:
    """Rates add up over parts of a kind; of latencies the worst counts."""
    nozzle = Numbers("nozzle", clock=(clock := _Clock()), wall=lambda: _NOW_S)
    nozzle.count("entries", 500)
    nozzle.latency("queue").record(0.002, 500)
    clock.now_s = 5.0
    status = _summarize(
        {
            "edge:a": _part("edge", latencies={"end_to_end": _latency(0.02)}),
            "publisher:0": _part("publisher", rates={"publications": 90.0}, counters={"dead": 2}),
            "transformer:clean:0": _part(
                "transformer", rates={"in": 60.0}, latencies={"transform": _latency(0.001)}
            ),
            "transformer:clean:1": _part(
                "transformer",
                rates={"in": 40.0},
                counters={"dropped": 5, "retries": 1},
                latencies={"transform": _latency(0.003)},
            ),
            "nozzle:0": nozzle.snapshot(),
        }
    )

    by_name = {stage.name: stage for stage in status.stages}
    assert list(by_name) == ["queue wait", "clean", "commit", "read to commit", "end to end"]
    assert by_name["queue wait"].per_s == pytest.approx(100)
    assert by_name["queue wait"].p50_ms == pytest.approx(2, rel=0.3)
    assert by_name["clean"].per_s == 100
    assert by_name["clean"].p99_ms == 3
    assert by_name["clean"].dropped == 5
    assert by_name["commit"].dead == 2
    assert by_name["commit"].p99_ms is None
    assert by_name["end to end"].p99_ms == 20


def test_queue_is_given_in_total_and_by_partition() -> None:
    """Both are needed: for whether it keeps up, and for where it does not."""
    status = _summarize({})
    assert status.queue == 7
    assert status.queues == {0: 3, 1: 4}


def test_a_part_that_wrote_nothing_for_five_seconds_is_silent() -> None:
    """Its last numbers are no longer true: they do not count in the rates."""
    status = _summarize(
        {
            "nozzle:0": _part("nozzle", at_s=_NOW_S - 6, rates={"entries": 99.0}),
            "edge:a": _part("edge", at_s=_NOW_S - 6),
            "edge:b": _part("edge", at_s=_NOW_S - 4),
        }
    )
    assert [actor.state for actor in status.actors] == ["silent"]
    assert [(edge.name, edge.state) for edge in status.edges] == [("a", "silent"), ("b", "alive")]
    assert status.stages[0].per_s == 0
    assert status.alive


def test_a_system_of_silent_parts_does_not_run() -> None:
    """What a crash has left behind is no sign of life."""
    assert not _summarize({"nozzle:0": _part("nozzle", at_s=_NOW_S - 60)}).alive
    assert not _summarize({}).alive


def test_actors_are_what_the_supervisor_knows_with_their_own_numbers() -> None:
    """An actor that is being restarted has no numbers, and is shown all the same."""
    known = [
        {"name": "nozzle:0", "state": "ready", "restarts": 2, "pid": 7},
        {"name": "publisher:0", "state": "restarting", "restarts": 1, "pid": None},
    ]
    status = _summarize(
        {
            "supervisor": _part("supervisor", actors=known),
            "nozzle:0": _part("nozzle", rss_bytes=5_000_000),
        }
    )
    actors = {actor.name: actor for actor in status.actors}
    assert actors["nozzle:0"].restarts == 2
    assert actors["nozzle:0"].cpu == 0.25
    assert actors["nozzle:0"].rss_mb == 5
    assert actors["publisher:0"].state == "restarting"
    assert actors["publisher:0"].cpu is None
    assert "supervisor" in actors


def test_an_actor_that_is_ready_but_writes_nothing_is_silent() -> None:
    """The supervisor's word is older than the silence."""
    known = [{"name": "nozzle:0", "state": "ready", "restarts": 0}]
    status = _summarize(
        {
            "supervisor": _part("supervisor", actors=known),
            "nozzle:0": _part("nozzle", at_s=_NOW_S - 20),
        }
    )
    assert {actor.name: actor.state for actor in status.actors}["nozzle:0"] == "silent"


def test_numbers_that_are_damaged_or_empty_do_no_harm() -> None:
    """Another version may have written them."""
    status = _summarize({"odd": {}, "nozzle:0": {"kind": "nozzle", "at_s": _NOW_S}})
    assert [actor.name for actor in status.actors] == ["nozzle:0"]


def test_status_is_json_and_draws() -> None:
    """The same facts in a pipe and on a terminal; names are not read as markup or emoji."""
    status = _summarize(
        {
            "transformer:m:0": _part("transformer", rates={"in": 1234.5}),
            "edge:[red]": _part("edge", gauges={"num_clients": 12, "num_subs": 34}),
        }
    )
    as_json = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(status, str_keys=True)))
    assert as_json["queues"] == {"0": 3, "1": 4}
    assert as_json["edges"][0]["connections"] == 12

    out = io.StringIO()
    Console(file=out, width=200).print(render(status, "all parts are silent"))
    text = out.getvalue()
    assert as_json["dead_letters"] == 12
    for expected in ("transformer:m:0", "1,234", "[red]", "queue 7", "all parts are silent"):
        assert expected in text
    assert "dead letters 12" in text


def test_narrow_terminal_cuts_names_before_numbers() -> None:
    """A part's name can be guessed from its beginning, a number cannot."""
    gauges = {"num_clients": 12345, "num_subs": 67890}
    status = _summarize({f"edge:{'ab' * 8}": _part("edge", gauges=gauges)})
    out = io.StringIO()
    Console(file=out, width=80).print(render(status))
    assert "12,345" in out.getvalue()
    assert "67,890" in out.getvalue()
    assert "seen" in out.getvalue()
