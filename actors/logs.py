"""How log lines look: for people on a terminal, one JSON object a line everywhere else.

The event of a line is a constant phrase; its facts come in `extra` and stay machine-readable.
"""

import logging
import sys
import time
from json import dumps
from typing import Any, Final, TextIO

# What every record has; anything else came in by `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Their INFO lines tell of their own life, not of ours.
_QUIET: Final = ("ray", "uvicorn", "websockets", "httpx", "asyncio")

_COLOURS: Final = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31"}


def set_up(level: int | str, *, json: bool, stream: TextIO | None = None) -> None:
    """Send the log lines of this process to `stream` (standard error unless set).

    Replaces what was set up before, so it may be called again.

    Args:
        level: Name or number of the lowest level shown; libraries begin at WARNING.
        json: One JSON object a line: `at`, `level`, `logger`, `event`, then the facts.
        stream: Where to.

    Raises:
        ValueError: There is no such level.
    """
    out = sys.stderr if stream is None else stream
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter() if json else LineFormatter(colour=out.isatty()))
    root.handlers[:] = [handler]
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was passed as `extra`, in the order given.

    Names with an underscore first are not ours: Ray puts one into every record.
    """
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith("_")
    }


class LineFormatter(logging.Formatter):
    """`12:30:01.250 warning actors.nozzle: batch not delivered size=3 why="no transformer"`.

    A traceback follows on lines of its own.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Write one event."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname.lower()
        if self._colour and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        head = f"{at}.{int(record.msecs):03d} {level} {record.name}: {_one_line(record)}"
        tail = "".join(f" {name}={_shown(value)}" for name, value in facts(record).items())
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return f"{head}{tail}\n{trace}" if trace else f"{head}{tail}"


class JsonFormatter(logging.Formatter):
    """`{"at":"2026-01-31T12:30:01.250Z","level":"warning","logger":...,"event":...,"size":3}`.

    A traceback is in `traceback`. A fact that has the name of one of these is written `fact_...`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write one event."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "at": f"{second}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        for name, value in facts(record).items():
            line[f"fact_{name}" if name in line else name] = value
        # str for what JSON does not know: a log line must never raise.
        return dumps(line, default=str, separators=(",", ":"))


def _one_line(record: logging.LogRecord) -> str:
    return record.getMessage().replace("\n", "\\n").replace("\r", "\\r")


def _shown(value: object) -> str:
    """Write a fact so that where it ends is clear: quoted if it has blanks or quotes."""
    text = str(value)
    plain = text.isprintable() and text and not any(mark in text for mark in ' "=')
    return text if plain else dumps(text, ensure_ascii=False)
