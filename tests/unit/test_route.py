"""The route: refs from actor to actor, the least loaded first."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import ray.exceptions

from actors.errors import GapError, UnavailableError
from actors.route import Route


class Call:
    """What `handle.method.remote` is, without Ray."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class Worker:
    """A transformer's handle: adds its name to the ref."""

    def __init__(self, name: str) -> None:
        self.apply = Call(lambda ref: f"{ref}>{name}")


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
    route = Route([[Worker("a")], [Worker("b")]], last)
    waits = [route(b"1", "r", 0), route(b"2", "r", 1)]
    assert last.calls == [("b'1'>a>b", "r", 0), ("b'2'>a>b", "r", 1)]
    for future, wait in zip(last.futures, waits, strict=True):
        future.set_result(None)
        await wait


async def test_least_loaded_transformer_is_taken() -> None:
    """A transformer that is slow gets no more than its share."""
    last = Last()
    route = Route([[Worker("a"), Worker("b")]], last)
    waits = [route(b"x", "r", n) for n in range(4)]
    assert [ref[-1] for ref, _, _ in last.calls] == ["a", "b", "a", "b"]
    for n in (1, 3):
        last.futures[n].set_result(None)
        await waits[n]
    waits += [route(b"x", "r", n) for n in (4, 5)]
    assert [ref[-1] for ref, _, _ in last.calls[4:]] == ["b", "b"]
    for n in (0, 2, 4, 5):
        last.futures[n].set_result(None)
        await waits[n]


async def test_failed_actor_is_unavailable() -> None:
    """Whatever Ray says, the nozzle is to try again later."""
    last = Last()
    wait = Route([], last)(b"x", "r", 0)
    last.futures[0].set_exception(ray.exceptions.RayActorError())
    with pytest.raises(UnavailableError, match="actor"):
        await wait


async def test_our_own_errors_pass() -> None:
    """A gap is a gap on both sides."""
    last = Last()
    wait = Route([], last)(b"x", "r", 0)
    last.futures[0].set_exception(GapError("gap"))
    with pytest.raises(GapError):
        await wait
