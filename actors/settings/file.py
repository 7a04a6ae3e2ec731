"""Settings from a file, the environment and the command line, and where each value comes from.

What stands later in this list wins: defaults, the file, `RAYWIRE_...` variables, options.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError

from actors.errors import SettingsError
from actors.settings import names
from actors.settings.environ import SETTINGS_VARIABLE, read_environ
from actors.settings.errors import describe
from actors.settings.tree import Settings
from actors.settings.yaml_lines import read_yaml

FILE_NAME: Final = "raywire.yaml"
"""The settings file of the current directory, taken where no other is named."""

_OPTIONS: Final = {
    "redis.url": "--redis",
    "edge.listen": "--listen",
    "edge.serve_listen": "--serve-listen",
    "ray.address": "--ray",
}
_PATHS: Final = ("data", "code")
_KEYS: Final = ("tokens", "subscription_tokens")
"""Parts of `auth` whose `public_keys` may be names of files."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where they come from.

    Attributes:
        settings: The whole tree. `data` and `code` are absolute.
        sources: Dotted name of every setting -> `default`, `raywire.yaml:12` (the line),
            `RAYWIRE_QUEUE__ENTRIES_MAX`, or `--redis`.
        file: The settings file; None: there is none.
        warnings: What is unwise, a line each.
    """

    settings: Settings
    sources: dict[str, str]
    file: Path | None = None
    warnings: tuple[str, ...] = ()


def load(
    file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any],
    *,
    fallback: Path | None = None,
) -> Loaded:
    """Load the settings.

    Args:
        file: The settings file. None: `RAYWIRE_SETTINGS`, else `./raywire.yaml` if it is there.
        environ: The environment. `__` stands between the levels of a name:
            `RAYWIRE_QUEUE__ENTRIES_MAX`, `RAYWIRE_NAMESPACES__NEWS__HISTORY_SIZE`,
            `RAYWIRE_STAGES__0__REPLICAS`. Values are YAML.
        overrides: Dotted name -> value of an option; None: not given.
        fallback: A file of ours, taken where there is no other; its source reads `demo`.

    Raises:
        SettingsError: Anything is wrong. The text has one line for each error: the setting, its
            source, what is wrong, the remedy. Values of secrets are not in it.
    """
    tree = _Tree()
    path, is_fallback = _choose_file(file, environ, fallback)
    if path is not None:
        _read_file(tree, path, is_fallback=is_fallback)
    read_environ(environ, tree.put, tree.errors, tree.raw)
    for dotted, value in overrides.items():
        if value is not None:
            parts = tuple(dotted.split("."))
            tree.put(parts, value, _option(dotted))
    settings = tree.build()
    warnings = _warnings(path, settings, tree)
    code = path.parent if path is not None and "code" not in tree.raw else settings.code
    settings = settings.model_copy(
        update={"data": _absolute(settings.data), "code": _absolute(code)}
    )
    sources = {
        ".".join(map(str, parts)): tree.sources.get(parts, "default")
        for parts, _ in flatten(settings)
    }
    return Loaded(settings, sources, path, warnings)


def flatten(
    part: Any, parts: tuple[str | int, ...] = ()
) -> list[tuple[tuple[str | int, ...], Any]]:
    """Return path and value of every setting, in the order of the tree.

    Lists and mappings of plain values are one setting; those of parts (stages, namespaces) are
    gone into, and are one empty setting when empty.
    """
    if isinstance(part, BaseModel):
        members: Iterable[tuple[Any, Any]] = (
            (name, getattr(part, name)) for name in type(part).model_fields
        )
    elif isinstance(part, tuple) and part and isinstance(part[0], BaseModel):
        members = enumerate(part)
    elif isinstance(part, dict) and any(isinstance(each, BaseModel) for each in part.values()):
        members = part.items()
    else:
        return [(parts, part)]
    return [leaf for name, value in members for leaf in flatten(value, (*parts, name))]


class _Tree:
    """Raw values put over one another, the source of each, and the errors so far."""

    def __init__(self) -> None:
        self.raw: dict[Any, Any] = {}
        self.sources: dict[tuple[str | int, ...], str] = {}
        self.errors: list[str] = []

    def put(self, parts: tuple[str | int, ...], value: Any, source: str) -> None:
        """Put a value over what is there; mappings are joined, all else is replaced.

        What cannot have members, where the path goes on, stays: it is judged with the rest.
        """
        if isinstance(value, dict) and parts and isinstance(_get(self.raw, parts), dict):
            for name, member in value.items():
                self.put((*parts, name), member, source)
            return
        holder: Any = self.raw
        for index, part in enumerate(parts[:-1], 1):
            below = _get(holder, (part,))
            if below is None or (not _has(below, parts[index]) and _is_free(parts[:index])):
                below = holder[part] = {}
            elif not _has(below, parts[index]):
                return
            holder = below
        holder[parts[-1]] = value
        for known in [known for known in self.sources if known[: len(parts)] == parts]:
            del self.sources[known]
        self._note(parts, value, source)

    def build(self) -> Settings:
        """Judge everything, and make the settings if all is well."""
        settings = None
        try:
            settings = Settings.model_validate(self.raw)
        except ValidationError as error:
            found = error.errors(include_url=False)
            self.errors += [describe(each, self.sources) for each in found]
        else:
            self.errors += [
                f"{'.'.join(map(str, parts))} ({self.sources.get(parts, 'default')}): is empty: "
                "give a value, or take it out"
                for parts, value in flatten(settings)
                if isinstance(value, SecretStr) and not value.get_secret_value()
            ]
        if self.errors or settings is None:
            raise SettingsError("\n".join(dict.fromkeys(self.errors)))
        return settings

    def _note(self, parts: tuple[str | int, ...], value: Any, source: str) -> None:
        self.sources[parts] = source
        for name, member in _members(value):
            self._note((*parts, name), member, source)


def _has(value: Any, part: str | int) -> bool:
    """Return whether a value may have such a member."""
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int))


def _is_free(parts: tuple[str | int, ...]) -> bool:
    name = names.find(parts)
    return name is not None and name.annotation is Any


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _choose_file(
    file: Path | None, environ: Mapping[str, str], fallback: Path | None
) -> tuple[Path | None, bool]:
    if file is not None:
        return file, False
    if named := environ.get(SETTINGS_VARIABLE):
        return Path(named), False
    if Path(FILE_NAME).is_file():
        return Path(FILE_NAME), False
    return (fallback, True) if fallback is not None and fallback.is_file() else (None, False)


def _read_file(tree: _Tree, path: Path, *, is_fallback: bool) -> None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"settings: {path} cannot be read ({error.strerror}): name a readable file with "
            f"--settings or {SETTINGS_VARIABLE}"
        ) from error
    document = read_yaml(text)
    for problem in document.problems:
        name = ".".join(map(str, problem.path)) or "settings"
        tree.errors.append(f"{name} ({path.name}:{problem.line}): {problem.text}")
    if not isinstance(document.value, dict):
        if document.value is not None:
            tree.errors.append(
                f"settings ({path.name}:1): holds no settings: write lines such as `app: raywire`"
            )
        return
    tree.raw = document.value
    for parts, line in document.lines.items():
        tree.sources[parts] = "demo" if is_fallback else f"{path.name}:{line}"
    if not is_fallback:
        _place_paths(tree.raw, path.parent)


def _place_paths(raw: dict[Any, Any], parent: Path) -> None:
    for name in _PATHS:
        if isinstance(given := raw.get(name), str):
            raw[name] = _placed(given, parent)
    for section in _KEYS:
        keys = _get(raw, ("auth", section, "public_keys"))
        if isinstance(keys, list):
            keys[:] = [_placed_key(key, parent) for key in keys]


def _placed_key(key: Any, parent: Path) -> Any:
    is_name = isinstance(key, str) and not key.lstrip().startswith("-----")
    return _placed(key, parent) if is_name else key


def _placed(name: str, parent: Path) -> str:
    try:
        return str(parent / Path(name).expanduser())
    except RuntimeError:
        return name  # of a user that there is not: it is judged with the rest


def _warnings(path: Path | None, settings: Settings, tree: _Tree) -> tuple[str, ...]:
    if path is None or not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ()
    held = [
        ".".join(map(str, parts))
        for parts, value in flatten(settings)
        if isinstance(value, SecretStr)
        and tree.sources.get(parts, "").startswith(f"{path.name}:")
        and (parts[0] == "auth" or "@" in value.get_secret_value())
    ]
    if not held:
        return ()
    return (
        f"{', '.join(held)} ({path.name}): secrets in a file that others can read: "
        f"chmod 600 {path}",
    )


def _option(dotted: str) -> str:
    return _OPTIONS.get(dotted, "--" + dotted.replace(".", "-").replace("_", "-"))


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _get(raw: Any, parts: tuple[str | int, ...]) -> Any:
    for part in parts:
        if isinstance(raw, dict):
            raw = raw.get(part)
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            return None
    return raw
