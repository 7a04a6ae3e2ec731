"""Transforms are tried in a fresh process: what is wrong shows before anything is touched."""

import threading
import time
from pathlib import Path

import pytest

from actors.errors import SettingsError, UnavailableError
from actors.settings.servers import RaySettings
from actors.settings.tree import Settings, StageSettings, TransformSettings
from serve.system.code_check import check_code


def settings(code: Path, text: str, **more: object) -> Settings:
    """Settings with one transform `tried:f` of this text."""
    (code / "tried.py").write_text(text)
    stage = StageSettings.model_validate(
        {"transforms": (TransformSettings(use="tried:f"),), **more}
    )
    return Settings(code=code, stages=(stage,))


def check(given: Settings) -> dict[str, str]:
    """Check without a stop."""
    return check_code(given, threading.Event(), within_s=60)


def test_digests_tell_whether_code_changed(tmp_path: Path) -> None:
    """Also where a module changed that the transform's imports."""
    (tmp_path / "below.py").write_text("N = 1\n")
    given = settings(tmp_path, "from below import N\ndef f(m): return m\n")
    first = check(given)
    assert {Path(path).name for path in first} == {"tried.py", "below.py"}
    assert check(given) == first
    (tmp_path / "below.py").write_text("N = 22\n")
    assert {path for path, digest in check(given).items() if digest != first[path]} == {
        str(tmp_path / "below.py")
    }


def test_error_shows_the_users_line(tmp_path: Path) -> None:
    """As at the start."""
    with pytest.raises(SettingsError) as raised:
        check(settings(tmp_path, "x = 1\ny = x / 0\n"))
    assert "ZeroDivisionError" in str(raised.value)
    assert "tried.py, line 2" in str(raised.value)


SET_UP = """
class f:
    def set_up(self): raise OSError("no such model")
    def __call__(self, m): return m
"""


def test_transforms_are_set_up(tmp_path: Path) -> None:
    """What fails only then shows before the old ones are ended."""
    with pytest.raises(SettingsError, match="no such model"):
        check(settings(tmp_path, SET_UP))


def test_what_this_machine_may_lack_is_not_set_up(tmp_path: Path) -> None:
    """GPUs, resources, other machines."""
    check(settings(tmp_path, SET_UP, num_gpus=1))
    check(settings(tmp_path, SET_UP, resources={"here": 1}))
    elsewhere = RaySettings(address="auto")
    check(settings(tmp_path, SET_UP).model_copy(update={"ray": elsewhere}))


def test_code_that_ends_its_process_is_an_error(tmp_path: Path) -> None:
    """With the exit code, and what it said last."""
    text = "import os, sys\nprint('bye', file=sys.stderr, flush=True)\nos._exit(7)\n"
    with pytest.raises(SettingsError, match=r"exit code 7.*bye"):
        check(settings(tmp_path, text))


def test_what_transforms_print_does_no_harm(tmp_path: Path) -> None:
    """Neither in the answer nor on our stdout."""
    assert check(settings(tmp_path, "print('{}' * 100_000)\ndef f(m): return m\n"))


ENDLESS = "import time\nwhile True: time.sleep(0.1)\n"


def test_stop_ends_it(tmp_path: Path) -> None:
    """Code that hangs hinders no Ctrl-C."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnavailableError, match="stopping"):
        check_code(settings(tmp_path, ENDLESS), stop, within_s=60)


def test_it_may_not_take_for_ever(tmp_path: Path) -> None:
    """Code that hangs is an error in the end."""
    began_s = time.monotonic()
    with pytest.raises(UnavailableError, match="longer than"):
        check_code(settings(tmp_path, ENDLESS), threading.Event(), within_s=0.5)
    assert time.monotonic() - began_s < 60
