"""What `raywire up` says when it runs."""

from pathlib import Path

import pytest

from actors.settings.tree import Settings
from serve.cli.up import show


def test_commands_to_go_on_with_name_the_data_directory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are copied into another shell, where they must find this system."""
    monkeypatch.setenv("COLUMNS", "200")
    show(Settings(), "http://h:1", data=Path("my data"), as_json=False)
    told = capsys.readouterr().out
    for words in ("publish CHANNEL", "tail CHANNEL", "status", "reload"):
        assert f"raywire {words} --data 'my data'" in told


def test_usual_directory_need_not_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command looks there by itself."""
    show(Settings(), "http://h:1", data=None, as_json=False)
    assert "--data" not in capsys.readouterr().out
