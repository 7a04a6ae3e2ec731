"""`raywire up`: start everything, and stop it on Ctrl-C."""

import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.panel import Panel

from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption, load_settings
from serve.cli.output import out, print_json, print_warning, wants_json
from serve.cli.progress import Progress

if TYPE_CHECKING:
    from actors.settings.file import Loaded
    from actors.settings.tree import Settings

ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen", metavar="HOST:PORT", help="Where clients connect.", show_default=False
    ),
]
ServeListenOption = Annotated[
    str | None,
    typer.Option(
        "--serve-listen", metavar="HOST:PORT", help="Ray Serve's own HTTP.", show_default=False
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="A running Ray cluster to use. Unset: a local Ray that ends with this command.",
        show_default=False,
    ),
]


def command(
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    listen: ListenOption = None,
    serve_listen: ServeListenOption = None,
    ray: RayOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Start everything: queue, pipeline and edge. Ctrl-C stops it.

    With no settings file it runs a demo: a discussion page. Nothing that was published is lost
    when it stops; the next start on the same data goes on where it was.

    Example: `raywire up --settings raywire.yaml --listen 127.0.0.1:9000`
    """
    progress = Progress()
    progress.tell("Raywire is starting")

    def read() -> "Loaded":
        return load_settings(
            settings,
            data,
            redis,
            edge__listen=listen,
            edge__serve_listen=serve_listen,
            ray__address=ray,
        )

    loaded = read()
    for warning in loaded.warnings:
        print_warning(warning)
    # Late: Ray takes a second to import, and the first line should not wait for it.
    from actors import logs
    from serve.system.local import LocalSystem
    from serve.system.reload import answer

    logs.set_up("WARNING", json=not sys.stderr.isatty())
    stop = threading.Event()
    # Until it runs, a signal interrupts whatever is being started, and that is taken down again.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    system = LocalSystem(loaded.settings, progress.tell)
    try:
        with system:
            # SIGHUP: the terminal was closed.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: stop.set())
            progress.end(f"Ready after {progress.elapsed_s:.1f} s")
            show(loaded.settings, system.page, data=data, as_json=wants_json(asked=as_json))
            system.look_after(
                stop,
                lambda ask: progress.end(answer(ask, system, read, stop, progress.tell)),
            )
            progress.tell("Stopping")
    finally:
        progress.end("")
    progress.end("Stopped. Nothing is lost: the next start goes on with the same data")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def show(settings: "Settings", page: str, *, data: Path | None, as_json: bool) -> None:
    """Say where it runs and how to go on.

    Args:
        settings: Those in force.
        page: Address of an edge.
        data: `--data`, which the other commands need, too.
        as_json: On one line, for programs.
    """
    if as_json:
        print_json(
            {
                "event": "ready",
                "page": page,
                "websocket": f"ws://{settings.edge.listen}/connection/websocket",
                "api": f"{page}/api",
                "serve": f"http://{settings.edge.serve_listen}",
                "data": str(settings.data),
            }
        )
        return
    where = "" if data is None else f" --data {escape(shlex.quote(str(data)))}"
    channel = "discussion:article" if settings.demo else "CHANNEL"
    lines = [
        f"[bold]Page[/]       {page}/" if settings.demo else f"[bold]API docs[/]   {page}/docs",
        f"[bold]WebSocket[/]  ws://{settings.edge.listen}/connection/websocket",
        f'[bold]Publish[/]    echo \'{{"text":"hello"}}\' | raywire publish {channel}{where}',
        f"[bold]Follow[/]     raywire tail {channel}{where}",
        f"[bold]Status[/]     raywire status{where}",
        f"[bold]API key[/]    in {settings.data / 'secrets.json'}",
        f"[bold]Reload[/]     raywire reload{where}, after you changed settings or transforms",
        "[bold]Stop[/]       Ctrl-C",
    ]
    out().print(Panel("\n".join(lines), title="Raywire runs", expand=False))
