"""`raywire token`: makes a client token, or says what is wrong with one."""

import json
import re
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from actors.errors import MessageError, SettingsError
from actors.message import check_channel
from actors.settings.file import Loaded
from actors.settings.tree import Settings
from serve.auth.keys import HMAC_ALGORITHMS, PrivateKey, algorithms_of, parse_private_key
from serve.auth.tokens import ALGORITHMS, make_token
from serve.cli.options import DataOption, JsonOption, SettingsOption, load_settings
from serve.cli.output import Exit, err, print_text, print_warning, wants_json
from serve.cli.token_check import judge, print_json_line, print_table
from serve.system.running import ensure_secrets

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> float | None:
    """Return the seconds that `90s`, `15m`, `1h` or `7d` stand for; None for `never`.

    Raises:
        typer.BadParameter: It is none of these, or no time at all.
    """
    if text == "never":
        return None
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if not seconds:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 15m, 1h, 7d or never")
    return seconds


def parse_info(text: str | None) -> Any:
    """Return the value that JSON text stands for.

    Raises:
        typer.BadParameter: It is not JSON.
    """
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        message = f'not JSON ({error}): quote it for the shell, e.g. \'{{"name":"Ann"}}\''
        raise typer.BadParameter(message) from error


def parse_claim(text: str) -> tuple[str, Any]:
    """Return name and value of `name=value`; the value is JSON, or else text.

    Raises:
        typer.BadParameter: There is no name.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is no claim: write name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True, slots=True)
class Signer:
    """What a token is signed with.

    Attributes:
        key: A secret, or a private key.
        algorithm: One that fits it.
        name: What to call it; never the key itself.
    """

    key: str | PrivateKey
    algorithm: str
    name: str


def command(
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="ID",
            help='User id; "" is an anonymous user. [required, without --check]',
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="90s, 15m, 1h, 7d, or never.")
    ] = "24h",
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="CHANNEL",
            help="Subscribe the client to this channel from the server's side. May be repeated.",
            show_default=False,
        ),
    ] = None,
    subscribe: Annotated[
        str | None,
        typer.Option(
            "--subscribe",
            metavar="CHANNEL",
            help="Make a subscription token, with which the client may subscribe to this channel.",
            show_default=False,
        ),
    ] = None,
    info: Annotated[
        str | None,
        typer.Option(
            "--info",
            metavar="JSON",
            help="What others see of the client, in presence and join messages.",
            show_default=False,
        ),
    ] = None,
    claims: Annotated[
        list[str] | None,
        typer.Option(
            "--claim",
            metavar="NAME=VALUE",
            help="A further claim; the value is JSON, or else text. May be repeated.",
            show_default=False,
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Sign with this private key (PEM): RSA, EC or Ed25519.",
            show_default=False,
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="E.g. HS512 or RS384. Else HS256, or the first that fits the key.",
            show_default=False,
        ),
    ] = None,
    kid: Annotated[
        str,
        typer.Option(
            "--kid", metavar="ID", help="Name of the key in the JWKS.", show_default=False
        ),
    ] = "",
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="TOKEN",
            help="Say whether this token is valid, and what it says. -: read it from stdin.",
            show_default=False,
        ),
    ] = None,
    settings: SettingsOption = None,
    data: DataOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a client token (a JSON Web Token) and print it, or check one.

    A client sends it when it connects, or subscribes. It is signed with `auth.token_secret` of the
    settings, else with the secret that the data directory keeps, or with the key of a file.

    `--check` judges a token by the same settings, as an edge would: a table on a terminal, JSON in
    a pipe; exit code 4 where it is not valid.

    Example: `raywire token --user ann --expires 1h --channel news`

    A subscription token: `raywire token --user ann --subscribe '$orders:7' --key private.pem`
    """
    if check is not None:
        if user is not None:
            raise typer.BadParameter("--check makes no token: leave out --user")
        _check_token(check, load_settings(settings, data), as_json=as_json)
        return
    if user is None:
        raise typer.BadParameter("say whose token it is with --user, or check one with --check")
    now_s = time.time()
    ttl_s = parse_duration(expires)
    _check_channels(channels or (), subscribe)
    more = dict(map(parse_claim, claims or ()))
    value = parse_info(info)
    own_key = None if key_file is None else _key_signer(key_file, algorithm)
    loaded = load_settings(settings, data)
    signer = own_key or _secret_signer(loaded, algorithm, subscribes="channel" in more or subscribe)
    token = make_token(
        signer.key,
        user,
        now_s=now_s,
        ttl_s=ttl_s,
        info=value,
        channels=channels or (),
        channel=subscribe,
        algorithm=signer.algorithm,
        kid=kid,
        more=more,
    )
    print_text(token)
    if sys.stdout.isatty():
        _explain(user, None if ttl_s is None else now_s + ttl_s, signer.name, subscribe)


