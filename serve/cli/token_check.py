"""`raywire token --check`: whether a client token is valid here, and what it says."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import jwt
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.errors import UnavailableError
from actors.settings.tree import AuthSettings, Settings
from serve.auth.access import Access, verifiers
from serve.auth.jwks import fetch
from serve.auth.keys import KeySet, KeysWantedError
from serve.auth.tokens import Claims, TokenError, Verifier
from serve.cli.output import out, printable
from serve.protocol.messages import CommandError, DisconnectError

_TIMES: Final = ("exp", "nbf", "iat", "expire_at")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a token.

    Attributes:
        valid: Whether a client can use it now.
        why: Why not; None: it can.
        use: `connect` or `subscribe`; None: it cannot be read.
        algorithm: What it says that it is signed with.
        key_id: The name of its key (`kid`), if it names one.
        claims: All that it says, true or not; None: it cannot be read.
    """

    valid: bool
    why: str | None
    use: str | None = None
    algorithm: str | None = None
    key_id: str | None = None
    claims: dict[str, Any] | None = None


def judge(
    token: str, settings: Settings, secret: str, *, wall: Callable[[], float] = time.time
) -> Verdict:
    """Judge a token as an edge would. Reads the JWKS endpoint where the token needs it.

    Args:
        token: The token.
        settings: The settings in force.
        secret: The secret in force for tokens (`auth.token_secret`).
        wall: Seconds since the epoch.

    Raises:
        SettingsError: A public key of the settings cannot be used.
        UnavailableError: The endpoint does not answer, so nobody can tell.
    """
    try:
        header, claims = _read(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        return Verdict(valid=False, why=f"it is no JSON Web Token: {error}")
    use = "connect" if claims.get("channel") is None else "subscribe"
    auth = settings.auth.model_copy(update={"token_secret": SecretStr(secret)})
    why = _why_not(token, use, settings.model_copy(update={"auth": auth}), wall)
    return Verdict(
        valid=why is None,
        why=why,
        use=use,
        algorithm=_text(header.get("alg")),
        key_id=_text(header.get("kid")),
        claims=claims,
    )


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = jwt.api_jws.decode_complete(token, options={"verify_signature": False})
    claims = json.loads(parts["payload"])
    if not isinstance(claims, dict):
        raise ValueError("its payload is no JSON object")  # noqa: TRY004 - as for other bad JSON
    return parts["header"], claims


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _why_not(token: str, use: str, settings: Settings, wall: Callable[[], float]) -> str | None:
    verifier = _verifier(settings.auth, use, wall)
    try:
        claims = _verified(verifier, token)
    except TokenError as error:
        return str(error)
    if claims.ttl_s is not None and claims.ttl_s <= 0:
        return "what it is for is over (expire_at)"
    access = Access(settings)
    for channel in claims.channels if claims.channel is None else (claims.channel,):
        try:
            access.options(channel)
        except (CommandError, DisconnectError) as error:
            return f"channel {channel!r} cannot be: {error.code.reason}"
    return None


def _verifier(auth: AuthSettings, use: str, wall: Callable[[], float]) -> Verifier:
    connect, subscribe = verifiers(auth, wall, time.monotonic)
    return connect if use == "connect" else subscribe


def _verified(verifier: Verifier, token: str) -> Claims:
    try:
        return verifier.claims(token)
    except KeysWantedError as wanted:
        _read_keys(wanted.keys)
        return verifier.claims(token)


def _read_keys(keys: KeySet) -> None:
    try:
        keys.take(fetch(keys.url))
    except UnavailableError as error:
        raise UnavailableError(f"auth: {keys.url} does not answer: {error}") from error


def print_json_line(verdict: Verdict) -> None:
    """Print a verdict as one line of JSON."""
    sys.stdout.write(json.dumps(asdict(verdict), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(
    verdict: Verdict, console: Console | None = None, *, wall: Callable[[], float] = time.time
) -> None:
    """Print a verdict, and the claims with what their times are from now."""
    console = console or out()
    if verdict.valid:
        console.print(
            Text.assemble(("valid", "bold green"), f": a client can {verdict.use} with it")
        )
    else:
        console.print(Text.assemble(("not valid", "bold red"), f": {printable(verdict.why or '')}"))
    if verdict.claims is None:
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("signed with", Text(printable(_signer(verdict))))
    for name, value in verdict.claims.items():
        table.add_row(Text(printable(name)), Text(printable(_shown(name, value, wall()))))
    console.print(table)


def _signer(verdict: Verdict) -> str:
    key = f", key {verdict.key_id}" if verdict.key_id else ""
    return f"{verdict.algorithm}{key}"


def _shown(name: str, value: Any, now_s: float) -> str:
    text = json.dumps(value, ensure_ascii=False)
    is_time = name in _TIMES and isinstance(value, int | float) and not isinstance(value, bool)
    if not is_time or not value:
        return text
    try:
        when = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return text
    return f"{text}  {when:%Y-%m-%d %H:%M:%S} UTC, {_distance(value - now_s)}"


def _distance(seconds: float) -> str:
    size = abs(seconds)
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")):
        if size >= 2 * unit or unit == 1:
            return (
                f"{size // unit:.0f} {name} ago" if seconds < 0 else f"in {size // unit:.0f} {name}"
            )
    raise AssertionError("the last unit takes all")
