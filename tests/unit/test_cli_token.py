"""`raywire token`: what the token says, and what is refused."""

from pathlib import Path
from typing import Any

import jwt
import pytest

from actors.settings import Settings
from serve.cli import run
from serve.running import ensure_secrets


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def payload_of(text: str, secret: str) -> dict[str, Any]:
    payload: dict[str, Any] = jwt.decode(text.strip(), secret, algorithms=["HS256"])
    return payload


def test_token_is_signed_with_the_secret_of_the_data_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["token", "--user", "ann", "--expires", "1h", "--channel", "a", "--channel", "b:c"]

    assert run([*args, "--info", '{"name": "Ann"}', "--data", str(tmp_path / "data")]) == 0

    secret = ensure_secrets(Settings(data=tmp_path / "data")).token_secret
    payload = payload_of(capsys.readouterr().out, secret)
    assert payload["sub"] == "ann"
    assert payload["exp"] - payload["iat"] == 3600
    assert payload["channels"] == ["a", "b:c"]
    assert payload["info"] == {"name": "Ann"}


def test_secret_of_the_settings_wins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s" * 32
    monkeypatch.setenv("RAYWIRE_AUTH__TOKEN_SECRET", secret)

    assert run(["token", "--user", "", "--expires", "never"]) == 0

    payload = payload_of(capsys.readouterr().out, secret)
    assert payload["sub"] == ""
    assert "exp" not in payload


def test_further_claims_are_json_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--user", "a", "--claim", "channel=news", "--claim", "meta=[1]"]) == 0

    payload = payload_of(
        capsys.readouterr().out, ensure_secrets(Settings(data=Path(".raywire"))).token_secret
    )
    assert (payload["channel"], payload["meta"]) == ("news", [1])


@pytest.mark.parametrize(
    "args",
    [
        ["--expires", "soon"],
        ["--expires", "0s"],
        ["--expires", "-1h"],
        ["--info", "{"],
        ["--claim", "novalue"],
        ["--channel", "two words"],
        ["--channel", ""],
    ],
)
def test_what_cannot_be_in_a_token_is_refused(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on stdout, no secrets made."""
    assert run(["token", "--user", "a", *args]) == 2

    assert capsys.readouterr().out == ""
    assert not Path(".raywire").exists()


def test_user_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token"]) == 2

    assert "--user" in capsys.readouterr().err


def test_token_alone_goes_to_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--user", "a"]) == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
