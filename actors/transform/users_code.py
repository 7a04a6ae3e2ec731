"""Code of a user's, named `module:name`: found, imported, and looked at before it is called."""

import difflib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from actors.errors import SettingsError
from actors.transform.errors import users_line

_BUILT_IN: Final = "actors.transform.builtin"
_ADDRESS: Final = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


def find(use: str, code: str | Path) -> Any:
    """Import the module of `module:name`, and return what has that name there.

    Args:
        use: Names a module, with `:` and the name behind it.
        code: The user's directory; it is put first on `sys.path`, and stays there.

    Raises:
        SettingsError: It cannot be had. The text says why, where, and what to do.
    """
    module_name, _, name = use.partition(":")
    return _attribute(_import(module_name, use, Path(code).resolve()), name, use)


def check_takes(
    target: Callable[..., Any],
    given: Sequence[Any],
    options: Mapping[str, Any],
    use: str,
    *,
    what: str = "a message",
) -> None:
    """Make sure that a call would fit the signature, where there is one to look at.

    Args:
        target: What would be called.
        given: Its positional arguments; only their number counts.
        options: Its keyword arguments.
        use: What the settings call it.
        what: What it is given, for the error.

    Raises:
        SettingsError: It would not; the text shows the user's line.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return  # Written in C, it does not tell; the first call will.
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        unknown = [name for name in options if name not in signature.parameters]
        # Python tells of what is missing first, where a name is only misspelled.
        why = (
            f"it has no {unknown[0]!r}{did_you_mean(unknown[0], signature.parameters)}"
            if unknown
            else error
        )
        # A default that is a mere mark says nothing to a reader.
        shown = _ADDRESS.sub("...", str(signature))
        wrong = "the options do not fit" if options or not given else f"it cannot take {what}"
        raise SettingsError(
            f"{use}: {wrong}: {why}\n  it takes {shown}{defined_at(target)}"
        ) from error


def defined_at(target: Any) -> str:
    """Return file, line number and first line of what was defined there, or nothing.

    Nothing, too, for what is ours: there is nothing to be mended there.
    """
    code = target if inspect.isclass(target) else plain(target)
    if getattr(code, "__module__", "") == _BUILT_IN:
        return ""
    try:
        lines, number = inspect.getsourcelines(code)
        return f"\n  {inspect.getsourcefile(code)}, line {number}\n    {lines[0].strip()}"
    except (OSError, TypeError):
        return ""


def plain(call: Any) -> Any:
    """Return the function or method that a call ends in."""
    while isinstance(call, functools.partial):
        call = call.func
    return call if inspect.isroutine(call) else type(call).__call__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at what is spelled much like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def _import(module_name: str, use: str, directory: Path) -> ModuleType:
    if not directory.is_dir():
        raise SettingsError(f"{use}: the directory {directory} does not exist: set `code`")
    path = str(directory)
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise SettingsError(_no_module(missing, use, directory)) from error
        raise SettingsError(
            f"{use}: importing {module_name} failed: {users_line(error, directory)}"
        ) from error


def _no_module(missing: str, use: str, directory: Path) -> str:
    parent, _, last = missing.rpartition(".")
    looked_in = directory.joinpath(*parent.split(".")) if parent else directory
    there = {path.stem for path in looked_in.glob("*.py")}
    there |= {path.parent.name for path in looked_in.glob("*/__init__.py")}
    hint = did_you_mean(last, there)
    return (
        f"{use}: there is no module {missing!r}{hint}"
        f"\n  looked for in {looked_in} and among the installed packages;"
        "\n  set `code` to the directory that holds it"
    )


def _attribute(module: ModuleType, name: str, use: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        has = ", ".join(own) if own else "no function or class"
        raise SettingsError(
            f"{use}: {module.__name__} has no {name!r}{did_you_mean(name, own)}"
            f"\n  {module.__file__} has {has}"
        ) from None
