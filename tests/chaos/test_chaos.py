"""Two short runs against the real system. `make chaos` makes long ones."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, run
from tests.chaos.schedule import KILLS, Kind

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

RATE = 600.0


async def check(plan: Plan, work: Path) -> None:
    """Run, and require that every promise was kept, and that something has happened at all."""
    report = await run(plan, work, print)  # shown where the test fails
    assert report.good, report.as_json()
    assert report.numbers["strikes"] >= 3
    assert report.numbers["accepted"] > 1000
    assert report.numbers["received"] > 1000


async def test_killed_actors_lose_nothing(tmp_path: Path) -> None:
    """Every actor may die at any moment."""
    await check(Plan(seed=1, chaos_s=16, rate=RATE, kinds=KILLS), tmp_path)


async def test_killed_valkey_and_broken_connections_lose_nothing(tmp_path: Path) -> None:
    """The server may die, freeze, or close its connections; so may an edge and its clients."""
    kinds = (
        Kind.KILL_VALKEY,
        Kind.FREEZE_VALKEY,
        Kind.CUT_VALKEY,
        Kind.CUT_SOME_OF_VALKEY,
        Kind.CUT_SOCKETS,
        Kind.FREEZE_EDGE,
    )
    await check(Plan(seed=2, chaos_s=16, rate=RATE, kinds=kinds), tmp_path)
