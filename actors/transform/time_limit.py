"""A time limit for calls of the user's code, which may hang in Python or in C."""

import asyncio
import faulthandler
import os
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

    Two lines. A timer of the operating system raises `TimeLimitError` in the main thread, in the
    middle of the user's code: sleeps, sockets and regular expressions included. It works in the
    main thread only, where Ray runs a synchronous actor, and the user's code must not use SIGALRM.
    What does not react to that, being stuck in C, loses its process (see `guard`).

    Args:
        limit_s: How long one call may take, in seconds.
        clock: Monotonic seconds.
    """

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._until: float | None = None
        self._grace_s = max(_GRACE_S, limit_s / 2)

    def guard(self) -> None:
        """End the process, from now on, when a call is overdue by half of the limit (at least 1 s).

        Or when C code keeps the interpreter's lock for so long, wherever that is. A traceback of
        all threads is then on stderr. For processes that do nothing else: one guard for each.
        """
        threading.Thread(target=self._guard, name="time limit", daemon=True).start()

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
        if self._until is not None and self._clock() > self._until:
            raise self._error()

    def _guard(self) -> None:
        tick_s = self.limit_s / _TICKS
        stderr = sys.__stderr__ or 2
        while True:
            # In a thread of C, which needs nothing of Python. That we come to put it off shows
            # that the interpreter's lock is free now and then.
            after_s = self.limit_s + self._grace_s + tick_s
            faulthandler.dump_traceback_later(after_s, exit=True, file=stderr)
            until = self._until
            if until is not None and self._clock() > until + self._grace_s:
                faulthandler.dump_traceback(file=stderr)
                os._exit(1)
            time.sleep(tick_s)

    def _error(self) -> TimeLimitError:
        return TimeLimitError(f"took longer than {self.limit_s:g} s (the stage's time_limit_s)")
