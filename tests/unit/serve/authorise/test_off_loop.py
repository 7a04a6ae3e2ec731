"""Threads and an event loop for what must not hold up the edge's own."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from serve.authorise.off_loop import Failed, LoopThread, Threads


def test_threads_are_started_as_needed_and_used_again() -> None:
    """One after the other needs one."""
    threads = Threads(4)
    found = set()
    for _ in range(20):
        call = threads.begin(threading.get_ident)
        found.add(call.future.result(10))
    assert len(found) == 1
    close(threads)


def test_calls_run_side_by_side_up_to_the_limit() -> None:
    """The next waits for a thread, and for no certain one."""
    threads = Threads(2)
    both, gate = threading.Barrier(2), threading.Event()

    def meet() -> None:
        both.wait(10)
        gate.wait(10)

    calls = [threads.begin(meet) for _ in range(2)]
    until(lambda: both.n_waiting == 0 and all(call.stack() for call in calls))
    third = threads.begin(lambda: 3)
    assert third.stack() == []
    gate.set()
    assert third.future.result(10) == 3
    close(threads)


def test_thread_that_has_just_ended_a_call_is_counted_once() -> None:
    """Calls that could each have a thread do not wait for one another, whatever came before."""
    for _ in range(50):
        threads = Threads(3)
        all_three = threading.Barrier(4)
        for _ in range(3):
            threads.begin(int).future.result(10)
        for _ in range(3):
            threads.begin(functools.partial(all_three.wait, 10))
        all_three.wait(10)
        close(threads)


def test_call_that_is_stopped_in_time_does_not_run() -> None:
    """One that runs goes on to its end."""
    threads = Threads(1)
    gate, ran = threading.Event(), []
    first = threads.begin(lambda: gate.wait(10))
    until(lambda: bool(first.stack()))
    second, third = threads.begin(lambda: ran.append(2)), threads.begin(lambda: ran.append(3))
    first.stop()
    second.stop()
    gate.set()
    assert first.future.result(10) is True
    assert third.future.result(10) is None
    assert (second.future.cancelled(), ran) == (True, [3])
    close(threads)


def test_stack_shows_where_a_call_is() -> None:
    """The innermost frame last; none when it has ended."""
    threads = Threads(1)
    gate = threading.Event()

    def inner() -> None:
        gate.wait(10)

    call = threads.begin(inner)
    until(lambda: any(frame.name == "inner" for frame in call.stack()))
    gate.set()
    call.future.result(10)
    assert call.stack() == []
    close(threads)


def test_close_of_the_loop_cancels_what_waits() -> None:
    """And its thread ends."""
    loop = LoopThread()
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    call = loop.begin(wait)
    assert begun.wait(10)
    loop.close()
    made = call.future.result(10)
    assert isinstance(made, Failed)
    assert isinstance(made.error, asyncio.CancelledError)
    assert loop._thread is not None
    assert not loop._thread.is_alive()


def test_call_that_raises_before_it_is_a_coroutine_has_failed() -> None:
    """It takes neither the loop nor the call's future with it."""
    loop = LoopThread()

    def broken() -> Any:
        raise OSError("no")

    async def fine() -> int:
        return 1

    made = loop.begin(broken).future.result(10)
    assert isinstance(made, Failed)
    assert str(made.error) == "no"
    assert loop.begin(fine).future.result(10) == 1
    loop.close()


def until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def close(threads: Threads) -> None:
    threads.close()
    for thread in threads._threads:
        thread.join(10)
        assert not thread.is_alive()
