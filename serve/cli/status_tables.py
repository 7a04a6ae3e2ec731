"""`raywire status` on a terminal: four tables."""

import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serve.cli.status_facts import GOOD_STATES, Actor, Edge, Stage, Status


def render(status: Status, note: str = "") -> RenderableType:
    """Draw a status.

    Args:
        status: What is known.
        note: What the user should know besides, e.g. that the server is away.
    """
    at = time.strftime("%H:%M:%S", time.localtime(status.at_s))
    head = Text.assemble((status.app, "bold"), f"  {at}  queue ", (f"{status.queue:,}", "bold"))
    if len(status.queues) > 1 and status.queue:
        parts = (f"{p}:{length:,}" for p, length in sorted(status.queues.items()) if length)
        head.append(f"  ({'  '.join(parts)})", "dim")
    if status.dead_letters:
        head.append(f"  dead letters {status.dead_letters:,}", "yellow")
    if note:
        head.append(f"\n{note}", "yellow")
    return Group(head, _stages(status.stages), _actors(status.actors), _edges(status.edges))


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1))
    # Not `no_wrap`: where the terminal is narrow, names are cut before numbers are.
    table.add_column(first, style="cyan")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _stages(stages: list[Stage]) -> Table:
    table = _table(
        "Stages", "stage", "msg/s", "mean ms", "p50 ms", "p99 ms", "dropped", "dead", "retries"
    )
    for stage in stages:
        table.add_row(
            _name(stage.name),
            f"{stage.per_s:,.0f}",
            _ms(stage.mean_ms),
            _ms(stage.p50_ms),
            _ms(stage.p99_ms),
            _count(stage.dropped),
            _count(stage.dead),
            _count(stage.retries),
        )
    return table


def _actors(actors: list[Actor]) -> Table:
    table = _table(
        "Actors", "actor", "state", "restarts", "node", "pid", "cpu", "rss\nMB", "seen\ns ago"
    )
    for actor in actors:
        table.add_row(
            _name(actor.name),
            _state(actor.state),
            _count(actor.restarts),
            Text(actor.node),
            str(actor.pid or "-"),
            "-" if actor.cpu is None else f"{actor.cpu:.2f}",
            "-" if actor.rss_mb is None else f"{actor.rss_mb:,.0f}",
            "-" if actor.seen_s is None else f"{actor.seen_s:.0f}",
        )
    return table


def _edges(edges: list[Edge]) -> Table:
    table = _table(
        "Edges", "edge", "state", "clients", "subs", "channels", "sent\nper s", "posts\nper s",
        "pid", "cpu", "rss\nMB", "seen\ns ago",
    )  # fmt: skip
    for edge in edges:
        table.add_row(
            _name(edge.name),
            _state(edge.state),
            f"{edge.connections:,}",
            f"{edge.subscriptions:,}",
            f"{edge.channels:,}",
            f"{edge.delivered_per_s:,.0f}",
            f"{edge.published_per_s:,.0f}",
            str(edge.pid or "-"),
            f"{edge.cpu:.2f}",
            f"{edge.rss_mb:,.0f}",
            f"{edge.seen_s:.0f}",
        )
    return table


def _name(name: str) -> Text:
    return Text(name, no_wrap=True, overflow="ellipsis")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _count(value: int) -> str:
    return f"{value:,}" if value else "-"


def _state(state: str) -> Text:
    return Text(state, "green" if state.lower() in GOOD_STATES else "red")
