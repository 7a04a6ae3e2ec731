"""The user's functions that decide what clients may do: found, imported, looked at."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from actors.errors import SettingsError
from actors.settings.authorise import AuthoriseSettings
from actors.settings.tree import Settings
from actors.transform.users_code import check_takes, defined_at, find, plain
from serve.authorise.questions import (
    ConnectRequest,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SubRefreshRequest,
    SubscribeRequest,
)

_ASKED: Final[dict[str, type[Any]]] = {
    "connect": ConnectRequest,
    "subscribe": SubscribeRequest,
    "publish": PublishRequest,
    "rpc": RpcRequest,
    "refresh": RefreshRequest,
    "sub_refresh": SubRefreshRequest,
}
"""Name of the setting -> what its function takes."""


@dataclass(frozen=True, slots=True)
class Function:
    """One that is loaded.

    Attributes:
        name: Of its setting.
        use: What the settings call it.
        call: Takes a request.
        is_async: `call` returns a coroutine.
    """

    name: str
    use: str
    call: Callable[[Any], Any]
    is_async: bool


def names_functions(settings: AuthoriseSettings) -> bool:
    """Tell whether there is any."""
    return any(getattr(settings, name) for name in _ASKED)


def check(settings: Settings, code: str | Path) -> None:
    """Load every function: what is wrong shows before anything starts.

    Raises:
        SettingsError: See `load`.
    """
    load(settings.authorise, code)


def load(settings: AuthoriseSettings, code: str | Path) -> dict[type[Any], Function]:
    """Import the functions; return each by the request that it takes.

    Args:
        settings: Which.
        code: The user's directory; it is put first on `sys.path`, and stays there.

    Raises:
        SettingsError: Some cannot be loaded; the text says of each what is wrong, where, and what
            to do.
    """
    found = {}
    wrong = []
    for name, request in _ASKED.items():
        use = getattr(settings, name)
        if use is None:
            continue
        try:
            found[request] = _load(name, use, code)
        except SettingsError as error:
            wrong.append(f"authorise.{name}: {error}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return found


def _load(name: str, use: str, code: str | Path) -> Function:
    target = find(use, code)
    if inspect.isclass(target) or not callable(target):
        what = "a class" if inspect.isclass(target) else f"an object of {type(target).__name__}"
        raise SettingsError(f"{use}: it is {what}, not a function{defined_at(target)}")
    check_takes(target, (None,), {}, use, what="a request")
    return Function(name, use, target, inspect.iscoroutinefunction(plain(target)))
