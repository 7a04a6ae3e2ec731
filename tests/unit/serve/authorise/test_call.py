"""Calls of the user's functions, in real threads: answers, failures, limits."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from actors.metrics import Numbers
from actors.settings.authorise import AuthoriseSettings
from serve.authorise import RpcRequest
from serve.authorise.call import Authoriser
from serve.protocol.messages import CommandError, ErrorCode, RpcResult

ASK = RpcRequest(client="c", user="u", method="m", data=1)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A module's name that is new, as Python remembers them."""
    return "asked_" + "".join(c if c.isalnum() else "_" for c in request.node.name)


@pytest.fixture
def write(tmp_path: Path, name: str) -> Callable[[str], None]:
    """Write the module."""

    def write(text: str) -> None:
        (tmp_path / f"{name}.py").write_text("from serve.authorise import *\n" + text)

    return write


@asynccontextmanager
async def asking(code: Path, name: str, **limits: Any) -> AsyncIterator[Authoriser]:
    """Ask the function `f` of the module."""
    settings = AuthoriseSettings.model_validate({"rpc": f"{name}:f", **limits})
    authoriser = Authoriser(settings, code, Numbers("edge"))
    async with asyncio.timeout(20):
        yield authoriser
        await authoriser.close()


async def refused(authoriser: Authoriser) -> ErrorCode:
    with pytest.raises(CommandError) as raised:
        await authoriser.rule(ASK)
    return raised.value.code


def under_way(authoriser: Authoriser) -> float:
    return authoriser.numbers()["authorise_under_way{function=rpc}"]


def counted(authoriser: Authoriser) -> dict[str, int]:
    """How many calls ended how, where there were any; all but those refused have a duration."""
    snapshot = authoriser._tallies["rpc"]._numbers.snapshot()
    counts = {name[len("authorise_calls{function=rpc,outcome=") : -1]: n
              for name, n in snapshot["counters"].items()}  # fmt: skip
    assert set(counts) == {"allowed", "denied", "failed", "timed_out", "refused"}
    took = snapshot["latencies"]["authorise{function=rpc}"]
    assert took["count"] == sum(counts.values()) - counts["refused"]
    return {outcome: count for outcome, count in counts.items() if count}


