"""Options that several commands share, so that they read and mean the same everywhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from actors.settings.file import Loaded, load

DEMO_SETTINGS: Final = Path(__file__).parents[1] / "demo" / "settings.yaml"
"""What `raywire up` runs where there is no settings file: the discussion."""

SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="Settings file. Else $RAYWIRE_SETTINGS, ./raywire.yaml, or the demo's.",
        show_default=False,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Where data, secrets and the running system's address are kept (.raywire unless set).",
        show_default=False,
    ),
]
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Valkey or Redis to use, e.g. redis://:password@host:6379/0. "
        "Unset: an embedded Valkey.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON on a terminal, too.", show_default=False)
]


def load_settings(
    settings: Path | None = None,
    data: Path | None = None,
    redis: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    **more: Any,
) -> Loaded:
    """Load the settings that a command's options, the environment and the file give together.

    Args:
        settings: `--settings`.
        data: `--data`.
        redis: `--redis`.
        environ: The environment.
        more: Further settings, by dotted name with `__` for the dots; None: not given.

    Raises:
        SettingsError: Any of them is wrong. The text has one line for each error.
    """
    overrides = {"data": data, "redis.url": redis}
    overrides |= {name.replace("__", "."): value for name, value in more.items()}
    return load(settings, environ, overrides, fallback=DEMO_SETTINGS)
