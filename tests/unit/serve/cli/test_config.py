"""The command line as a whole, and `raywire config`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import serve.cli
from actors.errors import MessageError, SettingsError, UnavailableError
from serve.cli import COMMANDS, run
from serve.cli.config import mask_url
from serve.system.running import DataLock, Running, write_running


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


class TestMain:
    def test_help_names_every_command_and_the_exit_codes(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["--help"]) == 0

        text = capsys.readouterr().out
        assert all(name in text for name in COMMANDS)
        assert "130" in text

    def test_help_imports_nothing_heavy(self) -> None:
        """`raywire --help` answers at once: no Ray, no Redis, no FastAPI, no command."""
        code = (
            "import sys, serve.cli; serve.cli.run(['--help']);"
            "heavy = {'ray', 'redis', 'fastapi', 'uvicorn', 'pydantic', 'serve.app'};"
            "heavy |= {f'serve.cli.{name}' for name in serve.cli.COMMANDS};"
            "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
        )

        root = Path(serve.cli.__file__).parents[2]
        ended = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            capture_output=True,
            text=True,
            cwd=root,
        )

        assert ended.returncode == 0, ended.stderr

    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (SettingsError("a: wrong\nb: wrong"), 2, "error: a: wrong\nerror: b: wrong\n"),
            (UnavailableError("gone"), 3, "error: gone\n"),
            (MessageError("too [long]"), 4, "error: too [long]\n"),
            (ExceptionGroup("tasks", [UnavailableError("gone")]), 3, "error: gone\n"),
            (KeyboardInterrupt(), 130, ""),
        ],
    )
    def test_errors_become_a_line_each_and_an_exit_code(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: BaseException,
        code: int,
        text: str,
    ) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(serve.cli, "_command", lambda _: fail)

        assert run(["version"]) == code
        assert capsys.readouterr().err == text

    def test_unexpected_error_shows_its_traceback_and_a_hint(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(serve.cli, "_command", lambda _: fail)

        assert run(["version"]) == 1
        text = capsys.readouterr().err
        assert "ZeroDivisionError" in text
        assert "report it" in text

    def test_unknown_command_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["pubish"]) == 2
        assert "publish" in capsys.readouterr().err

    def test_version_names_what_it_runs_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["version"]) == 0
        assert set(printed(capsys)) == {"raywire", "ray", "valkey", "python"}


class TestConfig:
    def test_values_and_sources_are_printed_without_secrets(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "raywire.yaml").write_text("app: mine\n")
        monkeypatch.setenv("RAYWIRE_AUTH__API_KEY", "hidden")

        assert run(["config", "--redis", "redis://u:hidden@host/0"]) == 0

        captured = capsys.readouterr()
        assert "hidden" not in captured.out + captured.err
        found = json.loads(captured.out)
        assert set(found) == {"settings", "sources", "running"}
        assert found["settings"]["app"] == "mine"
        assert found["sources"]["app"] == "raywire.yaml:1"
        assert found["settings"]["auth"]["api_key"] == "***"
        assert found["settings"]["auth"]["token_secret"] is None
        assert found["sources"]["auth.api_key"] == "RAYWIRE_AUTH__API_KEY"
        assert found["settings"]["redis"]["url"] == "redis://u:***@host/0"
        assert found["sources"]["redis.url"] == "--redis"
        assert found["running"] is None

    def test_secrets_are_shown_where_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["config", "--redis", "redis://:pw@host/0", "--show-secrets"]) == 0
        assert printed(capsys)["settings"]["redis"]["url"] == "redis://:pw@host/0"

    def test_running_system_is_shown_with_its_redis(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        running = Running(os.getpid(), "a:1", "a:2", "redis://:pw@h:1/0", "raywire", 8, 1.0)
        with DataLock(tmp_path):
            write_running(tmp_path, running)

            assert run(["config", "--data", str(tmp_path)]) == 0

        assert printed(capsys)["running"]["redis_url"] == "redis://:***@h:1/0"

    def test_file_that_is_right_is_ok(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """`--check` judges the file alone: a wrong variable does not matter."""
        monkeypatch.setenv("RAYWIRE_NO_SUCH", "1")
        file = tmp_path / "some.yaml"
        file.write_text("app: mine\n")

        assert run(["config", "--check", str(file)]) == 0
        assert capsys.readouterr().out == "ok\n"

    def test_every_error_of_a_file_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "some.yaml"
        file.write_text("ap: mine\nqueue: {partitions: 0}\n")

        assert run(["config", "--check", str(file)]) == 2

        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == (
            "error: queue.partitions (some.yaml:2): is 0: give 1 or more\n"
            "error: ap (some.yaml:1): unknown setting: did you mean app?\n"
        )

    def test_transform_that_cannot_be_imported_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "some.yaml"
        file.write_text("stages: [{transforms: [{use: 'no_such_module_here:f'}]}]\n")

        assert run(["config", "--check", str(file)]) == 2
        assert "no_such_module_here" in capsys.readouterr().err

    def test_url_of_no_server_that_we_know_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "some.yaml"
        file.write_text("redis: {url: 'http://:hidden@host'}\n")

        assert run(["config", "--check", str(file)]) == 2
        told = capsys.readouterr().err
        assert "redis.url: 'http://:***@host' is not a URL we know" in told

    def test_reference_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["config", "--reference"]) == 0
        assert "`entries_max`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user@host", "redis://user@host"),
        ("rediss://user:p@ss:w/rd@host:1", "rediss://user:***@host:1"),
        ("redis+sentinel://:pw@a:1,b:2/main/0", "redis+sentinel://:***@a:1,b:2/main/0"),
        ("unix:///run/v.sock?db=1&password=pw", "unix:///run/v.sock?db=1&password=***"),
    ],
)
def test_password_of_a_url_is_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked
