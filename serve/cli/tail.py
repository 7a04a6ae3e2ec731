"""`raywire tail`: publications as they come."""

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit, urlunsplit

import typer

from actors.message import check_channel
from serve.auth.tokens import make_token
from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption
from serve.cli.output import Exit, err, out, print_warning, wants_json
from serve.cli.system import System, find_system
from serve.cli.tail_client import PATH, Tail
from serve.cli.tail_history import HistoryReader
from serve.cli.tail_print import JsonPrinter, Printer, TerminalPrinter
from serve.cli.tail_protocol import Followed, Subscriber
from serve.system.running import ensure_secrets

_USER: Final = "raywire-tail"
# Where a server listens everywhere, we go to this machine.
_LOCAL: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def command(
    channels: Annotated[list[str], typer.Argument(help="Channels to follow.", show_default=False)],
    *,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="OFFSET[:EPOCH]",
            help="Begin after this position, with what history has.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Begin with all that history has.")] = False,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", metavar="N", help="End after N publications.", min=1),
    ] = None,
    for_: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", help="End after this time.", min=0),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Edge to connect to, e.g. ws://host:8000. Else our own."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="JWT",
            envvar="RAYWIRE_TOKEN",
            help="Client token. Else one is made with the secret of the system that runs here.",
        ),
    ] = None,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Print the publications of channels as they come, none twice.

    In a pipe, each is a JSON line with channel, offset, data and tags. When the connection
    breaks, another one goes on where it was, from history; where that cannot be, stderr says so.

    Exit codes: 0 done; 2 refused, e.g. not allowed; 3 cannot be reached, or --for was over
    before --count was full; 4 no such channel; 130 interrupted.
    """
    if since is not None and all_:
        raise typer.BadParameter("choose one of --since and --all")
    for channel in channels:
        check_channel(channel)
    names = list(dict.fromkeys(channels))
    system = find_system(settings, data, redis) if url is None else None
    own = own_token(system) if system is not None and token is None else None
    code = asyncio.run(
        _tail(
            websocket_url(url if url is not None else f"ws://{system.listen}" if system else ""),
            Subscriber(
                _followed(names, since, all_=all_),
                in_token=own is not None,
                reads_aside=own is not None,
            ),
            JsonPrinter() if wants_json(asked=json) else TerminalPrinter(out()),
            count=count,
            for_s=for_,
            token=(lambda: token or "") if own is None else (lambda: own(names)),
            history=HistoryReader(system) if system is not None and own is not None else None,
        )
    )
    raise typer.Exit(code)


async def _tail(
    url: str,
    subscriber: Subscriber,
    printer: Printer,
    *,
    count: int | None,
    for_s: float | None,
    token: Callable[[], str],
    history: HistoryReader | None,
) -> Exit:
    tail = Tail(
        url,
        subscriber,
        printer,
        count=count,
        token=token,
        read=history.read if history is not None else None,
        notify=lambda text: err().print(text, markup=False, soft_wrap=True),
    )
    try:
        return await _until_signal(tail, for_s=for_s, counted=count is not None)
    finally:
        if history is not None:
            await history.close()


async def _until_signal(tail: Tail, *, for_s: float | None, counted: bool) -> Exit:
    task = asyncio.ensure_future(tail.run())
    loop = asyncio.get_running_loop()
    ended: list[Exit] = []

    def end(how: Exit) -> None:
        ended.append(how)
        task.cancel()

    for each in _SIGNALS:
        loop.add_signal_handler(each, end, Exit.INTERRUPTED)
    _tell_when_reader_goes(loop, lambda: end(Exit.DONE))
    try:
        async with asyncio.timeout(for_s):
            await task
    except TimeoutError:
        return Exit.UNAVAILABLE if counted else Exit.DONE
    except asyncio.CancelledError:
        if not ended:
            raise
        return ended[0]
    return Exit.DONE


def _tell_when_reader_goes(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    """Notice that nobody reads our pipe any more (`tail ... | head`), though there is no news."""
    out = sys.stdout.fileno()
    if not stat.S_ISFIFO(os.fstat(out).st_mode):
        return

    def gone() -> None:
        loop.remove_reader(out)
        tell()

    # The end that writes has something "to read" when the other one is closed, and only then.
    loop.add_reader(out, gone)


def own_token(system: System) -> Callable[[Sequence[str]], str] | None:
    """Return what makes tokens of our own for channels; None: we do not know the secret.

    They name these, so that the server subscribes us whatever their settings allow: who
    can read the secret may see everything.
    """
    if system.running is None and system.settings.auth.token_secret is None:
        print_warning("no token: give one with --token, if the edge wants one")
        return None
    secret = ensure_secrets(system.settings).token_secret
    return lambda channels: make_token(secret, _USER, now_s=time.time(), channels=channels)


def _followed(channels: Sequence[str], since: str | None, *, all_: bool) -> list[Followed]:
    if all_:
        return [Followed(channel, 0, whole=True) for channel in channels]
    if since is None:
        return [Followed(channel) for channel in channels]
    if len(channels) > 1:
        raise typer.BadParameter("--since is a position in one channel: name one only")
    offset, _, epoch = since.partition(":")
    if not (offset.isascii() and offset.isdigit()):
        raise typer.BadParameter(f"--since {since}: write it as OFFSET or OFFSET:EPOCH")
    return [Followed(channels[0], int(offset), epoch)]


def websocket_url(url: str) -> str:
    """Complete an address: scheme and path may be left out, `http` is meant as `ws`."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.netloc:
        raise typer.BadParameter(f"--url {url}: write it as ws://host:port or wss://host:port")
    host, colon, port = parts.netloc.rpartition(":")
    netloc = f"{_LOCAL.get(host, host)}:{port}" if colon else parts.netloc
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((scheme, netloc, path, parts.query, ""))
