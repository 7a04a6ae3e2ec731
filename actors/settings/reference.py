"""The reference of all settings as Markdown, made from the tree itself: docs/settings.md."""

from typing import Any, Final

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from actors.settings.environ import variable_of
from actors.settings.names import Name, every, find
from actors.settings.tree import Settings

_HEAD: Final = """# Settings

<!-- Made by `raywire config --reference > docs/settings.md`. A test keeps them equal. -->

A setting's value comes from the first of these that gives it: an option such as `--redis`, an
environment variable, the settings file, the default below. `raywire config` shows what is in
force and where each value comes from; `raywire config --check FILE` judges a file.

The file is the one that `--settings` names, else `RAYWIRE_SETTINGS`, else `./raywire.yaml`.
Paths in it are relative to it. A variable is `RAYWIRE_` and the setting's name in capitals, with
two underscores for each dot and one for each dash: `queue.entries_max` is
`RAYWIRE_QUEUE__ENTRIES_MAX`. Its value is YAML, so lists and mappings are written
`[a, b]` and `{a: 1}`. `<n>` counts from 0; `<name>` is a name of yours.

Durations are in seconds and end in `_s`. Limits end in `_max`.
"""


def reference() -> str:
    """Return the page: every setting with its default and its meaning, by group."""
    groups: dict[tuple[str, ...], list[Name]] = {}
    for name in every():
        groups.setdefault(name.parts[:-1], []).append(name)
    pages = [_HEAD]
    for group, names in groups.items():
        pages.append(_page(group, names))
    return "\n".join(pages)


def _page(group: tuple[str, ...], names: list[Name]) -> str:
    title = f"`{'.'.join(group)}`" if group else "Top level"
    lines = [f"## {title}", ""]
    about = _about(group)
    if about:
        lines += [about, ""]
    lines += ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name in names:
        meaning = _cell(name.field.description or "") if name.field else ""
        lines.append(f"| `{name.parts[-1]}` | {_default(name)} | {meaning} |")
    if group and "<" not in ".".join(group):
        lines += ["", f"Variables: `{variable_of('.'.join((*group, names[0].parts[-1])))}`, ..."]
    return "\n".join(lines) + "\n"


def _about(group: tuple[str, ...]) -> str:
    """Return what the tree says of a group: at its field, else in its class."""
    found = find(group)
    parent = find(group[:-1]) if group and group[-1].startswith("<") else None
    for name in (found, parent):
        if name is not None and name.field is not None and name.field.description:
            return _cell(name.field.description)
    model = found.annotation if found is not None else None
    if model is Settings or not (isinstance(model, type) and issubclass(model, BaseModel)):
        return ""
    return _cell((model.__doc__ or "").strip())


def _default(name: Name) -> str:
    value: Any = name.field.get_default(call_default_factory=True) if name.field else None
    if value is PydanticUndefined:
        return "none: must be given"
    match value:
        case None | SecretStr():
            return "unset"
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`' if value in ("", "*") else f"`{value}`"
        case tuple():
            return "`[]`"
        case dict():
            return "`{}`"
        case _:
            return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
