"""The way of a batch from actor to actor: through a transformer of each stage, to the publisher.

Takes handles of Ray actors, but asks of them only that `handle.method.remote(...)` returns
something to await and to pass on.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Final

import ray.exceptions

from actors.errors import CrashError, GapError, SuspectError, TooLargeError, UnavailableError
from actors.store.interface import Marks

_SHUN_S: Final = 2.0
_SHUN_S_MAX: Final = 30.0


class Stage:
    """The transformers of one stage, and how many batches each has.

    One that failed is passed over for some seconds, twice as long each time until it succeeds: it
    may be long until it is made anew, and each batch sent to it meanwhile costs a rewind.
    """

    def __init__(
        self, name: str, handles: Sequence[Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.handles = list(handles)
        self._clock = clock
        self._load = [0] * len(self.handles)
        self._turn = 0
        self._failures = [0] * len(self.handles)
        self._shunned_until_s = [-math.inf] * len(self.handles)

    def take(self) -> int:
        """Return the place of the least loaded; among equals they take turns.

        Where all have failed lately it is that of the one whose time is up first.
        """
        size, now_s = len(self.handles), self._clock()
        place = min(
            range(size),
            key=lambda i: (
                max(now_s, self._shunned_until_s[i]),
                self._load[i],
                (i - self._turn) % size,
            ),
        )
        self._turn = (place + 1) % size
        self._load[place] += 1
        return place

    def give_back(self, place: int) -> None:
        """Know that a batch of that place is under way no more."""
        self._load[place] -= 1

    def succeeded(self, place: int) -> None:
        """Know that a transformer works."""
        self._failures[place] = 0
        self._shunned_until_s[place] = -math.inf

    def failed(self, actor_id: str | None) -> None:
        """Know that an actor failed, which may be one of these."""
        now_s = self._clock()
        for place, handle in enumerate(self.handles):
            # What was under way with the first failure says nothing new.
            if _id_of(handle) == actor_id and self._shunned_until_s[place] <= now_s:
                shun_s = min(_SHUN_S_MAX, _SHUN_S * 2.0 ** self._failures[place])
                self._shunned_until_s[place] = now_s + shun_s
                self._failures[place] += 1

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
            why = self._failed(error)
            # It may also have died before our turn, or of another nozzle's batch.
            if await asyncio.to_thread(self._marks.marked, self._nozzle) == mark:
                raise CrashError(stage.name, why) from error
            raise SuspectError(f"an actor failed: {why}") from error
        finally:
            stage.give_back(place)
        stage.succeeded(place)
        return result

    async def _committed(self, ref: Awaitable[None], places: Sequence[int]) -> None:
        try:
            await ref
        except (GapError, UnavailableError):
            raise
        except ray.exceptions.RayError as error:
            raise SuspectError(f"an actor failed: {self._failed(error)}") from error
        for stage, place in zip(self._stages, places, strict=False):
            stage.give_back(place)
            stage.succeeded(place)

    def _failed(self, error: ray.exceptions.RayError) -> str:
        """Have its stage know which actor it was, and return why it failed."""
        if isinstance(error, ray.exceptions.RayActorError):
            for stage in self._stages:
                stage.failed(error.actor_id)
        return _last_line(error)


class _Pending:
    """A call of a coroutine function that begins when it is awaited, and may never be."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._function = function
        self._args = args

    def __await__(self) -> Generator[Any, None, None]:
        return self._function(*self._args).__await__()


def _id_of(handle: Any) -> str:
    """Return the id of an actor as errors have it: Ray has no public name for that."""
    actor_id = getattr(handle, "_actor_id", None)
    return "" if actor_id is None else str(actor_id.hex())


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
