"""The way of a batch from actor to actor: through a transformer of each stage, to the publisher.

Takes handles of Ray actors, but asks of them only that `handle.method.remote(...)` returns
something to await and to pass on.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any

import ray.exceptions

from actors.errors import CrashError, GapError, SuspectError, TooLargeError, UnavailableError
from actors.store.interface import Marks


class Stage:
    """The transformers of one stage, and how many batches each has."""

    def __init__(self, name: str, handles: Sequence[Any]) -> None:
        self.name = name
        self.handles = list(handles)
        self._load = [0] * len(self.handles)
        self._turn = 0

    def take(self) -> int:
        """Return the place of the least loaded; among equals they take turns."""
        size = len(self.handles)
        place = min(range(size), key=lambda i: (self._load[i], (i - self._turn) % size))
        self._turn = (place + 1) % size
        self._load[place] += 1
        return place

    def give_back(self, place: int) -> None:
        """Know that a batch of that place is done."""
        self._load[place] -= 1

    def forget(self) -> None:
        """Know that nothing is under way any more."""
        self._load = [0] * len(self.handles)


class Route:
    """Send batches along actors, passing refs: no result comes back here on the way.

    Ray keeps one caller's order for a synchronous actor and lets its tasks wait for their
    arguments in that order, so batches reach the publisher as they were sent, whichever
    transformers they take (docs/architecture.md). See `nozzle.Way`.

    Args:
        nozzle: Whose way this is: a name among all nozzles.
        stages: In their order.
        publisher: The end of the way.
        marks: Where transformers tell what they work on, when asked to.
    """

    def __init__(self, nozzle: str, stages: Sequence[Stage], publisher: Any, marks: Marks) -> None:
        self._nozzle = nozzle
        self._stages = list(stages)
        self._publisher = publisher
        self._marks = marks
        self._attempts = itertools.count()

    def send(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """See `Way.send`."""
        if number == 0:
            for stage in self._stages:
                stage.forget()
        places = [stage.take() for stage in self._stages]
        ref: Any = batch
        for stage, place in zip(self._stages, places, strict=True):
            ref = stage.handles[place].apply.remote(ref)
        return _Pending(self._committed, self._publisher.commit.remote(ref, run, number), places)

    async def send_alone(self, batch: bytes, run: str, number: int) -> None:
        """See `Way.send_alone`."""
        if number == 0:
            for stage in self._stages:
                stage.forget()
        for stage in self._stages:
            batch = await self._apply_alone(stage, batch, f"{run}:{next(self._attempts)}")
        await self.commit(batch, run, number)

    async def commit(self, batch: bytes, run: str, number: int) -> None:
        """See `Way.commit`."""
        await self._committed(self._publisher.commit.remote(batch, run, number), ())

    async def _apply_alone(self, stage: Stage, batch: bytes, mark: str) -> bytes:
        place = stage.take()
        work = stage.handles[place].apply_alone.remote(batch, self._nozzle, mark)
        try:
            result: bytes = await work
        except TooLargeError as error:
            raise CrashError(stage.name, str(error)) from error
        except UnavailableError:
            raise
        except ray.exceptions.RayError as error:
            why = _last_line(error)
            # It may also have died before our turn, or of another nozzle's batch.
            if await asyncio.to_thread(self._marks.marked, self._nozzle) == mark:
                raise CrashError(stage.name, why) from error
            raise SuspectError(f"an actor failed: {why}") from error
        finally:
            stage.give_back(place)
        return result

    async def _committed(self, ref: Awaitable[None], places: Sequence[int]) -> None:
        try:
            await ref
        except (GapError, UnavailableError):
            raise
        except ray.exceptions.RayError as error:
            raise SuspectError(f"an actor failed: {_last_line(error)}") from error
        for stage, place in zip(self._stages, places, strict=False):
            stage.give_back(place)


class _Pending:
    """A call of a coroutine function that begins when it is awaited, and may never be."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._function = function
        self._args = args

    def __await__(self) -> Generator[Any, None, None]:
        return self._function(*self._args).__await__()


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
