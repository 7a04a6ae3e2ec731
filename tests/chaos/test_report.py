"""Interruptions are those of the strikes that nothing else came between, and a fault is shown."""

import io
from dataclasses import replace

from rich.console import Console

from tests.chaos.pulse import Pulse
from tests.chaos.report import Interruption, Report, interruptions
from tests.chaos.schedule import Kind, Strike
from tests.chaos.striker import Done
from tests.chaos.verdict import Verdict

STRIKE = Strike(Kind.KILL_NOZZLE, pause_s=0, pressing=False, choice=0, hold_s=1)


def test_interruption_is_the_worst_probe_of_its_time() -> None:
    """A strike that another one followed at once is counted, not measured."""
    now_s = 100.0
    pulse = Pulse(clock=lambda: now_s)
    pulse.expect("s", "probe.0")
    for late_s in (2, 5, 9):
        pulse.note("s", "probe.0", now_s - late_s)
    done = [
        Done(STRIKE, at_s=now_s - 3, until_s=now_s),
        Done(STRIKE, at_s=now_s - 5.2, until_s=now_s - 3),
        Done(STRIKE, at_s=now_s - 9.2, until_s=now_s - 8, alone=False),
        Done(replace(STRIKE, kind=Kind.KILL_EDGE), now_s - 1, now_s, missed="nobody there"),
    ]
    found = interruptions(done, pulse)
    assert found == [Interruption("kill nozzle", 3, 2, 3.5, 5.0)]


def test_broken_promise_is_shown() -> None:
    """The table ends with what was found, and the report is not good."""
    rows = [Interruption("kill nozzle", 3, 0, None, None)]
    report = Report(5, Verdict(lost=2, examples=["lost: 2 in plain.0"]), [], rows, {"accepted": 9})
    text = io.StringIO()
    report.show(Console(file=text, width=100))
    for expected in ("kill nozzle", "lost 2", "lost: 2 in plain.0", "promises were broken"):
        assert expected in text.getvalue()
    assert not report.as_json()["good"]


def test_trouble_alone_is_not_good() -> None:
    """All messages are there, but something did not recover."""
    assert Report(5, Verdict(), [], []).good
    assert not Report(5, Verdict(), ["no recovery"], []).good
