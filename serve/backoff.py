"""How long to wait before trying again."""

import random
from typing import Final

_RANDOM: Final = random.Random()  # noqa: S311 - spreads load, keeps no secret


def backoff_s(attempt: int, *, first_s: float = 0.05, max_s: float = 2.0) -> float:
    """Return a random wait between half of `first_s * 2**attempt` and all of it, at most `max_s`.

    Random, so that edges that lost the same server do not come back in step.

    Args:
        attempt: How many tries have failed in a row, less one.
        first_s: The longest first wait.
        max_s: The longest wait.
    """
    # 2**60 times anything is over the limit; a larger exponent would overflow a float.
    longest_s = min(max_s, first_s * 2.0 ** min(attempt, 60))
    return _RANDOM.uniform(longest_s / 2, longest_s)
