"""The route: refs from actor to actor, the least loaded first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import ray.exceptions
from ray import ActorID

from actors.errors import CrashError, GapError, SuspectError, TooLargeError, UnavailableError
from actors.route import Route, Stage


class Call:
    """What `handle.method.remote` is, without Ray."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class Worker:
    """A transformer's handle: adds its name to the ref."""

    def __init__(self, name: str, alone: Callable[..., Any] = print) -> None:
        self._actor_id = ActorID(name.encode() * 16)
        self.apply = Call(lambda ref: f"{ref}>{name}")
        self.apply_alone = Call(alone)


class Memory:
    """Marks in memory."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def mark(self, nozzle: str, text: str) -> None:
        """Keep it."""
        self.texts[nozzle] = text

    def marked(self, nozzle: str) -> str:
        """Return it."""
        return self.texts.get(nozzle, "")


def route_of(last: "Last", *stages: list[Worker], marks: Memory | None = None) -> Route:
    """A route through stages called 0, 1, ..."""
    named = [Stage(str(number), workers) for number, workers in enumerate(stages)]
    return Route("nozzle:0", named, last, marks or Memory())


class Last:
    """A publisher's handle: keeps what it was called with, and ends as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, str, int]] = []
        self.futures: list[asyncio.Future[None]] = []
        self.commit = Call(self._commit)

    def _commit(self, ref: Any, run: str, number: int) -> asyncio.Future[None]:
        self.calls.append((ref, run, number))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return future


async def test_batch_passes_every_stage_and_no_result_comes_back() -> None:
    """Each stage gets the ref of the one before; the call alone fixes the order."""
    last = Last()
    route = route_of(last, [Worker("a")], [Worker("b")])
    waits = [route.send(b"1", "r", 0), route.send(b"2", "r", 1)]
    assert last.calls == [("b'1'>a>b", "r", 0), ("b'2'>a>b", "r", 1)]
    for future, wait in zip(last.futures, waits, strict=True):
        future.set_result(None)
        await wait


async def test_least_loaded_transformer_is_taken() -> None:
    """A transformer that is slow gets no more than its share."""
    last = Last()
    route = route_of(last, [Worker("a"), Worker("b")])
    waits = [route.send(b"x", "r", n) for n in range(4)]
    assert [ref[-1] for ref, _, _ in last.calls] == ["a", "b", "a", "b"]
    for n in (1, 3):
        last.futures[n].set_result(None)
        await waits[n]
    waits += [route.send(b"x", "r", n) for n in (4, 5)]
    assert [ref[-1] for ref, _, _ in last.calls[4:]] == ["b", "b"]
    for n in (0, 2, 4, 5):
        last.futures[n].set_result(None)
        await waits[n]


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def fail(last: Last, wait: Awaitable[None], worker: Worker) -> None:
    """Have the latest batch fail because an actor is away."""
    why = ray.exceptions.ActorUnavailableError("restarting", worker._actor_id.binary())
    last.futures[-1].set_exception(why)
    with pytest.raises(SuspectError):
        await wait


async def test_transformer_that_failed_is_passed_over() -> None:
    """For a time that doubles: nobody may have room to make it anew, and the others work."""
    clock, last, a, b = Clock(), Last(), Worker("a"), Worker("b")
    route = Route("nozzle:0", [Stage("0", [a, b], clock=clock)], last, Memory())

    async def used() -> str:
        """Which ones four batches of a new run take; all of them commit."""
        waits = [route.send(b"x", "r", n) for n in range(4)]
        for future, wait in zip(last.futures[-4:], waits, strict=True):
            future.set_result(None)
            await wait
        return "".join(ref[-1] for ref, _, _ in last.calls[-4:])

    async def fail_at_once() -> None:
        """Begin runs until one takes `a`, which is away."""
        while True:
            wait = route.send(b"x", "r", 0)
            if last.calls[-1][0].endswith("a"):
                break
            last.futures[-1].set_result(None)
            await wait
        await fail(last, wait, a)

    await fail_at_once()
    assert await used() == "bbbb"
    clock.now_s = 2.0
    await fail_at_once()
    clock.now_s = 5.9
    assert await used() == "bbbb"
    clock.now_s = 6.0
    assert sorted(await used()) == ["a", "a", "b", "b"]
    await fail_at_once()
    clock.now_s = 8.0
    assert sorted(await used()) == ["a", "a", "b", "b"]


