"""What a run found, as JSON and as tables."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.pulse import Pulse
from tests.chaos.striker import Done
from tests.chaos.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Interruption:
    """How long one kind of strike kept messages away from a subscriber.

    Attributes:
        what: The kind.
        strikes: How many were done.
        measured: How many of them nothing else came between.
        median_s, longest_s: Of those; a probe's whole way, its usual latency included.
    """

    what: str
    strikes: int
    measured: int
    median_s: float | None
    longest_s: float | None


@dataclass(slots=True)
class Report:
    """All that a run found.

    Attributes:
        seed: Of the plan.
        verdict: What broke a promise about messages.
        troubles: What broke another one: no recovery, processes left, terminal codes.
        interruptions: By kind.
        numbers: How much happened at all.
    """

    seed: int
    verdict: Verdict
    troubles: list[str]
    interruptions: list[Interruption]
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict.good and not self.troubles

    def as_json(self) -> dict[str, Any]:
        """Return everything, for machines."""
        return {"good": self.good, **asdict(self)}

    def show(self, console: Console) -> None:
        """Print everything, for people."""
        table = Table("struck", "times", "median s", "longest s", title=f"Seed {self.seed}")
        for each in self.interruptions:
            seconds = ["-" if s is None else f"{s:.2f}" for s in (each.median_s, each.longest_s)]
            table.add_row(each.what, str(each.strikes), *seconds)
        console.print(table)
        counts = {name: n for name, n in asdict(self.verdict).items() if name != "examples"}
        for row in (self.numbers, counts):
            console.print(", ".join(f"{name} {n:,}" for name, n in row.items()))
        for line in (*self.verdict.examples, *self.troubles):
            console.print(line, markup=False)
        console.print("[green]good[/]" if self.good else "[bold red]promises were broken[/]")


def interruptions(done: Sequence[Done], pulse: Pulse) -> list[Interruption]:
    """Return the interruptions by kind, longest median first."""
    strikes: dict[str, list[Done]] = {}
    for each in done:
        if not each.missed:
            strikes.setdefault(each.strike.kind.value, []).append(each)
    found = []
    for what, all_of_it in strikes.items():
        # From a little earlier: what was under way then is held up as well.
        worst = [pulse.worst_s(d.at_s - 0.5, d.until_s) for d in all_of_it if d.alone]
        found.append(
            Interruption(
                what,
                len(all_of_it),
                len(worst),
                round(statistics.median(worst), 2) if worst else None,
                round(max(worst), 2) if worst else None,
            )
        )
    return sorted(found, key=lambda each: -(each.median_s or 0))
