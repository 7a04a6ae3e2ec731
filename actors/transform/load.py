"""What a user writes between queue and subscribers, and how it is found and loaded.

A transform takes a `Message` and returns a `Message`, None (it is dropped), or an iterable of
messages. It is one of

- a function `f(message, **options)`, plain or async;
- a class whose constructor takes the options, with `__call__(self, message)`, or with
  `batch(self, messages)`, which returns one such result for each message, in order; plain or
  async. It may have `set_up(self)`, which may take minutes (a model to load) and runs once in each
  transformer before the first message, and `close(self)`.

docs/transforms.md is the manual.
"""

import enum
import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import SettingsError
from actors.message import Message
from actors.settings.tree import Settings, TransformSettings
from actors.transform.builtin import BUILTINS
from actors.transform.errors import users_line
from actors.transform.users_code import check_takes, defined_at, did_you_mean, find, plain

Result = Message | None | Iterable[Message]
"""What a transform makes of one message."""


class Form(enum.Enum):
    """How a transform wants its messages."""

    EACH = "each"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Transform:
    """A transform that is loaded, not set up.

    Attributes:
        use: What the settings call it.
        matches: Tells, by a true value, whether a channel's messages are for it.
        call: Takes a message, or a list of them where `form` is BATCH.
        form: See `Form`.
        is_async: `call` returns an awaitable.
        selects: It changes nothing: what it returns as it came is passed on byte by byte.
        set_up: To be called, and awaited if it returns an awaitable, before the first message.
        close: To be called likewise after the last.
    """

    use: str
    matches: Callable[[str], object]
    call: Callable[[Any], Any]
    form: Form
    is_async: bool
    selects: bool
    set_up: Callable[[], Any] | None
    close: Callable[[], Any] | None


def check(settings: Settings, code: str | Path) -> None:
    """Load every transform and set none up: what is wrong shows before anything starts.

    Raises:
        SettingsError: Some cannot be loaded; the text says of each what is wrong, where, and what
            to do.
    """
    wrong = []
    for stage in settings.stages:
        for transform in stage.transforms:
            try:
                load(transform, code)
            except SettingsError as error:
                wrong.append(f"stage {stage.name}: {error}")
    if wrong:
        raise SettingsError("\n".join(wrong))


def load(settings: TransformSettings, code: str | Path) -> Transform:
    """Import a transform and bind its options; a class is constructed, not set up.

    Args:
        settings: Which, for which channels, with which options.
        code: The user's directory; it is put first on `sys.path`, and stays there.

    Raises:
        SettingsError: It cannot be loaded. The text says why, where, and what to do.
    """
    directory = Path(code).resolve()
    target = find(settings.use, directory) if ":" in settings.use else _builtin(settings.use)
    made = _bind(target, settings, directory)
    form, call = _callable(made, settings.use)
    if inspect.isasyncgenfunction(plain(call)):
        call = _collected(call)
    return Transform(
        use=settings.use,
        matches=compile_pattern(settings.channels),
        call=call,
        form=form,
        is_async=inspect.iscoroutinefunction(plain(call)),
        selects=bool(getattr(made, "selects", False)),
        set_up=getattr(made, "set_up", None),
        close=getattr(made, "close", None) if inspect.isclass(target) else None,
    )


def compile_pattern(pattern: str) -> Callable[[str], object]:
    """Return what tells whether a channel fits: `*` stands for any text, `?` for one character.

    The whole name must fit, upper and lower case are distinct, `:` is a character like others.
    """
    first, *rest = (
        "".join("." if character == "?" else re.escape(character) for character in part)
        for part in pattern.split("*")
    )
    # What a `*` has taken it keeps (an atomic group), as the nearest fit is as good as any other:
    # else a name that does not fit is tried in as many ways as there are to share it out.
    text = first + "".join(f"(?>.*?{part})" for part in rest[:-1])
    text += f".*{rest[-1]}" if rest else ""
    # Channels come again and again: remembered, one costs a tenth.
    return functools.lru_cache(maxsize=10_000)(re.compile(text, re.DOTALL).fullmatch)


def _builtin(use: str) -> Any:
    if use in BUILTINS:
        return BUILTINS[use]
    raise SettingsError(
        f"{use}: there is no built-in transform of that name{did_you_mean(use, BUILTINS)}"
        f"\n  there are {', '.join(BUILTINS)}; for one of your own write module:name"
    )


def _bind(target: Any, settings: TransformSettings, directory: Path) -> Any:
    """Return the transform with its options: an object of the class, or the function."""
    use, options = settings.use, settings.options
    if not callable(target):
        raise SettingsError(
            f"{use}: it is an object of type {type(target).__name__}, not a function or a class"
        )
    is_class = inspect.isclass(target)
    check_takes(target, () if is_class else (None,), options, use)
    if not is_class:
        return functools.partial(target, **options) if options else target
    try:
        return target(**options)
    except (Exception, SystemExit) as error:
        raise SettingsError(
            f"{use}: it refuses its options: {users_line(error, directory)}"
        ) from error


def _callable(made: Any, use: str) -> tuple[Form, Callable[[Any], Any]]:
    batch = getattr(made, "batch", None)
    if callable(batch):
        check_takes(batch, ([],), {}, use)
        return Form.BATCH, batch
    if not callable(made):
        raise SettingsError(
            f"{use}: the class has neither __call__(self, message) nor batch(self, messages)"
            f"{defined_at(type(made))}"
        )
    if not isinstance(made, functools.partial):
        check_takes(made, (None,), {}, use)
    return Form.EACH, made


def _collected(call: Callable[[Any], Any]) -> Callable[[Any], Awaitable[list[Any]]]:
    """Turn an async generator function into one that returns the list."""

    async def collect(message: Any) -> list[Any]:
        return [made async for made in call(message)]

    return collect
