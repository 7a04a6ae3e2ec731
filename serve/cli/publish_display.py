"""What a person sees while `raywire publish` runs: progress on a terminal, else what matters."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

REFUSALS_SHOWN_MAX: Final = 100
_SAY_AGAIN_S: Final = 10.0


class Display:
    """Progress and complaints, on stderr."""

    def __init__(
        self, console: Console, *, live: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._start_s = clock()
        self._said: dict[str, float] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.completed:,.0f}[/] messages"),
            TextColumn("{task.fields[per_s]:,.0f}/s"),
            TextColumn("queue {task.fields[queue]:,}"),
            TimeElapsedColumn(),
            TextColumn("[yellow]{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not live,
        )
        self._task = self._progress.add_task("publish", total=None, per_s=0.0, queue=0, note="")
        self.live = live
        self.refused = 0

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def accepted(self, total: int) -> None:
        """Show how many messages are in the queue by now; whatever it waited for is over."""
        elapsed_s = self._clock() - self._start_s
        per_s = total / elapsed_s if elapsed_s > 0 else 0.0
        self._progress.update(self._task, completed=total, per_s=per_s, note="")

    def queue(self, length: int) -> None:
        """Show how many entries wait in the channel's partition."""
        self._progress.update(self._task, queue=length)

    def waits(self, why: str) -> None:
        """Show why it waits. Without a terminal: a line, and again after some seconds at most."""
        self._progress.update(self._task, note=f"waiting: {why}")
        now_s = self._clock()
        if not self.live and now_s >= self._said.get(why, float("-inf")) + _SAY_AGAIN_S:
            self._said[why] = now_s
            self._print(f"waiting: {why}")

    def refuse(self, line: int, why: str) -> None:
        """Count a line that cannot be published, and show the first hundred of them."""
        self.refused += 1
        if self.refused <= REFUSALS_SHOWN_MAX:
            self._print(f"line {line}: {why}")
        elif self.refused == REFUSALS_SHOWN_MAX + 1:
            self._print("further lines that cannot be published are counted, not shown")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
