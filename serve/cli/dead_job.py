"""What the commands of `raywire dead` do once they know which letters."""

import asyncio
import enum
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors.errors import MessageError, UnavailableError
from actors.message import DeadLetter
from actors.store.dead_letter import parse_letter_id
from actors.store.interface import DeadLetters
from serve.cli.dead_print import TABLE_MAX, print_details, print_json_line, print_table
from serve.cli.output import Exit, err, print_error, print_json, print_text, print_warning
from serve.cli.system import System
from serve.dead.actions import Drop, Replay, Tally, Wanted, find
from serve.dead.facts import facts_of, summary_of


class Verb(enum.Enum):
    """What is done with letters; the value is how it is reported."""

    REPLAY = "replayed"
    DROP = "dropped"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters: those with these ids, else those that fit; without any of it, all."""

    ids: tuple[str, ...] | None = None
    channel: str | None = None
    stage: str | None = None

    @property
    def wanted(self) -> Wanted:
        """Return the filter."""
        return Wanted(self.channel, self.stage)

    def __str__(self) -> str:
        parts = [
            f" of {self.channel}" if self.channel is not None else "",
            f" from stage {self.stage}" if self.stage is not None else "",
        ]
        return "".join(parts)


async def list_letters(
    system: System, selection: Selection, *, limit: int | None, oldest: bool, as_json: bool
) -> None:
    """Print the letters that are wanted."""
    shown_max = limit if as_json or limit is not None else TABLE_MAX
    # One more than a table shows tells whether there are more.
    read_max = shown_max if as_json or shown_max is None else shown_max + 1
    async with _letters(system) as letters:
        found = find(
            letters,
            range(system.partitions),
            selection.wanted,
            limit=read_max,
            oldest_first=oldest,
        )
        if as_json:
            async for record in found:
                print_json_line(facts_of(record))
            return
        summaries = [summary_of(record) async for record in found]
    if not summaries:
        err().print(f"no dead letters{selection}", markup=False, soft_wrap=True)
        return
    print_table(summaries[:shown_max])
    if shown_max is not None and len(summaries) > shown_max:
        err().print(f"only the first {shown_max}: --limit N shows more", markup=False)


async def show_letter(system: System, letter_id: str, *, as_json: bool) -> None:
    """Print everything about a letter.

    Raises:
        MessageError: There is none with this id.
    """
    async with _letters(system) as letters:
        record = await letters.get(*parse_letter_id(letter_id))
    if record is None:
        raise MessageError(_missing(letter_id))
    if as_json:
        print_json_line(facts_of(record))
    else:
        print_details(facts_of(record))


def confirm_drop(system: System, selection: Selection) -> None:
    """Let a person confirm that letters are deleted.

    Raises:
        typer.BadParameter: There is nobody to ask.
        typer.Exit: The answer is no, or there is nothing to drop.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter("there is no terminal to ask on: give --yes to drop many")
    number = asyncio.run(_count(system, selection))
    if not number:
        return
    try:
        what = "1 dead letter" if number == 1 else f"{number:,} dead letters"
        sure = typer.confirm(f"Delete {what}{selection} for good?", err=True)
    except typer.Abort:
        sure = False
    if not sure:
        err().print("nothing dropped")
        raise typer.Exit(Exit.INTERRUPTED)


def work(system: System, verb: Verb, selection: Selection, *, as_json: bool) -> Exit:
    """Replay or drop letters, print what became of them, and return the exit code."""
    tally = Tally()
    missing: list[str] = []
    failure: UnavailableError | None = None
    interrupted = False
    try:
        asyncio.run(_work(system, verb, selection, tally, missing))
    except UnavailableError as error:
        failure = error
    except KeyboardInterrupt:
        interrupted = True
    for complaint in _complaints(system, tally, missing, failure):
        print_error(complaint)
    if as_json:
        print_json(_facts(verb, tally, interrupted=interrupted))
    else:
        print_text(_sentence(verb, tally, interrupted=interrupted))
    if interrupted:
        return Exit.INTERRUPTED
    if failure is not None or tally.full:
        return Exit.UNAVAILABLE
    return Exit.MESSAGE if tally.refused or missing else Exit.DONE


async def _work(
    system: System, verb: Verb, selection: Selection, tally: Tally, missing: list[str]
) -> None:
    async with _letters(system) as letters:
        entries_max = system.settings.queue.entries_max
        job: Drop | Replay = Drop(letters, tally)
        if verb is Verb.REPLAY:
            job = Replay(letters, tally, entries_max=entries_max, check=_Doubts(system).note)
        if selection.ids is not None:
            missing += await job.by_ids(selection.ids)
            return
        partitions = range(system.partitions)
        total = sum((await letters.count(partitions)).values())
        with _progress() as progress:
            task = progress.add_task(verb.value, total=total)
            await job.wanted(partitions, selection.wanted, partial(progress.advance, task))


def _complaints(
    system: System, tally: Tally, missing: Sequence[str], failure: UnavailableError | None
) -> list[str]:
    """Return what the user must know beside the counts, a line each."""
    lines = [f"{letter_id} cannot be replayed and stays: {why}" for letter_id, why in tally.reasons]
    if tally.refused > len(tally.reasons):
        lines.append(f"{tally.refused - len(tally.reasons):,} more like these are not shown")
    lines += map(_missing, missing)
    if tally.full:
        full = ", ".join(map(str, sorted(tally.full)))
        lines.append(
            f"the queue of partition {full} is full ({system.settings.queue.entries_max:,} "
            "entries): what is not replayed is kept; do it again when `raywire status` shows room"
        )
    if failure is not None:
        lines.append(f"{failure}: what was done stays so, and it may be done again")
    return lines


def _missing(letter_id: str) -> str:
    return (
        f"there is no dead letter {letter_id}: it was replayed or dropped, or newer ones pushed "
        "it out (dead.records_max)"
    )


def _facts(verb: Verb, tally: Tally, *, interrupted: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {verb.value: tally.done, "gone": tally.gone}
    if verb is Verb.REPLAY:
        facts |= {"refused": tally.refused, "full": sorted(tally.full)}
    return facts | {"interrupted": interrupted}


def _sentence(verb: Verb, tally: Tally, *, interrupted: bool) -> str:
    parts = [f"{tally.done:,} {verb.value}"]
    if tally.refused:
        parts.append(f"{tally.refused:,} cannot be replayed and stay")
    if tally.gone:
        parts.append(f"{tally.gone:,} were gone")
    return "; ".join(parts) + (" (interrupted)" if interrupted else "")


class _Doubts:
    """Says, once for each channel's namespace, that the settings seen here do not know it.

    The letter is replayed all the same: the running system's settings may be others.
    """

    def __init__(self, system: System) -> None:
        self._knows = system.settings.channel_settings
        self._said: set[str] = set()

    def note(self, letter: DeadLetter) -> None:
        """Look at a letter that is about to be replayed."""
        namespace = letter.channel.partition(":")[0]
        if namespace not in self._said and self._knows(letter.channel) is None:
            self._said.add(namespace)
            print_warning(
                f"the namespace of {letter.channel} is not in the settings seen here: unless the "
                "running system knows it, its letters will die again"
            )


async def _count(system: System, selection: Selection) -> int:
    async with _letters(system) as letters:
        found = find(letters, range(system.partitions), selection.wanted)
        return len([record.id async for record in found])


@asynccontextmanager
async def _letters(system: System) -> AsyncIterator[DeadLetters]:
    store = system.store()
    try:
        yield store.dead_letters
    finally:
        await store.close()


def _progress() -> Progress:
    console = err()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
