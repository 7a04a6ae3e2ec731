"""`raywire version`, and the option that does the same."""

import json

import pytest

from serve.cli import run


def test_option_prints_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Many look for it there."""
    assert run(["version"]) == 0
    printed = capsys.readouterr().out
    assert "raywire" in json.loads(printed)

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == printed
