"""A seed fixes the plan."""

from itertools import islice

from tests.chaos.schedule import FREEZE_S, KILLS, PAUSE_S_MAX, Kind, strikes


def test_same_seed_same_plan() -> None:
    """A run can be repeated; another seed is another run."""
    plan = list(islice(strikes(7), 100))
    assert plan == list(islice(strikes(7), 100))
    assert plan != list(islice(strikes(8), 100))


def test_each_round_has_every_kind() -> None:
    """No kind is left to chance."""
    plan = list(islice(strikes(1), 2 * len(Kind)))
    for start in (0, len(Kind)):
        assert {strike.kind for strike in plan[start : start + len(Kind)]} == set(Kind)


def test_only_the_kinds_asked_for() -> None:
    """A short run may be limited."""
    assert {strike.kind for strike in islice(strikes(1, KILLS), 50)} == set(KILLS)


def test_times_are_within_their_limits() -> None:
    """Nothing is frozen, or waited for, longer than the limits say."""
    for strike in islice(strikes(1), 500):
        assert FREEZE_S[0] <= strike.hold_s <= FREEZE_S[1]
        assert 0 <= strike.pause_s <= PAUSE_S_MAX
        assert 0 <= strike.choice < 1
