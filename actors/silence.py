"""Which parts are silent: they neither answer nor report. No clock, no I/O."""

from collections.abc import Mapping
from typing import Any, Final

_FRESH_S: Final = 5.0
"""How old the watcher's own last report may be; it is told once a second."""


class Silence:
    """Tells parts that hang from those that are busy, by the numbers that they report.

    A part that works on a long batch answers no ping, but a thread of it reports every second; one
    that was stopped, or is stuck with the interpreter's lock held, does neither. Whether a report
    is new is seen by its change, so that clocks of different nodes need not agree. While the
    watcher's own reports do not get through, nobody is silent.

    Args:
        own: The watcher's own part.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._reports: dict[str, float] = {}
        self._heard_s: dict[str, float] = {}

    def hear(self, reports: Mapping[str, Mapping[str, Any]], now_s: float) -> None:
        """Take the latest reports, `at_s` of each part among them."""
        for part, numbers in reports.items():
            at_s = float(numbers.get("at_s", 0))
            if self._reports.get(part) != at_s:
                self._reports[part] = at_s
                self._heard_s[part] = now_s

    def answered(self, part: str, now_s: float) -> None:
        """Know that a part has answered."""
        self._heard_s[part] = now_s

    def is_silent(self, part: str, now_s: float, silent_s: float) -> bool:
        """Return whether a part has been silent for so long, and the watcher has not."""
        own_s = now_s - self._heard_s.get(self._own, now_s - silent_s)
        return own_s < _FRESH_S and now_s - self._heard_s.get(part, now_s) > silent_s
