"""The command `raywire`. Each command's module is imported only when it is used."""

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from actors.errors import MessageError, SettingsError, UnavailableError
from serve.cli.streams import OutputError, ReaderGoneError, prepare, silence_stdout

COMMANDS: Final = {
    "up": "Start everything: queue, pipeline and edge. Ctrl-C stops it.",
    "reload": "Apply changed settings and transforms to the running system.",
    "publish": "Publish lines from standard input.",
    "tail": "Print publications as they come.",
    "status": "Show how the running system does.",
    "dead": "List, show, replay or drop dead letters: messages that failed for good.",
    "config": "Show the settings in force and where each comes from, or check a file.",
    "token": "Make a client token, or say what is wrong with one.",
    "bench": "Measure latency and loss under load.",
    "version": "Show the versions of Raywire and of what it runs on.",
}
"""Name -> one line. `serve.cli.<name>` has the function `command`, whose docstring is the help, or
`group`, a Typer app of several commands."""

_HELP: Final = """Push live data to people: a realtime message pipeline on Ray.

Start with `raywire up`, then `echo hello | raywire publish news` in another shell.

Results go to stdout (tables on a terminal, JSON in a pipe), everything else to stderr.
Exit codes: 0 done, 1 a bug, or the result cannot be written, 2 settings or command line are
wrong, 3 something cannot be reached (try again), 4 a message cannot be accepted, 130 interrupted.
"""
_REPORT: Final = "this is a bug in Raywire: please report it with the traceback above"


def main() -> None:
    """Run the command line and exit with a code of `serve.cli.output.Exit`."""
    prepare()
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code.

    An error of ours becomes one line on stderr for each thing that is wrong.
    """
    try:
        build_app(args)(args=list(args), prog_name="raywire")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last place: said on stderr, then we end
        return _report(error)
    return 0


def build_app(args: Sequence[str]) -> typer.Typer:
    """Build the Typer app; only the command that `args` names is imported.

    The others stand in the help with one line, so `raywire --help` imports none.
    """
    named = next((arg for arg in args if not arg.startswith("-")), None)
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, line in COMMANDS.items():
        if name == named:
            _add(app, name)
        else:
            app.command(name, help=line)(_not_imported)
    return app


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer's signature
    if asked:
        _command("version")()
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions, as `raywire version` does.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take what stands before a command."""


def _command(name: str) -> Callable[..., Any] | typer.Typer:
    module = importlib.import_module(f"serve.cli.{name}")
    command: Callable[..., Any] | typer.Typer = getattr(module, "group", None) or module.command
    return command


def _add(app: typer.Typer, name: str) -> None:
    command = _command(name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, help=COMMANDS[name])
    else:
        app.command(name)(command)


def _not_imported() -> None:
    raise AssertionError("only the command that was named is run")


def _report(error: Exception) -> int:
    from serve.cli.output import Exit, print_error

    known = _known(error)
    if isinstance(known, (ReaderGoneError, OutputError)):
        silence_stdout()
    if isinstance(known, ReaderGoneError):
        return Exit.DONE
    for kind, code in (
        (OutputError, Exit.FAILED),
        (SettingsError, Exit.SETTINGS),
        (UnavailableError, Exit.UNAVAILABLE),
        (MessageError, Exit.MESSAGE),
    ):
        if isinstance(known, kind):
            print_error(str(known))
            return code
    traceback.print_exception(error)
    print_error(_REPORT)
    return Exit.FAILED


def _known(error: BaseException) -> BaseException:
    """Return the first error of a group (a TaskGroup raises them in one), else the error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
