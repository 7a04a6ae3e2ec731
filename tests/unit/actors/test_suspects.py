"""Suspects: halves, until one entry is alone."""

import math

from hypothesis import given
from hypothesis import strategies as st

from actors.suspects import Suspects


@given(
    count=st.integers(1, 400),
    poison=st.data(),
    crashes_max=st.integers(1, 4),
)
def test_guilty_entry_is_found_and_all_others_pass(
    count: int, poison: st.DataObject, crashes_max: int
) -> None:
    """One guilty entry costs at most log2(batch) + crashes_max processes; no other is buried."""
    guilty = poison.draw(st.integers(1, count))
    suspects = Suspects({3: f"{count}-0"}, batch_max=400, crashes_max=crashes_max)
    done = crashes = 0
    buried = []
    while suspects.partitions():
        batch = range(done + 1, min(done + suspects.limit, count) + 1)
        if guilty in batch:
            crashes += 1
            if not suspects.crashed(len(batch)):
                continue
            buried += list(batch)
        done = batch[-1]
        suspects.passed(3, f"{done}-0")
    assert buried == [guilty]
    assert done == count
    assert crashes <= math.ceil(math.log2(count)) + crashes_max


def test_entry_that_passes_at_last_is_innocent() -> None:
    """Crashes count only as long as they follow one another."""
    suspects = Suspects({0: "2-0"}, batch_max=1, crashes_max=2)
    assert not suspects.crashed(1)
    suspects.passed(0, "1-0")
    assert not suspects.crashed(1)
    assert suspects.crashed(1)


def test_partitions_are_cleared_one_by_one() -> None:
    """A partition whose suspects are gone, or through, is not asked for again."""
    suspects = Suspects({0: "5-0", 1: "10-0"}, batch_max=10, crashes_max=1)
    suspects.cleared(0)
    assert suspects.partitions() == [1]
    suspects.passed(1, "9-9")
    assert suspects.partitions() == [1]
    suspects.passed(1, "11-0")
    assert suspects.partitions() == []
