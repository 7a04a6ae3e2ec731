"""`raywire token --check`: which tokens are valid, why not, and what is shown of them."""

import io
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from rich.console import Console

from actors.errors import UnavailableError
from actors.settings.tree import AuthSettings, Settings, SubscriptionTokenSettings, TokenSettings
from serve.auth.tokens import make_token
from serve.cli import run
from serve.cli.token_check import Verdict, judge, print_table
from serve.system.running import ensure_secrets
from tests.key_endpoint import serving_keys
from tests.signing import jwk, key, key_set, public_pem

SECRET = "a secret that is long enough for HS256"
NOW_S = 1_800_000_000.0


def verdict_of(text: str, settings: Settings | None = None) -> Verdict:
    return judge(text, settings or Settings(), SECRET, wall=lambda: NOW_S)


def token(secret: str = SECRET, **claims: Any) -> str:
    return jwt.encode(claims, secret, algorithm="HS256")


def test_valid_token_is_explained() -> None:
    """For what it is, what it is signed with, and all that it says."""
    assert verdict_of(token(sub="ann", exp=NOW_S + 60)) == Verdict(
        valid=True,
        why=None,
        use="connect",
        algorithm="HS256",
        key_id=None,
        claims={"sub": "ann", "exp": NOW_S + 60},
    )
    assert verdict_of(token(sub="ann", channel="a")).use == "subscribe"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "no JSON Web Token"),
        (token(exp=NOW_S - 1), "has expired (exp)"),
        (token(nbf=NOW_S + 1), "not come yet (nbf)"),
        (token(expire_at=NOW_S - 1), "is over (expire_at)"),
        (token("another secret that is long enough"), "its signature is wrong"),
        (token(sub=7), "claims are not as they should be"),
        (token(channels=["unknown:a"]), "channel 'unknown:a' cannot be: unknown channel"),
        (token(channel="unknown:a"), "channel 'unknown:a' cannot be: unknown channel"),
        (token(channel=""), "channel '' cannot be"),
        (jwt.encode({}, key("ES256"), algorithm="ES256"), "no key for ES256 is configured"),
        (jwt.api_jws.encode(b"[]", SECRET, algorithm="HS256"), "no JSON object"),
    ],
)
def test_bad_token_is_explained(text: str, why: str) -> None:
    """The first thing that is wrong."""
    verdict = verdict_of(text)
    assert not verdict.valid
    assert verdict.why is not None
    assert why in verdict.why


def test_audience_and_issuer_are_explained() -> None:
    auth = AuthSettings(tokens=TokenSettings(audience="here", issuer="us"))
    settings = Settings(auth=auth)
    assert "(aud)" in str(verdict_of(token(), settings).why)
    assert "(iss)" in str(verdict_of(token(aud="here"), settings).why)
    assert verdict_of(token(aud="here", iss="us"), settings).valid


def test_subscription_token_is_judged_by_its_own_section() -> None:
    """Where there is one."""
    own = SubscriptionTokenSettings(enabled=True, secret=SecretStr("t" * 32))
    settings = Settings(auth=AuthSettings(subscription_tokens=own))
    assert verdict_of(token("t" * 32, channel="a"), settings).valid
    assert not verdict_of(token(channel="a"), settings).valid
    assert verdict_of(token(sub="ann"), settings).valid


def test_public_keys_and_key_sets_are_tried() -> None:
    """The endpoint is read for it; when it is away, nobody can tell."""
    made = make_token(key("ES256"), "ann", now_s=NOW_S, algorithm="ES256", kid="k1")
    known = TokenSettings(public_keys=(public_pem(key("ES256")),))
    assert verdict_of(made, Settings(auth=AuthSettings(tokens=known))).valid
    with serving_keys(key_set(jwk(key("ES256"), "k1", "ES256"))) as endpoint:
        settings = Settings(auth=AuthSettings(tokens=TokenSettings(jwks_url=endpoint.url)))
        verdict = verdict_of(made, settings)
        assert (verdict.valid, verdict.key_id) == (True, "k1")
        endpoint.text = key_set()
        assert verdict_of(made, settings).why == "the key set has no key 'k1'"
        endpoint.status = 500
        with pytest.raises(UnavailableError, match="does not answer"):
            verdict_of(made, settings)


def test_command_prints_json_and_its_exit_code_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it made is valid, from an argument or stdin; no key is ever printed."""
    monkeypatch.chdir(tmp_path)
    assert run(["token", "--user", "ann"]) == 0
    made = capsys.readouterr().out.strip()
    secret = ensure_secrets(Settings(data=tmp_path / ".raywire")).token_secret

    assert run(["token", "--check", made]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["claims"]["sub"] == "ann"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{made}\n"))
    assert run(["token", "--check", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True

    assert run(["token", "--check", made[:-4] + "AAAA"]) == 4
    bad = capsys.readouterr()
    assert json.loads(bad.out)["why"] == "its signature is wrong"
    for text in (printed.out, printed.err, bad.out, bad.err):
        assert secret not in text


def test_table_says_what_times_mean() -> None:
    """And lets no claim move the cursor."""
    text = token(sub="a\x1b[2Jn", exp=NOW_S + 3 * 3600, iat=NOW_S - 90, nbf=NOW_S - 86_400 * 3)
    shown = io.StringIO()
    console = Console(file=shown, width=100)
    print_table(verdict_of(text), console, wall=lambda: NOW_S)
    print_table(verdict_of("x"), console, wall=lambda: NOW_S)
    printed = shown.getvalue()
    assert printed.startswith("valid: a client can connect with it\n")
    assert "signed with  HS256" in printed
    assert "2027-01-15 11:00:00 UTC, in 3 hours" in printed
    assert "90 seconds ago" in printed
    assert "3 days ago" in printed
    assert "\x1b" not in printed
    assert "not valid: it is no JSON Web Token" in printed


@pytest.mark.parametrize("value", [1e300, True, "soon", None, 0])
def test_odd_times_are_shown_as_they_are(value: Any) -> None:
    """A time that is none must not stop the explanation."""
    shown = io.StringIO()
    signed = jwt.api_jws.encode(json.dumps({"exp": value}).encode(), SECRET, algorithm="HS256")
    print_table(verdict_of(signed), Console(file=shown, width=100), wall=lambda: NOW_S)
    assert json.dumps(value) in shown.getvalue()


def test_check_where_nothing_has_run_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No token can be valid by secrets that there are not."""
    monkeypatch.chdir(tmp_path)
    assert run(["token", "--check", token(sub="ann")]) == 4
    captured = capsys.readouterr()
    assert json.loads(captured.out)["why"] == "its signature is wrong"
    assert "nothing has ever run" in captured.err
    assert list(tmp_path.iterdir()) == []
