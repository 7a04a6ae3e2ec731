"""`raywire dead`: what is printed, what is asked, and the exit codes."""

import asyncio
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from rich.console import Console

from actors.errors import MessageError, UnavailableError
from actors.message import DeadLetter
from actors.partition import Keys
from actors.settings.tree import QueueSettings, Settings
from actors.store.interface import DeadRecord, NewMessage
from actors.store.memory.store import MemoryStore
from serve.cli import run
from serve.cli.dead_job import Selection, Verb, confirm_drop, list_letters, show_letter, work
from serve.cli.dead_print import print_details, print_table
from serve.cli.output import Exit
from serve.cli.system import System
from serve.dead.facts import facts_of, summary_of

LETTER = DeadLetter(0, "1000-0", "news", '{"n":1}', "", "clean", "ValueError: no", "", 3, 5.0)


@dataclass(frozen=True)
class MemorySystem(System):
    """A system whose store is in memory."""

    memory: MemoryStore = field(default_factory=lambda: MemoryStore(2))

    def store(self) -> Any:
        return self.memory


@pytest.fixture
def system(tmp_path: Path) -> MemorySystem:
    """With two letters that can be replayed, and one that cannot."""
    settings = Settings(data=tmp_path, queue=QueueSettings(partitions=2, entries_max=100))
    made = MemorySystem(settings, "redis://x", Keys(), 2, "127.0.0.1:1", None)
    made.memory.dead_letters.append(0, [LETTER, msgspec.structs.replace(LETTER, data="{")])
    made.memory.dead_letters.append(1, [msgspec.structs.replace(LETTER, channel="other:x")])
    return made


def ids(system: MemorySystem, partition: int) -> list[str]:
    records = asyncio.run(system.memory.dead_letters.read(partition, limit=9))
    return [record.id for record in records]


