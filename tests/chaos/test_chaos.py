"""A short run against the real system. `make chaos` makes long ones."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, run
from tests.chaos.schedule import KILLS, Kind

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

KINDS = (
    *KILLS,
    Kind.KILL_VALKEY,
    Kind.FREEZE_VALKEY,
    Kind.CUT_VALKEY,
    Kind.CUT_SOME_OF_VALKEY,
    Kind.CUT_SOCKETS,
    Kind.FREEZE_EDGE,
)


async def test_strikes_lose_nothing(tmp_path: Path) -> None:
    """Any actor may die at any moment; so may the server, edges, and all their connections."""
    plan = Plan(seed=1, chaos_s=18, rate=600.0, kinds=KINDS)
    report = await run(plan, tmp_path, print)  # shown where the test fails
    assert report.good, report.as_json()
    # Something has happened at all.
    assert report.numbers["strikes"] >= 5
    assert report.numbers["accepted"] > 1000
    assert report.numbers["received"] > 1000
