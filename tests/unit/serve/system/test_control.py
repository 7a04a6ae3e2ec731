"""Asking a running system: one request at a time, progress, and one end."""

import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.errors import SettingsError, UnavailableError
from serve.system.control import BUSY, Ask, Control, ask

RELOAD = {"ask": "reload"}


def taken(control: Control) -> Ask:
    """The request that has come, or comes."""
    came = threading.Event()
    while (found := control.take()) is None:
        assert not came.wait(0.01)
    return found


def asking(path: Path) -> tuple[threading.Thread, list[Any]]:
    """Ask in a thread; what comes, or the error, is in the list when it has ended."""
    events: list[Any] = []

    def run() -> None:
        try:
            events.extend(ask(path, RELOAD))
        except (SettingsError, UnavailableError) as error:
            events.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, events


def test_asker_gets_progress_and_the_end(tmp_path: Path) -> None:
    """In order; the request is taken once."""
    with Control(tmp_path) as control:
        thread, events = asking(control.path)
        request = taken(control)
        assert control.take() is None
        request.tell("one")
        request.tell("two")
        request.done({"changed": ["a"]})
        thread.join(10)
    assert [event.get("text") for event in events] == ["one", "two", None]
    assert events[-1] == {"event": "done", "changed": ["a"]}


@pytest.mark.parametrize("kind", [SettingsError, UnavailableError])
def test_errors_are_raised_where_it_was_asked(
    tmp_path: Path, kind: Callable[[str], Exception]
) -> None:
    """With their kind and text."""
    with Control(tmp_path) as control:
        thread, events = asking(control.path)
        taken(control).fail(kind("a: wrong\nb: too"))
        thread.join(10)
    assert [(type(e), str(e)) for e in events] == [(kind, "a: wrong\nb: too")]


def test_second_request_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    """At once, with a clear line."""
    with Control(tmp_path) as control:
        thread, events = asking(control.path)
        first = taken(control)
        with pytest.raises(UnavailableError, match=BUSY):
            list(ask(control.path, RELOAD))
        first.done({})
        thread.join(10)
        thread, events = asking(control.path)
        taken(control).done({})
        thread.join(10)
        assert events == [{"event": "done"}]


def test_end_of_the_owner_ends_the_request(tmp_path: Path) -> None:
    """Whoever waits is told; the socket is gone."""
    with Control(tmp_path) as control:
        thread, events = asking(control.path)
        taken(control)
    thread.join(10)
    assert str(events[0]) == "the system is stopping"
    assert not control.path.exists()


def test_asker_that_goes_away_is_not_missed(tmp_path: Path) -> None:
    """Its request goes on, and the next may come."""
    with Control(tmp_path) as control:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.connect(str(control.path))
            gone.sendall(b'{"ask": "reload"}\n')
            request = taken(control)
        request.tell("one")
        request.done({})
        thread, events = asking(control.path)
        taken(control).done({})
        thread.join(10)
        assert events == [{"event": "done"}]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"ask": "dance"}\n', b""])
def test_unknown_requests_are_refused(tmp_path: Path, line: bytes) -> None:
    """Without hindering the next."""
    with Control(tmp_path) as control:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(control.path))
            peer.sendall(line)
            peer.shutdown(socket.SHUT_WR)
            assert b"does not know" in peer.recv(1000)
        assert control.take() is None


def test_only_the_owner_may_ask(tmp_path: Path) -> None:
    """The socket's mode says so."""
    with Control(tmp_path) as control:
        assert stat.S_IMODE(control.path.stat().st_mode) == 0o600


def test_directory_of_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    """A socket's path has about a hundred bytes; it is made elsewhere then."""
    data = tmp_path / ("x" * 120)
    data.mkdir()
    with Control(data) as control:
        thread, events = asking(control.path)
        taken(control).done({})
        thread.join(10)
        elsewhere = control.path.parent
    assert events == [{"event": "done"}]
    assert not elsewhere.exists()


def test_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    """What a process left that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    with Control(tmp_path) as control:
        thread, events = asking(control.path)
        taken(control).done({})
        thread.join(10)
    assert events == [{"event": "done"}]


def test_nobody_to_ask_is_one_clear_line(tmp_path: Path) -> None:
    """The path and the reason."""
    with pytest.raises(UnavailableError, match="cannot be asked by"):
        list(ask(tmp_path / "control.sock", RELOAD))
