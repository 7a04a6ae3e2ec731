"""Arithmetic of the nozzle: how long to wait, how much to read. No clock, no I/O."""

import random
from dataclasses import dataclass


def rest_s(*, began_s: float, now_s: float, pace_s: float) -> float:
    """Return how long to wait before the next batch, so that batches begin `pace_s` apart."""
    return max(0.0, began_s + pace_s - now_s)


def read_limit(*, entry_bytes: float, partitions: int, batch_max: int, batch_bytes_max: int) -> int:
    """Return how many entries of each partition to read, so that a batch stays small.

    XREAD counts entries, not bytes, so this goes by the size seen lately.

    Args:
        entry_bytes: Mean size of an entry, in bytes. 0: not known yet.
        partitions: How many partitions are read at once. At least 1.
        batch_max: Most entries of one partition.
        batch_bytes_max: Bytes that a batch should not exceed.
    """
    if entry_bytes <= 0:
        return batch_max
    return max(1, min(batch_max, int(batch_bytes_max / entry_bytes / partitions)))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_s` to `max_s`, each drawn from its upper half.

    The jitter keeps several who lost the same server from coming back in step.
    """

    first_s: float = 0.05
    max_s: float = 2.0

    def wait_s(self, failures: int) -> float:
        """Return the wait after so many failures in a row (from 1 on)."""
        full = min(self.max_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
