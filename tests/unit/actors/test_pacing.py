"""The nozzle's arithmetic."""

import pytest

from actors.pacing import Backoff, read_limit, rest_s


@pytest.mark.parametrize(
    ("now_s", "wait_s"), [(10.0, 0.004), (10.003, 0.001), (10.004, 0.0), (11.0, 0.0)]
)
def test_batches_begin_a_pace_apart(now_s: float, wait_s: float) -> None:
    """What the batch took is part of the pace; a slow one is not made slower."""
    assert rest_s(began_s=10.0, now_s=now_s, pace_s=0.004) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("entry_bytes", "limit"), [(0, 400), (200, 400), (1000, 125), (65_536, 1), (10**9, 1)]
)
def test_large_entries_make_small_reads(entry_bytes: float, limit: int) -> None:
    """A batch keeps to its bytes, but always makes headway."""
    found = read_limit(
        entry_bytes=entry_bytes, partitions=8, batch_max=400, batch_bytes_max=1_000_000
    )
    assert found == limit


def test_backoff_doubles_to_its_limit() -> None:
    """Waits lie in the upper half of a doubling, limited time."""
    backoff = Backoff(first_s=0.1, max_s=1.0)
    for failures, full in [(1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (1000, 1.0)]:
        assert full / 2 <= backoff.wait_s(failures) <= full
