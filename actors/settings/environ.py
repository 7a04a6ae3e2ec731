"""Settings from `RAYWIRE_...` environment variables."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from actors.settings import names
from actors.settings.yaml_lines import Path, read_yaml

SETTINGS_VARIABLE: Final = "RAYWIRE_SETTINGS"
"""Names the settings file."""

_PREFIX: Final = "RAYWIRE_"
# Those of options that are no settings: `raywire tail --token`.
_RESERVED: Final = frozenset({SETTINGS_VARIABLE, "RAYWIRE_TOKEN"})
# What Kubernetes sets in every pod beside a Service named raywire or raywire-...:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK: Final = re.compile(
    r"RAYWIRE_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def read_environ(
    environ: Mapping[str, str],
    put: Callable[[Path, Any, str], None],
    errors: list[str],
    raw: Mapping[str, Any],
) -> None:
    """Put the value of each variable that names a setting.

    Args:
        environ: The environment.
        put: Takes path, value and the variable's name.
        errors: Gets a line for each variable that is wrong.
        raw: What the file holds: namespaces are looked up there, and members of lists.
    """
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or _is_no_setting(variable):
            continue
        parts = _path(variable, raw)
        name = names.find(parts)
        if name is None or "" in parts:
            errors.append(_unknown(variable, parts))
        elif (missing := _missing_member(parts, raw)) is not None:
            errors.append(f"{variable}: {missing}")
        else:
            _put_value(variable, environ[variable], parts, name, put, errors)


def variable_of(dotted: str) -> str:
    """Return the variable for a setting's dotted name."""
    return _PREFIX + dotted.replace(".", "__").replace("-", "_").upper()


def _is_no_setting(variable: str) -> bool:
    return variable in _RESERVED or _SERVICE_LINK.fullmatch(variable) is not None


def _put_value(
    variable: str,
    text: str,
    parts: Path,
    name: names.Name,
    put: Callable[[Path, Any, str], None],
    errors: list[str],
) -> None:
    if not text and name.is_optional:
        put(parts, None, variable)
    elif name.is_text:
        put(parts, text, variable)
    else:
        document = read_yaml(text)
        errors += [f"{variable}: {problem.text}" for problem in document.problems]
        if not document.problems:
            put(parts, document.value, variable)


def _path(variable: str, raw: Mapping[str, Any]) -> Path:
    """Return the setting's path. Free names are matched with those of the file.

    A variable cannot hold lower case or `-`, so `MY_NEWS` also means a namespace `my-news`.
    """
    path: list[str | int] = []
    here: Any = raw
    for word in variable.removeprefix(_PREFIX).split("__"):
        part: str | int = word.lower()
        if isinstance(here, dict):
            part = next(
                (name for name in here if str(name).replace("-", "_").lower() == part), part
            )
            here = here.get(part)
        elif _is_index(word) and (isinstance(here, list) or names.is_list(path)):
            part = int(word)
            here = here[part] if isinstance(here, list) and part < len(here) else None
        else:
            here = None
        path.append(part)
    return tuple(path)


def _is_index(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _missing_member(parts: Path, raw: Any) -> str | None:
    """Say what is wrong where the path goes into a list that has no such member."""
    for index, part in enumerate(parts):
        is_member = isinstance(part, int) and isinstance(raw, list) and part < len(raw)
        if not is_member and (isinstance(part, int) or names.is_list(parts[:index])):
            dotted = ".".join(map(str, parts[:index]))
            count = len(raw) if isinstance(raw, list) else 0
            return (
                f"{dotted} has no member {part} (it has {count}, counted from 0): set it in the "
                f"file, or all of it with {variable_of(dotted)}"
            )
        raw = (
            raw.get(part) if isinstance(raw, dict) else raw[part] if isinstance(part, int) else None
        )
    return None


def _unknown(variable: str, parts: Path) -> str:
    guess = names.guess(parts) if "" not in parts else None
    if guess is None and (words := variable.removeprefix(_PREFIX)) and "__" not in words:
        # One underscore where two belong: QUEUE_ENTRIES_MAX.
        flat = {variable_of(".".join(n.parts)).replace("__", "_"): n for n in names.every()}
        near = flat.get(variable)
        guess = ".".join(near.parts) if near is not None else None
    remedy = (
        f"did you mean {variable_of(guess)}?" if guess else "take it out, or see docs/settings.md"
    )
    return f"{variable}: unknown setting: {remedy}"
