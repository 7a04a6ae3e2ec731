"""`raywire dead`: the messages that no retry could save."""

import asyncio
from typing import Annotated, Final

import typer

from actors.errors import MessageError
from actors.store.dead_letter import parse_letter_id
from serve.cli.dead_job import Selection, Verb, confirm_drop, list_letters, show_letter, work
from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption
from serve.cli.output import print_warning, wants_json
from serve.cli.system import find_system

group: Final = typer.Typer(no_args_is_help=True)

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="As `raywire dead list` shows it.", show_default=False),
]
ChannelOption = Annotated[
    str | None,
    typer.Option(
        "--channel",
        metavar="PATTERN",
        help="Those of channels that fit: * is any text, ? one character.",
        show_default=False,
    ),
]
StageOption = Annotated[
    str | None,
    typer.Option(
        "--stage", metavar="NAME", help="Those that failed in this stage.", show_default=False
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.", show_default=False)]


@group.command("list")
def list_command(
    *,
    channel: ChannelOption = None,
    stage: StageOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            help="At most N. Unless given: 100 on a terminal, all in a pipe.",
            min=1,
            show_default=False,
        ),
    ] = None,
    oldest: Annotated[
        bool, typer.Option("--oldest", help="Oldest first; else newest first.", show_default=False)
    ] = False,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """List dead letters, those that died last first.

    In a pipe, each is a JSON line with everything about it, as `show` prints it.

    Exit codes: 0 done, also where there are none; 3 nothing runs, or Valkey cannot be reached.
    """
    system = find_system(settings, data, redis)
    selection = Selection(channel=channel, stage=stage)
    as_json = wants_json(asked=json)
    asyncio.run(list_letters(system, selection, limit=limit, oldest=oldest, as_json=as_json))


@group.command("show")
def show_command(
    letter_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    *,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything about a dead letter: the message, the error, the traceback of your code.

    Exit codes: 0 done; 2 this is no ID; 3 nothing runs, or Valkey cannot be reached; 4 there is no
    such letter.
    """
    _check_ids([letter_id])
    system = find_system(settings, data, redis)
    asyncio.run(show_letter(system, letter_id, as_json=wants_json(asked=json)))


@group.command("replay")
def replay_command(
    ids: IdsArgument = None,
    *,
    channel: ChannelOption = None,
    stage: StageOption = None,
    all_: AllOption = False,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Put dead letters into the queue again, each once, once the cause is mended.

    They pass the transforms again, behind what is queued already. A letter that would only die
    again, as it is no JSON or its channel is invalid, is named and stays.

    Exit codes: 0 all replayed; 2 say which; 3 Valkey cannot be reached, or a queue is full: the
    rest is kept, try again later; 4 some cannot be replayed, or an ID names none; 130 interrupted,
    what was replayed stays so.
    """
    selection = _selection(ids, channel, stage, all_=all_)
    system = find_system(settings, data, redis)
    if system.running is None:
        print_warning("the system does not run here: messages wait in the queue until it does")
    raise typer.Exit(work(system, Verb.REPLAY, selection, as_json=wants_json(asked=json)))


@group.command("drop")
def drop_command(
    ids: IdsArgument = None,
    *,
    channel: ChannelOption = None,
    stage: StageOption = None,
    all_: AllOption = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Do not ask, with --channel, --stage or --all."),
    ] = False,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Delete dead letters for good.

    With --channel, --stage or --all it asks first; where there is no terminal, --yes must be given.

    Exit codes: 0 done; 2 say which, or give --yes; 3 nothing runs, or Valkey cannot be reached;
    4 an ID names none; 130 interrupted, or not confirmed.
    """
    selection = _selection(ids, channel, stage, all_=all_)
    system = find_system(settings, data, redis)
    if selection.ids is None and not yes:
        confirm_drop(system, selection)
    raise typer.Exit(work(system, Verb.DROP, selection, as_json=wants_json(asked=json)))


def _selection(
    ids: list[str] | None, channel: str | None, stage: str | None, *, all_: bool
) -> Selection:
    """Take one way to say which letters, and none by accident."""
    filtered = channel is not None or stage is not None
    if sum((bool(ids), filtered, all_)) != 1:
        raise typer.BadParameter("say which: IDs, or --channel and --stage, or --all")
    if not ids:
        return Selection(channel=channel, stage=stage)
    _check_ids(ids)
    return Selection(ids=tuple(ids))


def _check_ids(ids: list[str]) -> None:
    try:
        for letter_id in ids:
            parse_letter_id(letter_id)
    except MessageError as error:
        raise typer.BadParameter(f"{error}: see `raywire dead list`") from error
