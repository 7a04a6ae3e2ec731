"""How commands speak: tables and colour on a terminal, JSON in a pipe, errors on stderr."""

import enum
import json
import re
import sys
from typing import Any, Final

from rich.console import Console

# JSON escapes C0 only: the rest of what moves a cursor or turns text round is escaped here.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Exit(enum.IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FAILED = 1
    """A bug: the traceback is on stderr. Or the result could not be written, which stderr says."""
    SETTINGS = 2
    """The settings or the command line are wrong: change them."""
    UNAVAILABLE = 3
    """Something cannot be reached, or is not ready: try again later."""
    MESSAGE = 4
    """A message cannot be accepted: do not send it again as it is."""
    INTERRUPTED = 130
    """Ctrl-C. 128 + SIGINT, as shells have it."""


def out() -> Console:
    """Return a console for results, on stdout. Rich obeys NO_COLOR and drops colour in a pipe."""
    return Console(highlight=False, emoji=False)


def err() -> Console:
    """Return a console for everything else, on stderr, so that a pipe gets results only."""
    return Console(stderr=True, highlight=False, emoji=False)


def wants_json(*, asked: bool) -> bool:
    """Say whether to print JSON: it was asked for, or stdout is not a terminal."""
    return asked or not sys.stdout.isatty()


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON, on one line unless `indent` is given."""
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Print text on stdout as it stands: nothing is wrapped, and no markup is read."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """Return one line whose control characters are shown by a terminal, not obeyed."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def print_error(text: str) -> None:
    """Print each line of an error on stderr, the word `error` in red on a terminal."""
    console = err()
    for line in text.splitlines() or ["no further detail"]:
        console.print("[bold red]error[/]: ", end="")
        console.print(line, markup=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """Print a warning on stderr."""
    console = err()
    console.print("[yellow]warning[/]: ", end="")
    console.print(text, markup=False, soft_wrap=True)
