"""Calls of a user's functions, where they cannot hold up the edge's event loop.

Plain functions run in threads, coroutines on an event loop of their own. All of these threads are
daemons: a function that hangs does not keep the process from ending.
"""

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

_JOIN_S: Final = 1.0
"""How long `close` waits for coroutines that are cancelled."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What stands in the place of an answer that there is not."""

    error: BaseException


class ThreadCall:
    """A plain function's call.

    Attributes:
        future: Done when the call has really ended; its result may be `Failed`, it never raises.
    """

    def __init__(self, call: Callable[[], Any], ended: Callable[[], None]) -> None:
        self.future: Future[Any] = Future()
        self._call = call
        self._ended = ended
        self._thread: int | None = None

    def run(self) -> None:
        """Run it in this thread, unless it was stopped before."""
        if not self.future.set_running_or_notify_cancel():
            self._ended()
            return
        self._thread = threading.get_ident()
        made: Any
        try:
            made = self._call()
        except BaseException as error:  # noqa: BLE001  SystemExit and panics of Rust code, too: told to whoever asked
            made = Failed(error)
        self._thread = None
        # Before anybody can know the result: the next call may have this thread.
        self._ended()
        self.future.set_result(made)

    def stop(self) -> None:
        """Let it not begin; one that runs goes on to its end."""
        self.future.cancel()

    def stack(self) -> list[traceback.FrameSummary]:
        """Return where it is now, the innermost frame last; empty: it does not run."""
        return [] if self._thread is None else _stack_of(self._thread)


class Threads:
    """Up to `threads_max` threads, started as they are needed; calls beyond that wait."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[ThreadCall | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._not_ended = 0

    def begin(self, call: Callable[[], Any]) -> ThreadCall:
        """Have a function called. For one thread's use."""
        made = ThreadCall(call, self._end_one)
        with self._lock:
            self._not_ended += 1
            needed = min(self._not_ended, self._threads_max)
        self._calls.put(made)
        if len(self._threads) < needed:
            thread = threading.Thread(target=self._work, name="authorise", daemon=True)
            self._threads.append(thread)
            thread.start()
        return made

    def close(self) -> None:
        """End the threads, each when its call has ended; waits for none."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            call.run()

    def _end_one(self) -> None:
        with self._lock:
            self._not_ended -= 1


class LoopCall:
    """A coroutine's call; attributes as those of `ThreadCall`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # Whoever waits no more cannot end it by that.
        self._loop = loop
        self._call = call
        self._work: Coroutine[Any, Any, Any] | None = None
        self._task: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """Begin it. For the thread of its loop."""
        self._task = self._loop.create_task(self._run())
        # One that is cancelled before it has begun does not run at all.
        self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Cancel it."""
        self._loop.call_soon_threadsafe(self._cancel)

    def stack(self) -> list[traceback.FrameSummary]:
        """Return where it waits, or runs, the innermost coroutine last."""
        found: list[traceback.FrameSummary] = []
        work: Any = self._work
        while work is not None:
            frame = getattr(work, "cr_frame", None)
            if frame is not None:
                found += traceback.extract_stack(frame, limit=1)
            work = getattr(work, "cr_await", None)
        return found

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> Any:
        try:
            self._work = self._call()
            return await self._work
        except BaseException as error:  # noqa: BLE001  as in ThreadCall; SystemExit would end the loop
            return Failed(error)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        gone = task.cancelled()
        self.future.set_result(Failed(asyncio.CancelledError()) if gone else task.result())


class LoopThread:
    """An event loop in a thread, started with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end = asyncio.Event()

    def begin(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> LoopCall:
        """Have a coroutine function called. For one thread's use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name="authorise async", daemon=True
            )
            self._thread.start()
        call = LoopCall(self._loop, function)
        self._loop.call_soon_threadsafe(call.begin)
        return call

    def close(self) -> None:
        """Cancel what runs, and end the loop; one that is blocked is left behind after a second."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(_JOIN_S)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._until_end())

    async def _until_end(self) -> None:
        await self._end.wait()


def _stack_of(thread: int) -> list[traceback.FrameSummary]:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, for debuggers
    return [] if frame is None else list(traceback.extract_stack(frame))
