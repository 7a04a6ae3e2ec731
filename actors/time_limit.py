"""A time limit for calls of the user's code, which may hang in Python or in C."""

import asyncio
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from actors.errors import UnavailableError

_TICKS: Final = 4
"""Looks at the clock within one limit."""
_GRACE_S: Final = 1.0
"""The least time for Python code to react, before the process ends."""


class TimeLimitError(BaseException):
    """A call took too long. Not an `Exception`: the user's code should not catch it by chance."""


class TimeLimit:
    """Interrupt calls that take too long.

    Two lines: a timer of the operating system raises `TimeLimitError` in the main thread, in the
    middle of the user's code (regular expressions, sleeps and sockets included). What does not
    react to that, being stuck in C, loses its process when it has taken another half of the limit
    (at least 1 s); a traceback of all threads is then on stderr.

    Both hold in the main thread only, which is where Ray runs a synchronous actor. The user's code
    must not use SIGALRM itself.

    Args:
        limit_s: How long one call may take, in seconds.
        clock: Monotonic seconds.
    """

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._until: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the calls that are made inside.

        Raises:
            UnavailableError: The limit was reached just as a call ended; try all of it again.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        tick_s = self.limit_s / _TICKS
        self._keep_alive()
        handler = signal.signal(signal.SIGALRM, self._tick)
        timer = signal.setitimer(signal.ITIMER_REAL, tick_s, tick_s)
        try:
            yield
        except TimeLimitError as error:
            raise UnavailableError(str(error)) from error
        finally:
            self.end()
            # What ran before goes on: in tests, pytest's own limit.
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)
            faulthandler.cancel_dump_traceback_later()

    def begin(self, times: int = 1) -> None:
        """Begin a call that may take so many times the limit."""
        self._until = self._clock() + self.limit_s * times

    def end(self) -> None:
        """End what `begin` began."""
        self._until = None

    async def bounded(self, work: Awaitable[Any]) -> Any:
        """Return what `work` returns.

        Raises:
            TimeLimitError: It waited too long.
        """
        limit = asyncio.timeout(self.limit_s)
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            # A TimeoutError of the user's own is theirs.
            if limit.expired():
                raise self._error() from error
            raise

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        # That we are called at all shows that Python code runs.
        self._keep_alive()
        if self._until is not None and self._clock() > self._until:
            raise self._error()

    def _keep_alive(self) -> None:
        # In a thread of C, which needs nothing of Python.
        after_s = self.limit_s + max(_GRACE_S, self.limit_s / 2)
        faulthandler.dump_traceback_later(after_s, exit=True, file=sys.__stderr__ or 2)

    def _error(self) -> TimeLimitError:
        return TimeLimitError(f"took longer than {self.limit_s:g} s (the stage's time_limit_s)")