def where(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What the log says of failures."""
    assert {record.message for record in caplog.records} <= {"function failed"}
    return [(record.__dict__["why"], record.__dict__["where"]) for record in caplog.records]


PLAIN = "def f(request): return AllowRpc([request.data, threading.get_ident()])\n"


@pytest.mark.parametrize("text", [PLAIN, f"async {PLAIN}"])
async def test_functions_run_beside_the_event_loop(
    tmp_path: Path, name: str, write: Callable[[str], None], text: str
) -> None:
    """Plain or async: in another thread."""
    write("import threading\n" + text)
    async with asking(tmp_path, name) as authoriser:
        ruling = await authoriser.rule(ASK)
    assert isinstance(ruling, RpcResult)
    assert bytes(ruling.data).startswith(b"[1,")
    assert str(threading.get_ident()).encode() not in bytes(ruling.data)


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("body", ["1 / 0", "raise SystemExit(3)", "raise KeyboardInterrupt"])
async def test_function_that_raises_is_a_passing_error(
    tmp_path: Path,
    name: str,
    write: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    kind: str,
    body: str,
) -> None:
    """Error 100, the user's line in the log, and the next call is as good as the first."""
    write(
        f"{kind} f(request):\n    if request.data == 1:\n        {body}\n    return AllowRpc(2)\n"
    )
    async with asking(tmp_path, name) as authoriser:
        assert await refused(authoriser) is ErrorCode.INTERNAL_SERVER_ERROR
        good = RpcRequest(client="c", user="u", method="m", data=2)
        assert await authoriser.rule(good) == RpcResult(Raw(b"2"))
    ((_, told),) = where(caplog)
    assert f'{name}.py", line 4, in f' in told
    assert "off_loop" not in told


async def test_what_is_no_answer_is_told_in_the_log(
    tmp_path: Path, name: str, write: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """And is a passing error, not a yes."""
    write("def f(request): pass\n")
    async with asking(tmp_path, name) as authoriser:
        assert await refused(authoriser) is ErrorCode.INTERNAL_SERVER_ERROR
    ((why, _),) = where(caplog)
    assert "it returned None: return AllowRpc, Deny or Disconnect" in why


GATED = """
import threading
begun, gate, late = threading.Event(), threading.Event(), []

def f(request):
    begun.set()
    gate.wait(20)
    late.append(request.data)
    return AllowRpc()
"""


def module_of(name: str) -> Any:
    """Return the module, once it is loaded."""
    return sys.modules[name]


async def test_function_that_is_late_is_a_passing_error(
    tmp_path: Path, name: str, write: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says where it is; its place is free again when it really ends."""
    write(GATED)
    async with asking(tmp_path, name, time_limit_s=0.1, calls_max=1) as authoriser:
        assert await refused(authoriser) is ErrorCode.INTERNAL_SERVER_ERROR
        assert await refused(authoriser) is ErrorCode.TOO_MANY_REQUESTS
        ((why, told),) = where(caplog)
        assert why == "took longer than 0.1 s (authorise.time_limit_s)"
        assert f'{name}.py", line 8, in f' in told
        module_of(name).gate.set()
        while not module_of(name).late:
            await asyncio.sleep(0.005)
        while under_way(authoriser):  # between the end of the function and that of its call
            await asyncio.sleep(0.005)
        assert await authoriser.rule(ASK) == RpcResult()


async def test_call_that_found_no_thread_in_time_never_begins(
    tmp_path: Path, name: str, write: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Its client has its answer already; it would only be work for nothing."""
    write(GATED)
    async with asking(tmp_path, name, time_limit_s=0.1, threads=1, calls_max=2) as authoriser:
        codes = await asyncio.gather(refused(authoriser), refused(authoriser))
        assert set(codes) == {ErrorCode.INTERNAL_SERVER_ERROR}
        assert "it has not begun" in where(caplog)[1][1]
        module_of(name).gate.set()
        while not module_of(name).late:
            await asyncio.sleep(0.005)
    assert module_of(name).late == [1]


async def test_more_calls_than_may_be_under_way_are_refused(
    tmp_path: Path, name: str, write: Callable[[str], None]
) -> None:
    """Error 111, at once; those under way get their answers."""
    write(GATED)
    async with asking(tmp_path, name, threads=1, calls_max=3) as authoriser:
        under_way = [asyncio.ensure_future(authoriser.rule(ASK)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await refused(authoriser) is ErrorCode.TOO_MANY_REQUESTS
        module_of(name).gate.set()
        assert await asyncio.gather(*under_way) == [RpcResult()] * 3


COUNTED = """
def f(request):
    if request.method == "raise":
        raise OSError
    return {"allow": AllowRpc(1), "deny": Deny(), "disconnect": Disconnect(4500)}.get(
        request.method
    )
"""


@pytest.mark.parametrize(
    ("method", "outcome"),
    [
        ("allow", "allowed"),
        ("deny", "denied"),
        ("disconnect", "denied"),
        ("raise", "failed"),
        ("nothing", "failed"),
    ],
)
async def test_calls_are_counted_by_outcome(
    tmp_path: Path, name: str, write: Callable[[str], None], method: str, outcome: str
) -> None:
    """All outcomes are there from the start, with 0."""
    write(COUNTED)
    async with asking(tmp_path, name) as authoriser:
        assert counted(authoriser) == {}
        with contextlib.suppress(CommandError):
            await authoriser.rule(RpcRequest(client="c", user="u", method=method))
        assert counted(authoriser) == {outcome: 1}
        assert under_way(authoriser) == 0


async def test_late_calls_are_counted_and_stay_under_way(
    tmp_path: Path, name: str, write: Callable[[str], None]
) -> None:
    """Until they really end; those for which there is no place then are refused."""
    write(GATED)
    async with asking(tmp_path, name, time_limit_s=0.1, calls_max=1) as authoriser:
        await refused(authoriser)
        assert (counted(authoriser), under_way(authoriser)) == ({"timed_out": 1}, 1)
        await refused(authoriser)
        assert (counted(authoriser), under_way(authoriser)) == ({"timed_out": 1, "refused": 1}, 1)
        module_of(name).gate.set()
        while under_way(authoriser):
            await asyncio.sleep(0.005)


async def test_duration_is_that_of_the_call(
    tmp_path: Path, name: str, write: Callable[[str], None]
) -> None:
    """By the clock that it is given."""
    write("def f(request): return AllowRpc()\n")
    settings = AuthoriseSettings(rpc=f"{name}:f")
    times = iter([10.0, 10.25])
    numbers = Numbers("edge")
    authoriser = Authoriser(settings, tmp_path, numbers, clock=lambda: next(times))
    await authoriser.rule(ASK)
    assert numbers.latency("authorise{function=rpc}").sum_s == 0.25
    await authoriser.close()


WAITS = """
import asyncio

ended = []

async def inner():
    try:
        await asyncio.sleep(60)
    finally:
        ended.append(1)

async def f(request):
    await inner()
    return AllowRpc()
"""


async def test_coroutine_that_is_late_is_cancelled(
    tmp_path: Path, name: str, write: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says where it waited."""
    write(WAITS)
    async with asking(tmp_path, name, time_limit_s=0.1) as authoriser:
        assert await refused(authoriser) is ErrorCode.INTERNAL_SERVER_ERROR
    assert module_of(name).ended == [1]
    ((_, told),) = where(caplog)
    assert "in f" in told.split("in inner")[0]
    assert "line 9, in inner" in told


BLOCKS = """
import threading
gate, begun = threading.Event(), threading.Event()

async def f(request):
    if request.data == 1:
        begun.set()
        gate.wait(20)
    return AllowRpc()
"""


async def test_coroutine_that_blocks_its_loop_blocks_no_other(
    tmp_path: Path, name: str, write: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The edge's event loop turns on; other calls are late, too, until it ends. All places are free
    then, also those of calls that have never begun."""
    write(BLOCKS)
    async with asking(tmp_path, name, time_limit_s=0.1, calls_max=2) as authoriser:
        first = asyncio.ensure_future(refused(authoriser))
        await asyncio.to_thread(module_of(name).begun.wait, 10)
        codes = await asyncio.gather(first, refused(authoriser))
        assert set(codes) == {ErrorCode.INTERNAL_SERVER_ERROR}
        assert f'{name}.py", line 9, in f' in where(caplog)[0][1]
        assert "it has not begun" in where(caplog)[1][1]
        module_of(name).gate.set()
        good = RpcRequest(client="c", user="u", method="m", data=2)
        while True:
            with contextlib.suppress(CommandError):
                assert await authoriser.rule(good) == RpcResult()
                break
            await asyncio.sleep(0.005)
        assert under_way(authoriser) == 0


async def test_close_does_not_wait_for_what_hangs(
    tmp_path: Path, name: str, write: Callable[[str], None]
) -> None:
    """Threads are daemons, so neither does the end of the process."""
    write(GATED)
    async with asking(tmp_path, name, time_limit_s=0.05) as authoriser:
        await refused(authoriser)
    hanging = [thread for thread in threading.enumerate() if thread.name == "authorise"]
    assert all(thread.daemon for thread in hanging)
    module_of(name).gate.set()
    for thread in hanging:
        thread.join(10)


async def test_nothing_is_asked_after_the_end(
    tmp_path: Path, name: str, write: Callable[[str], None]
) -> None:
    """A request that comes by another way while its edge ends: error 100, as elsewhere then."""
    write("def f(request): return AllowRpc()\n")
    async with asking(tmp_path, name) as authoriser:
        await authoriser.rule(ASK)
        await authoriser.close()
        assert await refused(authoriser) is ErrorCode.INTERNAL_SERVER_ERROR


async def test_without_functions_nothing_is_started(tmp_path: Path) -> None:
    """No thread, no loop."""
    before = threading.active_count()
    await Authoriser(AuthoriseSettings(), tmp_path, Numbers("edge")).close()
    assert threading.active_count() <= before + 1  # of `asyncio.to_thread`


@pytest.fixture(autouse=True)
def _errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
