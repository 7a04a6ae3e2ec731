"""`raywire config`: what is in force, where it comes from, and whether a file is right."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import SecretStr
from rich.table import Table

from actors.settings.file import Loaded, flatten, load
from actors.settings.reference import reference
from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption, load_settings
from serve.cli.output import out, print_json, print_text, print_warning, wants_json
from serve.system.running import Running, read_running

MASK: Final = "***"
_PASSWORD: Final = re.compile(r"(?<=://)([^:/@]*:).*@")
_PASSWORD_QUERY: Final = re.compile(r"([?&]password=)[^&]*")


def command(
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    *,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FILE",
            help="Judge this file alone, without the environment: print ok, or every error.",
            show_default=False,
        ),
    ] = None,
    print_reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="Print every setting, its default and meaning.", show_default=False
        ),
    ] = False,
    show_secrets: Annotated[
        bool,
        typer.Option("--show-secrets", help="Print secrets as they are.", show_default=False),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the settings in force and where each comes from, or check a file.

    A table on a terminal; in a pipe one JSON object: `settings`, `sources` (by dotted name) and
    `running` (what runs on the data directory, or null). Secrets read `***`.

    Example: `raywire config | jq .sources`, or `raywire config --check raywire.yaml && raywire up`
    """
    if print_reference:
        print_text(reference())
    elif check is not None:
        _check(check)
    else:
        loaded = load_settings(settings, data, redis)
        _warn(loaded)
        running = read_running(loaded.settings.data)
        if wants_json(asked=as_json):
            print_json(as_tree(loaded, running, show_secrets=show_secrets), indent=2)
        else:
            _print_tables(loaded, running, show_secrets=show_secrets)


def as_tree(loaded: Loaded, running: Running | None, *, show_secrets: bool) -> dict[str, Any]:
    """Return what `raywire config --json` prints."""
    tree: Any = loaded.settings.model_dump(mode="json")
    for parts, value in flatten(loaded.settings):
        if isinstance(value, SecretStr):
            holder = tree
            for part in parts[:-1]:
                holder = holder[part]
            holder[parts[-1]] = _shown(value, show_secrets=show_secrets)
    return {
        "settings": tree,
        "sources": loaded.sources,
        "running": None if running is None else _as_facts(running, show_secrets=show_secrets),
    }


def mask_url(url: str) -> str:
    """Return a URL with `***` in place of its password."""
    return _PASSWORD_QUERY.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1{MASK}@", url))


def _check(file: Path) -> None:
    from actors.store.redis.client import parse_url
    from actors.transform.load import check as check_transforms
    from serve.auth.access import with_keys
    from serve.authorise.load import check as check_functions

    loaded = load(file, {}, {})
    _warn(loaded)
    if (url := loaded.settings.redis.url) is not None:
        parse_url(url.get_secret_value())
    check_transforms(loaded.settings, loaded.settings.code)
    check_functions(loaded.settings, loaded.settings.code)
    with_keys(loaded.settings.auth)
    print_text("ok")


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        print_warning(warning)


def _print_tables(loaded: Loaded, running: Running | None, *, show_secrets: bool) -> None:
    console = out()
    table = Table("setting", "value", "from", box=None, header_style="bold", pad_edge=False)
    for parts, value in flatten(loaded.settings):
        name = ".".join(map(str, parts))
        source = loaded.sources[name]
        text = _as_text(_shown(value, show_secrets=show_secrets))
        table.add_row(name, text, source, style="dim" if source == "default" else "")
    console.print(table)
    if running is None:
        console.print(f"\nNothing runs on {loaded.settings.data}.", markup=False)
        return
    console.print(f"\n[bold]Running[/] on {loaded.settings.data}:")
    for name, fact in _as_facts(running, show_secrets=show_secrets).items():
        console.print(f"  {name} {fact}", markup=False, soft_wrap=True)


def _as_facts(running: Running, *, show_secrets: bool) -> dict[str, Any]:
    return {
        "pid": running.pid,
        "listen": running.listen,
        "serve_listen": running.serve_listen,
        "redis_url": running.redis_url if show_secrets else mask_url(running.redis_url),
        "app": running.app,
        "partitions": running.partitions,
        "started_at_s": running.started_at_s,
    }


def _shown(value: Any, *, show_secrets: bool) -> Any:
    if not isinstance(value, SecretStr):
        return value
    text = value.get_secret_value()
    if show_secrets:
        return text
    return mask_url(text) if "://" in text else MASK


def _as_text(value: Any) -> str:
    match value:
        case None:
            return "unset"
        case bool():
            return str(value).lower()
        case str() | int() | float() | Path():
            return str(value)
        case _:
            return json.dumps(value, default=str)
