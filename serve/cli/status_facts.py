"""What `raywire status` tells: the numbers of all parts, put together. No I/O."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

SILENT_AFTER_S: Final = 5.0
"""A part that has written nothing for so long is shown as silent."""

GOOD_STATES: Final = frozenset({"alive", "running", "ready"})
"""What an actor that works is called."""

Stats = Mapping[str, Mapping[str, Any]]


class Stage(msgspec.Struct, frozen=True):
    """One step of a message's way, over all parts that do it.

    Attributes:
        name: Of the step.
        per_s: Messages per second, all parts together.
        mean_ms, p50_ms, p99_ms: Of the slowest part; None: nothing went through lately.
        dropped, dead, retries: Since the parts began.
    """

    name: str
    per_s: float
    mean_ms: float | None
    p50_ms: float | None
    p99_ms: float | None
    dropped: int = 0
    dead: int = 0
    retries: int = 0


class Actor(msgspec.Struct, frozen=True):
    """One process of the pipeline; `cpu` in cores, over the last seconds."""

    name: str
    state: str
    restarts: int = 0
    node: str = ""
    pid: int | None = None
    cpu: float | None = None
    rss_mb: float | None = None
    seen_s: float | None = None


class Edge(msgspec.Struct, frozen=True):
    """One edge."""

    name: str
    state: str
    connections: int
    subscriptions: int
    channels: int
    delivered_per_s: float
    published_per_s: float
    node: str
    pid: int
    cpu: float
    rss_mb: float
    seen_s: float


class Status(msgspec.Struct, frozen=True):
    """Everything.

    Attributes:
        at_s: When, in seconds since the epoch.
        app: Of the system.
        alive: Whether any part has written its numbers lately.
        queue: Entries that are not applied yet.
        queues: The same by partition.
        dead_letters: How many are kept.
        stages: In the order of a message's way; the last is the whole way.
        actors: Of the pipeline.
        edges: All of them.
    """

    at_s: float
    app: str
    alive: bool
    queue: int
    queues: dict[int, int]
    stages: list[Stage]
    actors: list[Actor]
    edges: list[Edge]
    dead_letters: int = 0


def summarize(
    stats: Stats, queues: Mapping[int, int], *, app: str, now_s: float, dead_letters: int = 0
) -> Status:
    """Put together what the parts have written.

    Args:
        stats: Part -> its numbers (docs/metrics.md).
        queues: Partition -> entries that are not applied yet.
        app: Of the system.
        now_s: Seconds since the epoch.
        dead_letters: How many are kept.
    """
    fresh = {part: numbers for part, numbers in stats.items() if _age_s(numbers, now_s) is not None}
    return Status(
        at_s=now_s,
        app=app,
        alive=any(not _is_silent(numbers, now_s) for numbers in fresh.values()),
        queue=sum(queues.values()),
        queues=dict(queues),
        stages=_stages({p: n for p, n in fresh.items() if not _is_silent(n, now_s)}),
        actors=_actors(fresh, now_s),
        edges=[
            _edge(part, numbers, now_s) for part, numbers in _of_kind(fresh, "edge", by_name=True)
        ],
        dead_letters=dead_letters,
    )


def _stages(stats: Stats) -> list[Stage]:
    nozzles = [numbers for _, numbers in _of_kind(stats, "nozzle")]
    publishers = [numbers for _, numbers in _of_kind(stats, "publisher")]
    edges = [numbers for _, numbers in _of_kind(stats, "edge")]
    transformers: dict[str, list[Mapping[str, Any]]] = {}
    for part, numbers in _of_kind(stats, "transformer"):
        # transformer:<stage>:<number>
        transformers.setdefault(part.split(":")[1] if ":" in part else part, []).append(numbers)
    return [
        _stage("queue wait", nozzles, rate="entries", latency="queue"),
        *(
            _stage(name, numbers, rate="in", latency="transform")
            for name, numbers in transformers.items()
        ),
        _stage("commit", publishers, rate="publications", latency="commit"),
        _stage("read to commit", nozzles, rate="entries", latency="pipeline"),
        _stage("end to end", edges, rate="delivered", latency="end_to_end"),
    ]


def _stage(name: str, parts: Iterable[Mapping[str, Any]], *, rate: str, latency: str) -> Stage:
    parts = list(parts)
    latencies = [numbers.get("latencies", {}).get(latency, {}) for numbers in parts]
    counters = [numbers.get("counters", {}) for numbers in parts]
    return Stage(
        name=name,
        per_s=sum(numbers.get("rates", {}).get(rate, 0.0) for numbers in parts),
        mean_ms=_worst_ms(latencies, "mean_s"),
        p50_ms=_worst_ms(latencies, "p50_s"),
        p99_ms=_worst_ms(latencies, "p99_s"),
        dropped=sum(each.get("dropped", 0) for each in counters),
        dead=sum(each.get("dead", 0) for each in counters),
        retries=sum(each.get("retries", 0) for each in counters),
    )


def _worst_ms(latencies: Iterable[Mapping[str, Any]], name: str) -> float | None:
    # Percentiles of several parts cannot be merged; the worst is what a user may meet.
    known = [each[name] for each in latencies if each.get(name) is not None]
    return max(known) * 1000 if known else None


def _actors(stats: Stats, now_s: float) -> list[Actor]:
    """List what the supervisor knows, with the numbers that the actors wrote themselves."""
    actors: dict[str, Actor] = {}
    supervisors = _of_kind(stats, "supervisor")
    for _, supervisor in supervisors:
        for known in supervisor.get("actors", []):
            name = str(known.get("name", "?"))
            actors[name] = Actor(
                name=name,
                state=str(known.get("state", "?")),
                restarts=int(known.get("restarts") or 0),
                node=str(known.get("node") or ""),
                pid=known.get("pid"),
            )
    for part, numbers in sorted(stats.items(), key=lambda item: _way(item[0], item[1])):
        if numbers.get("kind") == "edge":
            continue
        actor = actors.get(part, Actor(name=part, state="alive"))
        silent = _is_silent(numbers, now_s) and actor.state.lower() in GOOD_STATES
        actors[part] = msgspec.structs.replace(
            actor,
            state="silent" if silent else actor.state,
            node=actor.node or str(numbers.get("node", "")),
            pid=actor.pid if actor.pid is not None else numbers.get("pid"),
            cpu=float(numbers.get("cpu", 0.0)),
            rss_mb=numbers.get("rss_bytes", 0) / 1e6,
            seen_s=_age_s(numbers, now_s),
        )
    return list(actors.values())


def _edge(part: str, numbers: Mapping[str, Any], now_s: float) -> Edge:
    gauges, rates = numbers.get("gauges", {}), numbers.get("rates", {})
    return Edge(
        name=part.removeprefix("edge:"),
        state="silent" if _is_silent(numbers, now_s) else "alive",
        connections=int(gauges.get("num_clients", 0)),
        subscriptions=int(gauges.get("num_subs", 0)),
        channels=int(gauges.get("num_channels", 0)),
        delivered_per_s=float(rates.get("delivered", 0.0)),
        published_per_s=float(rates.get("api_publishes", 0.0)),
        node=str(numbers.get("node", "")),
        pid=int(numbers.get("pid", 0)),
        cpu=float(numbers.get("cpu", 0.0)),
        rss_mb=numbers.get("rss_bytes", 0) / 1e6,
        seen_s=_age_s(numbers, now_s) or 0.0,
    )


def _of_kind(
    stats: Stats, kind: str, *, by_name: bool = False
) -> list[tuple[str, Mapping[str, Any]]]:
    found = [(part, numbers) for part, numbers in stats.items() if numbers.get("kind") == kind]
    return sorted(found) if by_name else found


def _way(part: str, numbers: Mapping[str, Any]) -> tuple[int, str]:
    """Order parts along the way of a message."""
    kinds = ("supervisor", "nozzle", "transformer", "publisher", "edge")
    kind = numbers.get("kind")
    return kinds.index(kind) if kind in kinds else len(kinds), part


def _age_s(numbers: Mapping[str, Any], now_s: float) -> float | None:
    at_s = numbers.get("at_s")
    # Clocks of machines differ a little: what comes from the future is now.
    return max(0.0, now_s - at_s) if isinstance(at_s, int | float) else None


def _is_silent(numbers: Mapping[str, Any], now_s: float) -> bool:
    age_s = _age_s(numbers, now_s)
    return age_s is None or age_s > SILENT_AFTER_S
