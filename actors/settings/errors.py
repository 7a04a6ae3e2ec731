"""What pydantic finds wrong with the settings, as lines that name setting, source and remedy."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from pydantic_core import ErrorDetails

from actors.settings import names
from actors.settings.yaml_lines import Path

_EXPECTED: Final = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "names with values",
    "model_type": "names with values",
    "model_attributes_type": "names with values",
    "path_type": "a path",
    "string_type": "text (put it in quotes)",
}


def describe(error: ErrorDetails, sources: Mapping[Path, str]) -> str:
    """Return one line: `queue.entries_max (raywire.yaml:7): is 0: give 1 or more`.

    The value is in it only where it is a plain one and no secret.
    """
    parts = tuple(part for part in error["loc"] if part != "[key]")
    text = _what(error, parts)
    if not parts:
        named = next((p for p in sources if p and ".".join(map(str, p)) in text), ())
        return f"settings{_source(named, sources)}: {text}"
    return f"{'.'.join(map(str, parts))}{_source(parts, sources)}: {text}"


def _what(error: ErrorDetails, parts: Path) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        guess = names.guess(parts)
        remedy = f"did you mean {guess}?" if guess else "take it out, or see docs/settings.md"
        return f"unknown setting: {remedy}"
    if kind == "missing":
        return "is missing: give it"
    if kind == "invalid_key" or "[key]" in error["loc"]:
        return "the name is not text: put it in quotes"
    is_ = f"is {_shown(error['input'], parts)}"
    if kind in _EXPECTED:
        return f"{is_}: give {_EXPECTED[kind]}"
    if (limit := _limit(kind, context)) is not None:
        return f"{is_}: give {limit}"
    if kind == "literal_error":
        return f"{is_}: give {context['expected']}"
    if kind == "value_error":
        return f"{f'{is_}: ' if parts else ''}{context['error']}"
    return f"{is_}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _limit(kind: str, context: Mapping[str, Any]) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"{context['ge']} or more"
        case "less_than_equal":
            return f"{context['le']} or less"
        case "greater_than":
            return f"more than {context['gt']}"
        case "finite_number":
            return "a finite number"
        case _:
            return None


def _shown(value: Any, parts: Path) -> str:
    name = names.find(parts)
    if name is None or name.is_secret:
        return "not right"
    match value:
        case None:
            return "empty"
        case str() | bool() | int() | float() | PurePath():
            text = str(value) if isinstance(value, int | float) else repr(str(value))
            return text if len(text) <= 60 else f"{text[:57]}..."
        case dict():
            return "a mapping"
        case _:
            return "a list"


def _source(parts: Path, sources: Mapping[Path, str]) -> str:
    for length in range(len(parts), 0, -1):
        if (source := sources.get(parts[:length])) is not None:
            return f" ({source})"
    return ""
