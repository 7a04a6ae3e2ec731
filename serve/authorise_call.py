"""Asks the user's functions. What they do is felt by the client that they are asked about alone."""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from actors.settings_authorise import AuthoriseSettings
from actors.transform_errors import one_line, users_stack, users_traceback
from serve.authorise import Request
from serve.authorise_load import Function, load
from serve.authorise_ruling import Ruling, ruling_of
from serve.off_loop import Failed, LoopCall, LoopThread, ThreadCall, Threads
from serve.protocol import CommandError, ErrorCode

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
        wall: Seconds since the epoch.

    Raises:
        SettingsError: A function cannot be loaded.
    """

    def __init__(self, settings: AuthoriseSettings, code: Path, wall: Callable[[], float]) -> None:
        self._limit_s = settings.time_limit_s
        self._code = code.resolve()
        self._wall = wall
        self._functions = load(settings, code)
        self._room = threading.BoundedSemaphore(settings.calls_max)
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
        if not self._room.acquire(blocking=False):
            raise CommandError(ErrorCode.TOO_MANY_REQUESTS)
        call = self._begin(function, request)
        call.future.add_done_callback(lambda _: self._room.release())
        answer = await self._answer(function, call)
        if not isinstance(answer, Failed):
            try:
                return ruling_of(request, answer, self._wall())
            except Exception as error:  # noqa: BLE001  what the user gave is wrong in whatever way: told as failure
                answer = Failed(error)
        self._tell(function, one_line(answer.error), users_traceback(answer.error, self._code))
        raise CommandError(ErrorCode.INTERNAL_SERVER_ERROR)

    async def close(self) -> None:
        """End the threads. Those of functions that hang are left behind; the process may end."""
        self._closed = True
        self._threads.close()
        await asyncio.to_thread(self._loop.close)

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
            raise CommandError(ErrorCode.INTERNAL_SERVER_ERROR)
        finally:
            # One that ends later finds nobody, also where this event loop is closed by then.
            answer.cancel()
            call.stop()

    @staticmethod
    def _tell(function: Function, why: str, where: str) -> None:
        log.error("function failed", extra={"function": function.use, "why": why, "where": where})
