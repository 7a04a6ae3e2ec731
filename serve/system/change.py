"""What differs between two settings trees, and which parts must begin anew for it to hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from actors.settings.tree import Settings

# Dotted names, each with all that lies below it. What is in none of them concerns pipeline and
# edges alike, as does a setting that somebody adds and forgets to list.
_RESTART: Final = (
    *("app", "data", "redis", "ray"),
    *("queue.partitions", "edge.listen", "edge.serve_listen"),
)
_PIPELINE_ONLY: Final = ("stages", "nozzle", "dead", "code")
_EDGES_ONLY: Final = ("queue.entries_max", "client", "edge", "auth", "authorise", "demo")
# The publisher keeps histories; what else a namespace says is between edges and clients.
_PUBLISHER_READS: Final = ("history_size", "history_ttl_s", "history_meta_ttl_s")


@dataclass(frozen=True, slots=True)
class Change:
    """What differs, by dotted name, in the order of the tree.

    A list's or mapping's new or missing member is one name: `stages.1`, `namespaces.news`.

    Attributes:
        names: All that differs.
        restart: What cannot change while the system runs.
        pipeline: Whether the pipeline reads any of it.
        edges: Whether the edges do.
    """

    names: tuple[str, ...]
    restart: tuple[str, ...]
    pipeline: bool
    edges: bool


def compare(old: Settings, new: Settings) -> Change:
    """Return what differs between the settings in force and new ones."""
    names = tuple(".".join(map(str, parts)) for parts in _differences(old, new, ()))
    return Change(
        names=names,
        restart=tuple(name for name in names if _is_below(name, _RESTART)),
        pipeline=any(not _is_edges_only(name) for name in names),
        edges=any(not _is_below(name, _PIPELINE_ONLY) for name in names),
    )


def _is_edges_only(name: str) -> bool:
    top, _, rest = name.partition(".")
    if top == "channels":
        return rest not in _PUBLISHER_READS
    if top == "namespaces":
        # The name alone is a namespace that is new or gone: the publisher must know.
        _, _, field = rest.partition(".")
        return bool(field) and field not in _PUBLISHER_READS
    return _is_below(name, _EDGES_ONLY)


def _is_below(name: str, tops: Iterable[str]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def _differences(old: Any, new: Any, parts: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
    if old == new:
        return []
    before, after = _members(old), _members(new)
    if not before and not after:
        return [parts]
    found = []
    for name in dict.fromkeys([*before, *after]):
        place = (*parts, name)
        if name in before and name in after:
            found += _differences(before[name], after[name], place)
        else:
            found.append(place)
    return found


def _members(part: Any) -> Mapping[Any, Any]:
    """Return the parts of a part by name or index; none where it is a plain value."""
    if isinstance(part, BaseModel):
        return {name: getattr(part, name) for name in type(part).model_fields}
    if isinstance(part, tuple) and part and isinstance(part[0], BaseModel):
        return dict(enumerate(part))
    if isinstance(part, dict) and any(isinstance(each, BaseModel) for each in part.values()):
        return part
    return {}
