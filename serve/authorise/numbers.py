"""What is counted of the user's functions, and how many calls may be under way."""

import enum
import threading
from collections.abc import Iterable
from typing import Final

from actors.metrics import Numbers, labelled


class Outcome(enum.StrEnum):
    """How a call ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"
    """It raised, or gave no answer."""
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    """It was not made: too many were under way."""


class Tally:
    """Count the calls of one function. A function that is not called has its numbers, too: 0."""

    def __init__(self, numbers: Numbers, function: str) -> None:
        self._numbers = numbers
        self._names: Final = {
            outcome: labelled("authorise_calls", function=function, outcome=outcome.value)
            for outcome in Outcome
        }
        self._took = numbers.latency(labelled("authorise", function=function))
        for name in self._names.values():
            numbers.count(name, 0)

    def refused(self) -> None:
        """Count a call that was not made."""
        self._numbers.count(self._names[Outcome.REFUSED])

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """Count a call, and how long it took until its answer was there, or was given up."""
        self._numbers.count(self._names[outcome])
        self._took.record(seconds)


class Places:
    """Room for calls, by function. Threads may take and give back at once.

    Args:
        places_max: Calls that may be under way.
        functions: All that may take places.
    """

    def __init__(self, places_max: int, functions: Iterable[str]) -> None:
        self._free = places_max
        self._taken = dict.fromkeys(functions, 0)
        self._lock = threading.Lock()

    def take(self, function: str) -> bool:
        """Take a place; False: there is none."""
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
            self._taken[function] += 1
            return True

    def give_back(self, function: str) -> None:
        """Give a place back."""
        with self._lock:
            self._free += 1
            self._taken[function] -= 1

    def taken(self) -> dict[str, int]:
        """Return how many places each function has taken."""
        with self._lock:
            return dict(self._taken)
