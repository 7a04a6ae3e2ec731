"""The time limit: what hangs is interrupted, in Python and in C."""

import asyncio
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest

from actors.errors import UnavailableError
from actors.transform.time_limit import TimeLimit, TimeLimitError

LIMIT_S = 0.05


def sleep() -> None:
    """Wait in the operating system."""
    time.sleep(60)


def spin() -> None:
    """Wait in Python code."""
    while True:
        pass


def backtrack() -> None:
    """Wait in a regular expression, in C, with the interpreter's lock held."""
    re.fullmatch(r"(a+)+b", "a" * 100)


def swallow() -> None:
    """Wait in code that catches what it can."""
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001, S112  as users' code has it
            continue


@pytest.mark.parametrize("hang", [sleep, spin, backtrack, swallow])
def test_call_that_hangs_is_interrupted(hang: Callable[[], None]) -> None:
    """Wherever the code is: asleep, in a loop, in a regular expression, in an `except`."""
    limit = TimeLimit(LIMIT_S)
    caught = None
    with limit.watching():
        limit.begin()
        try:
            hang()
        except TimeLimitError as error:
            caught = error
    assert "0.05 s" in str(caught)


def test_every_call_has_the_whole_limit() -> None:
    """What counts is one call, not all that are made while it watches."""
    now_s = 0.0
    limit = TimeLimit(10, clock=lambda: now_s)
    for _ in range(5):
        limit.begin()
        now_s += 9
        limit._tick(signal.SIGALRM, None)
    limit.end()
    now_s += 100
    limit._tick(signal.SIGALRM, None)
    limit.begin(2)
    now_s += 19
    limit._tick(signal.SIGALRM, None)
    now_s += 2
    with pytest.raises(TimeLimitError):
        limit._tick(signal.SIGALRM, None)


def test_limit_between_two_calls_is_to_be_tried_again() -> None:
    """Reached outside of a call, it is no message's fault."""

    def be_late() -> None:
        limit = TimeLimit(LIMIT_S)
        with limit.watching():
            limit.begin()
            time.sleep(60)

    with pytest.raises(UnavailableError, match="took longer"):
        be_late()


def test_timer_from_before_goes_on() -> None:
    """Whoever had a timer, such as a test runner, has it again afterwards."""
    before = signal.getsignal(signal.SIGALRM)
    old = signal.setitimer(signal.ITIMER_REAL, 50)
    with TimeLimit(1).watching():
        pass
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, *old)
    assert 0 < left_s <= 50
    assert signal.getsignal(signal.SIGALRM) is before


async def test_waiting_is_bounded() -> None:
    """An awaitable that takes too long ends; its own TimeoutError stays its own."""

    async def impatient() -> None:
        raise TimeoutError("mine")

    limit = TimeLimit(LIMIT_S)
    with pytest.raises(TimeLimitError):
        await limit.bounded(asyncio.sleep(60))
    with pytest.raises(TimeoutError, match="mine"):
        await limit.bounded(impatient())


@pytest.mark.parametrize(
    "stuck",
    [
        # Looks for no signal, and keeps the interpreter's lock.
        "sum(itertools.repeat(1))",
        # Gives it away, and is not woken by the timer.
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(60)",
    ],
    ids=["with the lock", "without"],
)
def test_process_that_is_stuck_in_c_ends_with_a_traceback(stuck: str) -> None:
    """What no exception can reach loses its process, and stderr says where it was."""
    code = f"""
    import itertools, signal, time
    from actors.transform import time_limit
    time_limit._GRACE_S = 0.2
    limit = time_limit.TimeLimit(0.05)
    limit.guard()
    with limit.watching():
        limit.begin()
        {stuck}
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert "<string>" in ended.stderr
    assert "UnavailableError" not in ended.stderr


def test_guard_leaves_an_idle_process_alone() -> None:
    """Between calls, and after them, nothing is overdue."""
    code = """
    import time
    from actors.transform.time_limit import TimeLimit
    limit = TimeLimit(0.8)
    limit.guard()
    with limit.watching():
        limit.begin()
        limit.end()
    time.sleep(2.5)
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(program, timeout=30, check=False).returncode == 0
