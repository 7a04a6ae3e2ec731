"""The names of all settings: looking one up, guessing what was meant, listing them.

A dotted name such as `queue.entries_max` names a setting; `<name>` and `<n>` stand for the free
parts of `namespaces.<name>.history_size` and `stages.<n>.replicas`.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from actors.settings.tree import Settings


@dataclass(frozen=True, slots=True)
class Name:
    """One setting.

    Attributes:
        parts: Its dotted name's parts.
        annotation: Its type; of the members, where the name goes into a free-form mapping.
        field: What pydantic knows of it; None for a member of a list or a mapping.
    """

    parts: tuple[str, ...]
    annotation: Any
    field: FieldInfo | None

    @property
    def is_text(self) -> bool:
        """Whether the value is text, so that an environment variable needs no quotes."""
        return all(
            kind in (str, SecretStr, Path) or isinstance(kind, str)
            for kind in _alternatives(self.annotation)
        )

    @property
    def is_optional(self) -> bool:
        """Whether it may be unset."""
        return type(None) in typing.get_args(self.annotation)

    @property
    def is_secret(self) -> bool:
        """Whether the value must not be shown."""
        return SecretStr in _alternatives(self.annotation)


def find(parts: Sequence[str | int]) -> Name | None:
    """Return the setting of that name, or None: there is none."""
    found = Name((), Settings, None)
    for part in parts:
        below = _below(found, str(part))
        if below is None:
            return None
        found = below
    return found


def is_list(parts: Sequence[str | int]) -> bool:
    """Return whether the setting of that name has members that are counted."""
    found = find(parts)
    return found is not None and typing.get_origin(found.annotation) is tuple


def members(name: Name) -> list[str]:
    """Return the names that may stand directly under a setting; none where they are free."""
    model = _model(name.annotation)
    return list(model.model_fields) if model is not None else []


def guess(parts: Sequence[str | int]) -> str | None:
    """Return the existing name that an unknown one most likely means.

    First a name near it at the same place, then the same name elsewhere, then any near it.
    """
    *above, last = [str(part) for part in parts]
    parent = find(above)
    if parent is not None and (near := difflib.get_close_matches(last, members(parent), n=1)):
        return ".".join((*above, near[0]))
    known = [".".join(name.parts) for name in every()]
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]
    if elsewhere:
        return elsewhere[0]
    near = difflib.get_close_matches(".".join((*above, last)), known, n=1)
    return near[0] if near else None


def every() -> Iterator[Name]:
    """Yield every setting that holds a value, in the order of the tree."""
    yield from _leaves(Name((), Settings, None))


def _leaves(name: Name) -> Iterator[Name]:
    if (model := _model(name.annotation)) is not None:
        for part, field in model.model_fields.items():
            yield from _leaves(Name((*name.parts, part), field.annotation, field))
    elif (inner := _inner(name.annotation)) is not None and _model(inner) is not None:
        free = "<name>" if typing.get_origin(name.annotation) is dict else "<n>"
        yield from _leaves(Name((*name.parts, free), inner, None))
    else:
        yield name


def _below(name: Name, part: str) -> Name | None:
    if (model := _model(name.annotation)) is not None:
        field = model.model_fields.get(part)
        return Name((*name.parts, part), field.annotation, field) if field else None
    inner = _inner(name.annotation)
    return Name((*name.parts, part), inner, None) if inner is not None else None


def _model(annotation: Any) -> type[BaseModel] | None:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _inner(annotation: Any) -> Any:
    """Return the type of the members of a tuple or mapping, or None."""
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return Any
    if origin is dict:
        return args[1]
    return args[0] if origin is tuple else None


def _alternatives(annotation: Any) -> list[Any]:
    """Return what the value may be: the members of a union or literal, without None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Literal):
        return [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    return [annotation]