async def test_only_transformers_that_failed_are_left() -> None:
    """The one whose time is up first is taken; a failure of what it had besides adds nothing."""
    clock, last, a, b = Clock(), Last(), Worker("a"), Worker("b")
    route = Route("nozzle:0", [Stage("0", [a, b], clock=clock)], last, Memory())
    waits = [route.send(b"x", "r", n) for n in range(2)]
    await fail(last, waits.pop(), b)
    last.futures = last.futures[:1]
    await fail(last, waits.pop(), b)
    clock.now_s = 1.0
    await fail(last, route.send(b"x", "r", 0), a)
    waits = [route.send(b"x", "r", n) for n in range(2)]
    assert [ref[-1] for ref, _, _ in last.calls] == ["a", "b", "a", "b", "b"]
    for future, wait in zip(last.futures[-2:], waits, strict=True):
        future.set_result(None)
        await wait


async def test_failed_actor_is_unavailable() -> None:
    """Whatever Ray says, the nozzle is to try again later."""
    last = Last()
    wait = route_of(last).send(b"x", "r", 0)
    last.futures[0].set_exception(ray.exceptions.RayActorError())
    with pytest.raises(UnavailableError, match="actor"):
        await wait


async def test_our_own_errors_pass() -> None:
    """A gap is a gap on both sides."""
    last = Last()
    wait = route_of(last).send(b"x", "r", 0)
    last.futures[0].set_exception(GapError("gap"))
    with pytest.raises(GapError):
        await wait


async def test_death_while_working_alone_is_a_crash() -> None:
    """The mark tells that the transformer had begun with our batch, and with no other."""
    marks = Memory()

    async def die(batch: bytes, nozzle: str, mark: str) -> bytes:
        marks.mark(nozzle, mark)
        raise ray.exceptions.ActorDiedError

    route = route_of(Last(), [Worker("a", die)], marks=marks)
    with pytest.raises(CrashError) as raised:
        await route.send_alone(b"x", "r", 0)
    assert raised.value.stage == "0"


async def test_death_before_our_turn_is_no_crash() -> None:
    """An actor that died of something else says nothing about the batch."""

    async def die(batch: bytes, nozzle: str, mark: str) -> bytes:
        raise ray.exceptions.ActorUnavailableError("restarting", b"0" * 16)

    marks = Memory()
    marks.mark("nozzle:0", "r:0")
    route = route_of(Last(), [Worker("a", die)], marks=marks)
    for _ in range(2):
        marks.mark("nozzle:0", "of an earlier attempt")
        with pytest.raises(SuspectError):
            await route.send_alone(b"x", "r", 0)


async def test_batch_alone_passes_stage_by_stage() -> None:
    """Each stage has it to itself, and the publisher gets what the last one made."""

    def adds(name: bytes) -> Callable[..., Any]:
        async def add(batch: bytes, nozzle: str, mark: str) -> bytes:
            return batch + name

        return add

    last = Last()
    route = route_of(last, [Worker("a", adds(b"a"))], [Worker("b", adds(b"b"))])
    task = asyncio.create_task(route.send_alone(b"x", "r", 0))
    async with asyncio.timeout(5):
        while not last.futures:
            await asyncio.sleep(0)
        last.futures[0].set_result(None)
        await task
    assert last.calls == [(b"xab", "r", 0)]


async def test_batch_that_became_too_large_alone_is_to_be_halved() -> None:
    """As if it had ended the process: the nozzle sends less."""

    async def grow(batch: bytes, nozzle: str, mark: str) -> bytes:
        raise TooLargeError("2 entries became 100000000 bytes")

    route = route_of(Last(), [Worker("a", grow)])
    with pytest.raises(CrashError, match="100000000"):
        await route.send_alone(b"x", "r", 0)
