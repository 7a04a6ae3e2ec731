"""`raywire token`: a client token, made with the secret of the data directory or the settings."""

import json
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import jwt
import typer

from actors.errors import MessageError
from actors.message import check_channel
from serve.cli.options import DataOption, SettingsOption, load_settings
from serve.cli.output import err, print_text
from serve.running import ensure_secrets
from serve.tokens import make_token

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


def command(
    user: Annotated[
        str, typer.Option("--user", metavar="ID", help='User id; "" is an anonymous user.')
    ],
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
    settings: SettingsOption = None,
    data: DataOption = None,
) -> None:
    """Make a client token (a JSON Web Token, HS256), and print it.

    A client sends it when it connects. It is signed with `auth.token_secret` of the settings,
    else with the secret that the data directory keeps.

    Example: `raywire token --user ann --expires 1h --channel news`

    A subscription token: `raywire token --user ann --claim channel=news:private`
    """
    now_s = time.time()
    ttl_s = parse_duration(expires)
    for channel in channels or ():
        _check(channel)
    more = dict(map(parse_claim, claims or ()))
    value = parse_info(info)
    loaded = load_settings(settings, data)
    secret = ensure_secrets(loaded.settings).token_secret
    token = make_token(secret, user, now_s=now_s, ttl_s=ttl_s, info=value, channels=channels or ())
    if more:
        payload = jwt.decode(token, options={"verify_signature": False}) | more
        token = jwt.encode(payload, secret, algorithm="HS256")
    print_text(token)
    if sys.stdout.isatty():
        of_settings = loaded.settings.auth.token_secret is not None
        signed = "auth.token_secret" if of_settings else f"the secret in {loaded.settings.data}"
        _explain(user, None if ttl_s is None else now_s + ttl_s, signed)


def _check(channel: str) -> None:
    try:
        check_channel(channel)
    except MessageError as error:
        raise typer.BadParameter(f"--channel {channel!r}: {error}") from error


def _explain(user: str, expires_at_s: float | None, signed: str) -> None:
    until = "for ever"
    if expires_at_s is not None:
        until = f"until {datetime.fromtimestamp(expires_at_s, UTC):%Y-%m-%d %H:%M} UTC"
    who = f"user {user!r}" if user else "an anonymous user"
    err().print(
        f"\nFor {who}, {until}, signed with {signed}.\n"
        'A client connects with it: {"id": 1, "connect": {"token": "..."}}',
        style="dim",
        markup=False,
        soft_wrap=True,
    )
