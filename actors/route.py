"""The way of a batch from actor to actor: through a transformer of each stage, to the publisher.

Takes handles of Ray actors, but asks of them only that `handle.method.remote(...)` returns
something to await and to pass on.
"""

from collections.abc import Awaitable, Sequence
from typing import Any

import ray.exceptions

from actors.errors import GapError, UnavailableError


class Route:
    """Send batches along actors, passing refs: no result comes back here on the way.

    Ray keeps one caller's order for a synchronous actor and lets its tasks wait for their
    arguments in that order, so batches reach the publisher as they were sent, whichever
    transformers they take (docs/architecture.md). See `nozzle.Send`.
    """

    def __init__(self, stages: Sequence[Sequence[Any]], publisher: Any) -> None:
        self._stages = [_Pool(handles) for handles in stages]
        self._publisher = publisher

    def __call__(self, batch: bytes, run: str, number: int) -> Awaitable[None]:
        """Send one batch; the call fixes its place, the awaitable tells when it is committed."""
        if number == 0:
            for pool in self._stages:
                pool.forget()
        places = [pool.take() for pool in self._stages]
        ref: Any = batch
        for pool, place in zip(self._stages, places, strict=True):
            ref = pool.handles[place].apply.remote(ref)
        return self._committed(self._publisher.commit.remote(ref, run, number), places)

    async def _committed(self, ref: Awaitable[None], places: list[int]) -> None:
        try:
            await ref
        except (GapError, UnavailableError):
            raise
        except ray.exceptions.RayError as error:
            raise UnavailableError(f"an actor failed: {_last_line(error)}") from error
        for pool, place in zip(self._stages, places, strict=True):
            pool.give_back(place)


class _Pool:
    """The transformers of one stage, and how many batches each has."""

    def __init__(self, handles: Sequence[Any]) -> None:
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
        self._load[place] -= 1

    def forget(self) -> None:
        self._load = [0] * len(self.handles)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
