"""How dead letters look: a table or a page on a terminal, JSON lines in a pipe."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve.cli.output import out, printable
from serve.dead.facts import Facts, Summary

TABLE_MAX: Final = 100
"""Letters in a table, unless another number was asked for."""

_encode: Final = msgspec.json.Encoder().encode


def print_json_line(facts: Facts) -> None:
    """Print a letter as one line of JSON; the data's text is passed on as it came."""
    sys.stdout.write(_encode(facts).decode() + "\n")
    sys.stdout.flush()


def print_table(letters: Sequence[Summary], console: Console | None = None) -> None:
    """Print when each letter died, its id, channel, stage and error."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("died", style="dim", no_wrap=True)
    # What is to be copied to another command must be whole.
    table.add_column("id", style="cyan", no_wrap=True, min_width=max(len(x.id) for x in letters))
    table.add_column("channel", overflow="fold")
    table.add_column("stage", overflow="fold")
    table.add_column("error", overflow="fold")
    for letter in letters:
        table.add_row(
            _when(letter.died_at_s),
            Text(letter.id),
            Text(printable(letter.channel)),
            Text(printable(letter.stage)),
            Text(printable(letter.error), "red"),
        )
    (console or out()).print(table)


def print_details(facts: Facts, console: Console | None = None) -> None:
    """Print everything about a letter; data is indented where it is JSON."""
    screen = console or out()
    for name, value in _lines(facts):
        screen.print(Text.assemble((f"{name:<10}", "bold"), value), soft_wrap=True)
    for title, text in (("data", _data(facts)), ("traceback", facts.traceback)):
        if text:
            screen.print(Text(f"\n{title}", "bold"))
            screen.print(Text("\n".join(map(printable, text.splitlines()))), soft_wrap=True)


def _lines(facts: Facts) -> list[tuple[str, str]]:
    rest = {}
    if isinstance(facts.meta, dict):
        rest = {k: v for k, v in facts.meta.items() if k not in {"tags", "info"}}
    lines: list[tuple[str, Any]] = [
        ("id", facts.id),
        ("channel", facts.channel),
        ("stage", facts.stage),
        ("error", facts.error),
        ("attempts", str(facts.attempts)),
        ("queued", f"{_when(facts.queued_at_s)}  (entry {facts.entry})"),
        ("died", _when(facts.died_at_s)),
        ("tags", " ".join(f"{key}={value}" for key, value in facts.tags.items())),
        ("info", json.dumps(facts.info, ensure_ascii=False) if facts.info is not None else ""),
        ("meta", json.dumps(rest, ensure_ascii=False) if rest else ""),
        ("meta", facts.meta if isinstance(facts.meta, str) else ""),
        ("replay", f"cannot be: {facts.obstacle}" if facts.obstacle else ""),
    ]
    return [(name, printable(value)) for name, value in lines if value]


def _data(facts: Facts) -> str:
    text = bytes(facts.data)
    if facts.is_json:
        return msgspec.json.format(text).decode()
    plain: str = msgspec.json.decode(text)
    return f"(not JSON) {plain}"


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s)) if at_s else "unknown"