def test_list_is_json_lines_in_a_pipe(
    system: MemorySystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line has everything about a letter; newest first."""
    asyncio.run(list_letters(system, Selection(), limit=None, oldest=False, as_json=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["channel"] for line in lines] == ["other:x", "news", "news"]
    assert [line["data"] for line in lines] == [{"n": 1}, "{", {"n": 1}]
    assert {"id", "stage", "error", "traceback", "tags", "info", "attempts"} <= set(lines[0])


def test_list_on_a_terminal_says_when_there_is_more(
    system: MemorySystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of as many as wanted, and a hint on stderr."""
    asyncio.run(list_letters(system, Selection(), limit=2, oldest=True, as_json=False))
    captured = capsys.readouterr()
    assert captured.out.count("ValueError: no") == 2
    assert "--limit" in captured.err


def test_empty_list_is_no_error(system: MemorySystem, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what was looked for."""
    selection = Selection(channel="x*", stage="s")
    asyncio.run(list_letters(system, selection, limit=None, oldest=False, as_json=False))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "no dead letters of x* from stage s\n"


def test_show_of_an_unknown_id_names_the_reasons(system: MemorySystem) -> None:
    """It was there once, perhaps."""
    with pytest.raises(MessageError, match=r"dead\.records_max"):
        asyncio.run(show_letter(system, "0-1-1", as_json=True))


def test_show_prints_everything(system: MemorySystem, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object in a pipe."""
    asyncio.run(show_letter(system, ids(system, 1)[0], as_json=True))
    assert json.loads(capsys.readouterr().out)["channel"] == "other:x"


def test_replay_by_id(system: MemorySystem, capsys: pytest.CaptureFixture[str]) -> None:
    """Done once; the second time the letter is not there: exit code 4."""
    selection = Selection(ids=(ids(system, 0)[0],))
    assert work(system, Verb.REPLAY, selection, as_json=True) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["replayed"] == 1
    assert work(system, Verb.REPLAY, selection, as_json=False) == Exit.MESSAGE
    captured = capsys.readouterr()
    assert captured.out == "0 replayed; 1 were gone\n"
    assert selection.ids is not None
    assert f"there is no dead letter {selection.ids[0]}" in captured.err


def test_replay_of_all_names_what_stays(
    system: MemorySystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4; a namespace that the settings do not know is doubted, and replayed."""
    bad = ids(system, 0)[1]
    assert work(system, Verb.REPLAY, Selection(), as_json=True) == Exit.MESSAGE
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["replayed"], facts["refused"], facts["full"]) == (2, 1, [])
    assert f"{bad} cannot be replayed and stays: data is not JSON" in captured.err
    assert "other:x is not in the settings" in captured.err
    assert ids(system, 0) == [bad]
    assert ids(system, 1) == []


def test_replay_into_a_full_queue_is_to_be_tried_again(
    system: MemorySystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and the letter is kept."""
    full = Settings(data=system.settings.data, queue=QueueSettings(partitions=2, entries_max=1))
    system = replace(system, settings=full)
    asyncio.run(system.memory.enqueue(0, [NewMessage("news", b"1")], entries_max=1))
    selection = Selection(ids=(ids(system, 0)[0],))
    assert work(system, Verb.REPLAY, selection, as_json=True) == Exit.UNAVAILABLE
    captured = capsys.readouterr()
    assert json.loads(captured.out)["full"] == [0]
    assert "the queue of partition 0 is full" in captured.err
    assert len(ids(system, 0)) == 2


def test_server_that_goes_away_leaves_the_counts(
    system: MemorySystem, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done is told with the error."""

    async def gone(partition: int, places: Any) -> int:
        if partition == 1:
            raise UnavailableError("away")
        return len(places)

    monkeypatch.setattr(system.memory.dead_letters, "drop", gone)
    assert work(system, Verb.DROP, Selection(), as_json=True) == Exit.UNAVAILABLE
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"dropped": 2, "gone": 0, "interrupted": False}
    assert "away: what was done stays so" in captured.err


def test_interruption_leaves_the_counts(
    system: MemorySystem, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C: what was done is told, and stays done."""
    replay = system.memory.dead_letters.replay

    async def interrupted(partition: int, letters: Any, *, entries_max: int) -> Any:
        if partition == 1:
            raise KeyboardInterrupt
        return await replay(partition, letters, entries_max=entries_max)

    monkeypatch.setattr(system.memory.dead_letters, "replay", interrupted)
    assert work(system, Verb.REPLAY, Selection(), as_json=True) == Exit.INTERRUPTED
    facts = json.loads(capsys.readouterr().out)
    assert (facts["replayed"], facts["interrupted"]) == (1, True)
    assert len(ids(system, 0)) == len(ids(system, 1)) == 1


def test_drop_of_what_fits(system: MemorySystem, capsys: pytest.CaptureFixture[str]) -> None:
    """A filter that fits nothing is no error."""
    assert work(system, Verb.DROP, Selection(channel="zzz"), as_json=False) == Exit.DONE
    assert work(system, Verb.DROP, Selection(channel="other:*"), as_json=False) == Exit.DONE
    assert capsys.readouterr().out == "0 dropped\n1 dropped\n"
    assert (len(ids(system, 0)), ids(system, 1)) == (2, [])


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "y\n"])
def test_drop_of_many_is_confirmed(
    system: MemorySystem, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Anything but yes, the end of input too, leaves the letters alone."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", screen)
    if answer == "y\n":
        confirm_drop(system, Selection(channel="news"))
    else:
        with pytest.raises(typer.Exit) as ended:
            confirm_drop(system, Selection(channel="news"))
        assert ended.value.exit_code == Exit.INTERRUPTED
    assert "Delete 2 dead letters of news for good?" in screen.getvalue()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["replay"], "say which"),
        (["drop"], "say which"),
        (["replay", "1-2-3", "--all"], "say which"),
        (["drop", "--all", "--channel", "a"], "say which"),
        (["show", "oops"], "no id of a dead"),
        (["drop", "1-2-3", "oops"], "no id of a dead"),
        (["drop", "--all", "--redis", "redis://127.0.0.1:1"], "--yes"),
        (["list", "--limit", "0"], "--limit"),
    ],
)
def test_command_line_that_is_wrong(
    args: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, before anything is connected."""
    assert run(["dead", *args, "--data", str(tmp_path)]) == Exit.SETTINGS
    captured = capsys.readouterr()
    assert captured.out == ""
    assert text in " ".join(captured.err.replace("│", " ").split())


def test_nothing_that_runs_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 3, with what to do."""
    assert run(["dead", "list", "--data", str(tmp_path)]) == Exit.UNAVAILABLE
    assert "raywire up" in capsys.readouterr().err


def test_help_of_each_command_has_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """They are for scripts, which must know them."""
    for name in ("list", "show", "replay", "drop"):
        assert run(["dead", name, "--help"]) == Exit.DONE
        assert "Exit codes: 0" in capsys.readouterr().out


def test_terminal_obeys_nothing_that_stands_in_a_letter() -> None:
    """Neither control characters nor markup: channel, error and data are a stranger's."""
    evil = "\x1b[31m [red]x[/red]"
    letter = msgspec.structs.replace(
        LETTER, channel=evil, error=evil, data=evil, traceback=f"File\n{evil}", meta=evil
    )
    record = DeadRecord(0, "7-0", letter)
    screen = io.StringIO()
    console = Console(file=screen, width=200, highlight=False, emoji=False)
    print_table([summary_of(record)], console)
    print_details(facts_of(record), console)
    text = screen.getvalue()
    assert "\x1b" not in text
    assert text.count(r"\u001b[31m [red]x[/red]") == 7
    for expected in ("0-7-0", "1970-01-01", "(not JSON)", "cannot be: channel has", "entry 1000-0"):
        assert expected in text


def test_details_show_the_message_and_where_it_failed() -> None:
    """Data is indented, numbers keep their digits; tags, info and the rest of meta have lines."""
    letter = msgspec.structs.replace(
        LETTER,
        data='{"n":1.50}',
        meta='{"tags":{"k":"v"},"info":{"user":"u"},"key":"once"}',
        traceback='Traceback\n  File "x.py", line 3',
    )
    screen = io.StringIO()
    print_details(facts_of(DeadRecord(0, "7-0", letter)), Console(file=screen, width=100))
    text = screen.getvalue()
    for expected in ('  "n": 1.50', "k=v", '{"user": "u"}', '{"key": "once"}', '  File "x.py"'):
        assert expected in text
