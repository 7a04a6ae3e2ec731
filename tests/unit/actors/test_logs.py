"""Log lines: one per event, with facts that a machine can read."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from actors import logs


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_for_people_has_event_and_facts() -> None:
    """Facts of `extra` follow the event as key=value, quoted where blanks would confuse."""
    out = io.StringIO()
    logs.set_up("info", json=False, stream=out)
    logging.getLogger("actors.nozzle").warning(
        "batch not delivered", extra={"size": 3, "why": "no transformer", "empty": ""}
    )

    line = out.getvalue()

    assert line.count("\n") == 1
    assert line.endswith(
        ' warning actors.nozzle: batch not delivered size=3 why="no transformer" empty=""\n'
    )


@pytest.mark.parametrize("as_json", [True, False])
def test_what_ray_puts_into_every_record_is_no_fact(
    monkeypatch: pytest.MonkeyPatch, *, as_json: bool
) -> None:
    """It does so by a record factory, which may be set after our module was imported."""
    ordinary = logging.getLogRecordFactory()

    def stamped(*args: Any, **options: Any) -> logging.LogRecord:
        record = ordinary(*args, **options)
        record.__dict__["_ray_timestamp_ns"] = 1
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", stamped)
    out = io.StringIO()
    logs.set_up("info", json=as_json, stream=out)
    logging.getLogger("actors.nozzle").warning("batch not delivered", extra={"size": 3})
    assert "size" in out.getvalue()
    assert "_ray" not in out.getvalue()


def test_only_a_terminal_gets_colour() -> None:
    """Escape codes never reach a file."""
    terminal = _Terminal()
    logs.set_up("INFO", json=False, stream=terminal)
    logging.getLogger("x").error("broken")
    assert "\x1b[31merror\x1b[0m" in terminal.getvalue()

    file = io.StringIO()
    logs.set_up("INFO", json=False, stream=file)
    logging.getLogger("x").error("broken")
    assert "\x1b" not in file.getvalue()


def test_json_lines_hold_the_facts_as_values() -> None:
    """Facts keep their type, and may not overwrite what every line has."""
    out = io.StringIO()
    logs.set_up(logging.INFO, json=True, stream=out)
    logging.getLogger("serve.hub.hub").info(
        "session closed", extra={"code": 3008, "event": "mine", "who": {1}}
    )

    line = json.loads(out.getvalue())

    assert line["level"] == "info"
    assert line["logger"] == "serve.hub.hub"
    assert line["event"] == "session closed"
    assert line["code"] == 3008
    assert line["fact_event"] == "mine"
    assert line["who"] == "{1}"
    assert line["at"].endswith("Z")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_fact_with_line_breaks_stays_on_one_line(*, as_json: bool) -> None:
    """One event is one line, whatever a message holds."""
    out = io.StringIO()
    logs.set_up("INFO", json=as_json, stream=out)
    logging.getLogger("x").info("odd\nevent", extra={"text": "a\nb\r\x1b[31m"})
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_is_kept(*, as_json: bool) -> None:
    """Whoever must look finds where it happened."""
    out = io.StringIO()
    logs.set_up("INFO", json=as_json, stream=out)
    try:
        int("the reason")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError" in out.getvalue()
    assert "Traceback" in out.getvalue()


def test_setting_up_twice_writes_each_event_once() -> None:
    """The later set-up replaces the earlier one."""
    first, second = io.StringIO(), io.StringIO()
    logs.set_up("INFO", json=False, stream=first)
    logs.set_up("INFO", json=False, stream=second)
    logging.getLogger("x").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_libraries_are_quiet_below_warning() -> None:
    """Their INFO lines tell of their own life, not of ours."""
    out = io.StringIO()
    logs.set_up("DEBUG", json=False, stream=out)
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("actors.x").debug("ours")
    assert "GET /" not in out.getvalue()
    assert "ours" in out.getvalue()


def test_an_unknown_level_is_refused() -> None:
    """A wrong name is an error, not silence."""
    with pytest.raises(ValueError, match="NOISY"):
        logs.set_up("noisy", json=False, stream=io.StringIO())