def _check_token(text: str, loaded: Loaded, *, as_json: bool) -> None:
    token = (sys.stdin.read() if text == "-" else text).strip()
    # Where there is none: one that nobody has signed with, as it would be if it were made now.
    unknown = _secret_is_missing(loaded.settings)
    secret = secrets.token_urlsafe(32) if unknown else _token_secret(loaded.settings)
    verdict = judge(token, loaded.settings, secret)
    if unknown and not verdict.valid:
        print_warning(
            f"nothing has ever run on {loaded.settings.data}: it has no secret to judge by"
        )
    (print_json_line if wants_json(asked=as_json) else print_table)(verdict)
    if not verdict.valid:
        raise typer.Exit(Exit.MESSAGE)


def _token_secret(settings: Settings) -> str:
    """Return the secret in force; one that has to be made is told of, as it is seldom meant."""
    own = settings.auth.token_secret
    if own is not None:
        return own.get_secret_value()
    missing = _secret_is_missing(settings)
    secret = ensure_secrets(settings).token_secret
    if missing:
        print_warning(
            f"nothing runs on {settings.data}, and new secrets were made in it: the token is good "
            "for what is started there, and for nothing else"
        )
    return secret


def _secret_is_missing(settings: Settings) -> bool:
    return settings.auth.token_secret is None and not (settings.data / "secrets.json").exists()


def _check_channels(channels: Sequence[str], subscribe: str | None) -> None:
    for channel in channels:
        _check("--channel", channel)
    if subscribe is not None:
        _check("--subscribe", subscribe)
        if channels:
            raise typer.BadParameter("a token is for --channel or for --subscribe: make two")


def _check(option: str, channel: str) -> None:
    try:
        check_channel(channel)
    except MessageError as error:
        raise typer.BadParameter(f"{option} {channel!r}: {error}") from error


def _key_signer(file: Path, algorithm: str | None) -> Signer:
    try:
        key = parse_private_key(file.read_bytes())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--key {file}: {error}") from error
    return Signer(key, _fitting(algorithm, algorithms_of(key)), f"the key in {file}")


def _secret_signer(loaded: Loaded, algorithm: str | None, *, subscribes: object) -> Signer:
    """Return the secret by which tokens of this kind are judged.

    Raises:
        SettingsError: There is none.
    """
    fitting = _fitting(algorithm, HMAC_ALGORITHMS)
    auth = loaded.settings.auth
    own = auth.subscription_tokens
    if subscribes and own.enabled:
        if own.secret is None:
            raise SettingsError(
                "auth.subscription_tokens.secret: is not set: set it, or sign with --key"
            )
        return Signer(own.secret.get_secret_value(), fitting, "auth.subscription_tokens.secret")
    named = auth.token_secret is not None
    name = "auth.token_secret" if named else f"the secret in {loaded.settings.data}"
    return Signer(_token_secret(loaded.settings), fitting, name)


def _fitting(algorithm: str | None, fitting: Sequence[str]) -> str:
    if algorithm is None:
        return fitting[0]
    if algorithm not in ALGORITHMS:
        raise typer.BadParameter(f"--algorithm {algorithm!r}: write one of {', '.join(ALGORITHMS)}")
    if algorithm not in fitting:
        raise typer.BadParameter(f"--algorithm {algorithm}: the key is for {', '.join(fitting)}")
    return algorithm


def _explain(user: str, expires_at_s: float | None, signed: str, subscribe: str | None) -> None:
    until = "for ever"
    if expires_at_s is not None:
        until = f"until {datetime.fromtimestamp(expires_at_s, UTC):%Y-%m-%d %H:%M} UTC"
    who = f"user {user!r}" if user else "an anonymous user"
    does, said = "connects", '"connect": {"token": "..."}'
    if subscribe is not None:
        does, said = "subscribes", f'"subscribe": {{"channel": "{subscribe}", "token": "..."}}'
    err().print(
        f"\nFor {who}, {until}, signed with {signed}.\n"
        f'A client {does} with it: {{"id": 1, {said}}}',
        style="dim",
        markup=False,
        soft_wrap=True,
    )
