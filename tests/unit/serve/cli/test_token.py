"""`raywire token`: what the token says, and what is refused."""

from pathlib import Path
from typing import Any

import jwt
import pytest

from actors.settings.tree import Settings
from serve.cli import run
from serve.system.running import ensure_secrets
from tests.signing import key, private_pem, public_pem


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
    ensure_secrets(Settings(data=Path(".raywire")))
    assert run(["token", "--user", "a"]) == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1


def test_secrets_that_are_made_for_it_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    """Who is in a wrong directory gets a token that is good for nothing that runs."""
    assert run(["token", "--user", "a"]) == 0
    assert "new secrets were made" in " ".join(capsys.readouterr().err.split())

    assert run(["token", "--user", "a"]) == 0
    assert capsys.readouterr().err == ""


def test_secret_of_the_settings_needs_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written where nothing has to be."""
    monkeypatch.setenv("RAYWIRE_AUTH__TOKEN_SECRET", "s" * 32)
    assert run(["token", "--user", "a"]) == 0
    assert run(["token", "--check", capsys.readouterr().out.strip()]) == 0
    assert capsys.readouterr().err == ""
    assert not Path(".raywire").exists()


def test_subscription_token_is_for_one_channel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed as other tokens are, by any algorithm that a secret is for."""
    secret = "s" * 64
    monkeypatch.setenv("RAYWIRE_AUTH__TOKEN_SECRET", secret)

    assert run(["token", "--user", "ann", "--subscribe", "$news:a", "--algorithm", "HS512"]) == 0

    token = capsys.readouterr().out.strip()
    payload = jwt.decode(token, secret, algorithms=["HS512"])
    assert (payload["sub"], payload["channel"]) == ("ann", "$news:a")


@pytest.mark.parametrize(
    ("kind", "option", "used"),
    [("RS256", None, "RS256"), ("RS256", "RS384", "RS384"), ("EdDSA", None, "EdDSA")],
)
def test_token_is_signed_with_the_key_of_a_file(
    kind: str, option: str | None, used: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The algorithm is that of the key; no secrets are made for it."""
    Path("key.pem").write_text(private_pem(key(kind)))
    more = [] if option is None else ["--algorithm", option]

    assert run(["token", "--user", "ann", "--key", "key.pem", "--kid", "k1", *more]) == 0

    token = capsys.readouterr().out.strip()
    assert jwt.get_unverified_header(token) == {"alg": used, "kid": "k1", "typ": "JWT"}
    assert jwt.decode(token, public_pem(key(kind)), algorithms=[used])["sub"] == "ann"
    assert not Path(".raywire").exists()


@pytest.mark.parametrize(
    "args",
    [
        ["--key", "none.pem"],
        ["--key", "public.pem"],
        ["--key", "private.pem", "--algorithm", "RS256"],
        ["--algorithm", "RS256"],
        ["--algorithm", "none"],
        ["--subscribe", "two words"],
        ["--subscribe", "a", "--channel", "b"],
        ["--check", "x"],
    ],
)
def test_what_does_not_go_together_is_refused(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on stdout, and of a key file only its name."""
    Path("private.pem").write_text(private_pem(key("ES256")))
    Path("public.pem").write_text(public_pem(key("ES256")))

    assert run(["token", "--user", "a", *args]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert Path("private.pem").read_text().splitlines()[1] not in captured.err


def test_subscription_tokens_are_signed_with_their_own_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they have a section of their own: that one, or an error that names it."""
    monkeypatch.setenv("RAYWIRE_AUTH__SUBSCRIPTION_TOKENS__ENABLED", "true")
    for args in (["--subscribe", "a"], ["--claim", "channel=a"]):
        assert run(["token", "--user", "a", *args]) == 2
        assert "auth.subscription_tokens.secret" in capsys.readouterr().err

        with monkeypatch.context() as more:
            more.setenv("RAYWIRE_AUTH__SUBSCRIPTION_TOKENS__SECRET", "t" * 32)
            assert run(["token", "--user", "a", *args]) == 0
            assert payload_of(capsys.readouterr().out, "t" * 32)["channel"] == "a"
