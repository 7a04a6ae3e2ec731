"""What a running system leaves in its data directory: lock, address, secrets."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from actors.errors import SettingsError
from actors.settings.tree import AuthSettings, Settings
from serve.system.running import (
    DataLock,
    Running,
    ensure_secrets,
    read_running,
    remove_running,
    write_running,
)

HERE = Running(
    pid=os.getpid(),
    listen="127.0.0.1:8000",
    serve_listen="127.0.0.1:8001",
    redis_url="redis://:hidden@127.0.0.1:6379/0",
    app="raywire",
    partitions=8,
    started_at_s=1.5,
)
_TAKE_AND_DIE = """
import os, sys
from pathlib import Path
from serve.system.running import DataLock, Running, write_running
data = Path(sys.argv[1])
DataLock(data).__enter__()
write_running(data, Running(os.getpid(), "a:1", "a:2", "redis://", "raywire", 8, 1.0))
os.kill(os.getpid(), 9)
"""


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


class TestRunning:
    def test_running_system_is_found_while_it_holds_the_lock(self, tmp_path: Path) -> None:
        with DataLock(tmp_path):
            write_running(tmp_path, HERE)
            assert read_running(tmp_path) == HERE
        assert read_running(tmp_path) is None

    def test_what_a_killed_system_left_is_not_believed(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-c", _TAKE_AND_DIE, str(tmp_path)], check=False)

        assert (tmp_path / "run.json").exists()
        assert read_running(tmp_path) is None
        with DataLock(tmp_path):
            pass

    def test_removed_or_damaged_address_is_none(self, tmp_path: Path) -> None:
        with DataLock(tmp_path):
            write_running(tmp_path, HERE)
            remove_running(tmp_path)
            assert read_running(tmp_path) is None
            (tmp_path / "run.json").write_text('{"pid": 1}')
            assert read_running(tmp_path) is None
        remove_running(tmp_path)
        remove_running(tmp_path)

    def test_address_is_private_and_its_text_hides_the_password(self, tmp_path: Path) -> None:
        data = tmp_path / "new" / "data"

        write_running(data, HERE)

        assert mode_of(data) == 0o700
        assert mode_of(data / "run.json") == 0o600
        assert "hidden" not in repr(HERE)
        assert [path.name for path in data.iterdir()] == ["run.json"]


class TestDataLock:
    def test_second_system_on_the_same_data_is_refused_with_the_remedy(
        self, tmp_path: Path
    ) -> None:
        with (
            DataLock(tmp_path),
            pytest.raises(SettingsError, match=rf"pid {os.getpid()}.*--data"),
            DataLock(tmp_path),
        ):
            pass

    def test_lock_can_be_taken_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            with DataLock(tmp_path):
                pass

    def test_child_process_does_not_keep_the_lock(self, tmp_path: Path) -> None:
        """Else a Valkey or Ray that outlives `up` for a moment would bar the next one."""
        with DataLock(tmp_path):
            child = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
            )
        with child, DataLock(tmp_path):
            child.communicate(b"\n")

    def test_directory_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        with pytest.raises(SettingsError, match="--data"), DataLock(tmp_path / "file" / "data"):
            pass


class TestSecrets:
    def test_secrets_are_made_once_and_kept_private(self, tmp_path: Path) -> None:
        settings = Settings(data=tmp_path / "data")

        first = ensure_secrets(settings)

        assert ensure_secrets(settings) == first
        assert len(set(dataclasses.astuple(first))) == 3
        assert min(map(len, dataclasses.astuple(first))) >= 43
        assert mode_of(tmp_path / "data" / "secrets.json") == 0o600
        assert first.api_key not in repr(first)

    def test_settings_win_over_what_is_kept(self, tmp_path: Path) -> None:
        kept = ensure_secrets(Settings(data=tmp_path))

        found = ensure_secrets(
            Settings(data=tmp_path, auth=AuthSettings(api_key=SecretStr("given")))
        )

        assert found == dataclasses.replace(kept, api_key="given")

    def test_secrets_made_at_the_same_time_are_the_same(self, tmp_path: Path) -> None:
        settings = Settings(data=tmp_path)

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ensure_secrets, [settings] * 16))

        assert found == [found[0]] * 16
        assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"api_key": 1}'])
    def test_damaged_file_is_refused_with_the_remedy(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "secrets.json").write_text(text)

        with pytest.raises(SettingsError, match="delete it"):
            ensure_secrets(Settings(data=tmp_path))

    def test_data_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        """It is not a matter of the secrets."""
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(SettingsError, match="file is no directory"):
            ensure_secrets(Settings(data=file))

    def test_full_disk_is_told_and_leaves_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that is not whole is of no use to anybody."""

        def refuse(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(SettingsError, match=r"No space left on device\): free space"):
            ensure_secrets(Settings(data=tmp_path / "new"))
        assert list((tmp_path / "new").iterdir()) == []

    def test_file_that_others_could_read_is_made_private(self, tmp_path: Path) -> None:
        first = ensure_secrets(Settings(data=tmp_path))
        file = tmp_path / "secrets.json"
        file.chmod(0o644)

        assert ensure_secrets(Settings(data=tmp_path)) == first
        assert mode_of(file) == 0o600
        assert json.loads(file.read_text())["api_key"] == first.api_key
