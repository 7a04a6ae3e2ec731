"""Asks the user's functions. What they do is felt by the client that they are asked about alone."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from actors.metrics import Numbers, labelled
from actors.settings.authorise import AuthoriseSettings
from actors.transform.errors import one_line, users_stack, users_traceback
from serve.authorise.load import Function, load
from serve.authorise.numbers import Outcome, Places, Tally
from serve.authorise.off_loop import Failed, LoopCall, LoopThread, ThreadCall, Threads
from serve.authorise.questions import Request
from serve.authorise.ruling import Ruling, ruling_of
from serve.protocol.messages import Close, CommandError, ErrorCode, OwnError

log = logging.getLogger(__name__)

_NOWHERE: Final = "it has not begun: all threads, or the event loop of these functions, are busy"


class Authoriser:
    """Call functions, each call within a time limit.

    Functions without `async` run in threads, the others on an event loop of their own. A function
    that is late cannot be ended, only a coroutine that waits: its client has its answer (error
    100), but it keeps its place among `calls_max`, and its thread, until it really ends.

    Methods are for one event loop's thread.

    Args:
        settings: Which functions, and the limits.
        code: The user's directory.
        numbers: Where calls are counted.
        wall: Seconds since the epoch.
        clock: Monotonic seconds.

    Raises:
        SettingsError: A function cannot be loaded.
    """

    def __init__(
        self,
        settings: AuthoriseSettings,
        code: Path,
        numbers: Numbers,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = settings.time_limit_s
        self._code = code.resolve()
        self._wall = wall
        self._clock = clock
        self._functions = load(settings, code)
        names = [function.name for function in self._functions.values()]
        self._tallies = {name: Tally(numbers, name) for name in names}
        self._places = Places(settings.calls_max, names)
        self._threads = Threads(settings.threads)
        self._loop = LoopThread()
        self._closed = False

    async def rule(self, request: Request) -> Ruling:
        """Return what follows from a function's answer.

        Raises:
            CommandError: There are too many calls under way (111); or the function failed, was
                late, or gave no answer (100), and the log says where; or it is closed (100).
        """
        if self._closed:
            raise CommandError(ErrorCode.INTERNAL_SERVER_ERROR)
        function = self._functions[type(request)]
        tally = self._tallies[function.name]
        if not self._places.take(function.name):
            tally.refused()
            raise CommandError(ErrorCode.TOO_MANY_REQUESTS)
        begun_s = self._clock()
        found = await self._ruled(function, request)
        tally.ended(_outcome(found), self._clock() - begun_s)
        if isinstance(found, Outcome):
            raise CommandError(ErrorCode.INTERNAL_SERVER_ERROR)
        return found

    def numbers(self) -> dict[str, float]:
        """Return how many calls of each function are under way, late ones among them."""
        return {
            labelled("authorise_under_way", function=name): count
            for name, count in self._places.taken().items()
        }

    async def close(self) -> None:
        """End the threads. Those of functions that hang are left behind; the process may end."""
        self._closed = True
        self._threads.close()
        await asyncio.to_thread(self._loop.close)

    async def _ruled(self, function: Function, request: Request) -> Ruling | Outcome:
        """Return what follows; an outcome: nothing, and the log says why."""
        call = self._begin(function, request)
        call.future.add_done_callback(lambda _: self._places.give_back(function.name))
        answer = await self._answer(function, call)
        if isinstance(answer, Outcome):
            return answer
        if not isinstance(answer, Failed):
            try:
                return ruling_of(request, answer, self._wall())
            except Exception as error:  # noqa: BLE001  what the user gave is wrong in whatever way: told as failure
                answer = Failed(error)
        self._tell(function, one_line(answer.error), users_traceback(answer.error, self._code))
        return Outcome.FAILED

    def _begin(self, function: Function, request: Request) -> ThreadCall | LoopCall:
        begin = self._loop.begin if function.is_async else self._threads.begin
        return begin(lambda: function.call(request))

    async def _answer(self, function: Function, call: ThreadCall | LoopCall) -> object:
        answer = asyncio.wrap_future(call.future)
        try:
            done, _ = await asyncio.wait({answer}, timeout=self._limit_s)
            if done:
                return answer.result()
            why = f"took longer than {self._limit_s:g} s (authorise.time_limit_s)"
            self._tell(function, why, users_stack(call.stack(), self._code) or _NOWHERE)
            return Outcome.TIMED_OUT
        finally:
            # One that ends later finds nobody, also where this event loop is closed by then.
            answer.cancel()
            call.stop()

    @staticmethod
    def _tell(function: Function, why: str, where: str) -> None:
        log.error("function failed", extra={"function": function.use, "why": why, "where": where})


def _outcome(found: Ruling | Outcome) -> Outcome:
    if isinstance(found, Outcome):
        return found
    return Outcome.DENIED if isinstance(found, ErrorCode | OwnError | Close) else Outcome.ALLOWED
