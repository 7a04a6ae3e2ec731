"""The transforms that come with Raywire, used by their bare names in the settings.

A *path* names a field in a message's data: `user.country` is the member `country` of the member
`user`. Paths go through objects only; what is not there, or is of a non-object, is missing.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from actors.message import Message, encode_json

_MISSING: Final = object()
_HASH_RANGE: Final = 2**64
_Key = tuple[str, bool, bytes]


class Filter:
    """Keep the messages whose field meets the condition, and drop the others.

    A message without the field meets no condition, except `exists: false`. Several filters one
    after the other keep what meets all of them.

    Args:
        field: Path of the field.
        exists: True: the field is there (it may be null). False: it is missing.
        equals: The field has this value. JSON's true is not 1, except within lists and objects.
        one_of: The field has one of these values.
        at_least: The field is a number, and this or more.
        at_most: The field is a number, and this or less. May stand beside `at_least`.
        matches: The field is text, and this regular expression is found in it.
        drop: Drop what meets the condition instead, and keep the others.
    """

    selects = True

    def __init__(
        self,
        field: str,
        *,
        exists: bool | None = None,
        equals: Any = _MISSING,
        one_of: Sequence[Any] | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        matches: str | None = None,
        drop: bool = False,
    ) -> None:
        flags: list[Any] = [drop] if exists is None else [drop, exists]
        if not all(isinstance(flag, bool) for flag in flags):
            raise ValueError("exists, drop: give true or false")
        tests: list[Callable[[Any], bool]] = []
        if exists is not None:
            tests.append(lambda value: (value is not _MISSING) is exists)
        if equals is not _MISSING:
            tests.append(_equal_to_one_of([equals]))
        if one_of is not None:
            tests.append(_equal_to_one_of(one_of))
        if at_least is not None or at_most is not None:
            tests.append(_between(at_least, at_most))
        if matches is not None:
            tests.append(_found(matches))
        if len(tests) != 1:
            raise ValueError(
                "give one condition: exists, equals, one_of, at_least and/or at_most, or matches"
            )
        self._path = _path(field)
        self._test = tests[0]
        self._drop = drop

    def __call__(self, message: Message) -> Message | None:
        """Return the message if it is to be kept."""
        return message if self._test(_get(message.data, self._path)) is not self._drop else None


class Pick:
    """Keep only the named fields of the data, in their places.

    What is missing stays missing; nothing else goes on: data that is not an object becomes `{}`.

    Args:
        fields: Paths of the fields. One without further members keeps all below it.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        if isinstance(fields, str) or not fields:
            raise ValueError("fields: give a list of paths, as in [id, user.name]")
        self._tree: dict[str, Any] = {}
        # Short ones last, so that `user` wins over `user.name`.
        for path in sorted((_path(field) for field in fields), key=len, reverse=True):
            level = self._tree
            for name in path[:-1]:
                level = level.setdefault(name, {})
            level[path[-1]] = None

    def __call__(self, message: Message) -> Message:
        """Return the message with the picked fields only."""
        return message.replace(data=_picked(message.data, self._tree))


class Sample:
    """Keep a share of the messages, or, with `by`, all messages of a share of the keys.

    The choice is made by a hash, of the entry's id or of the key: a replay decides the same, and a
    smaller share keeps a part of what a larger one keeps.

    Args:
        share: 0 to 1: how much to keep.
        by: Path of the key, as `user.id`. Messages without it have one key in common.
    """

    selects = True

    def __init__(self, share: float, by: str = "") -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share: {share} is not between 0 and 1")
        self._below = math.ceil(share * _HASH_RANGE)
        self._path = _path(by) if by else None

    def __call__(self, message: Message) -> Message | None:
        """Return the message if it is in the sample."""
        if self._path is None:
            key = message.id.encode()
        else:
            value = _get(message.data, self._path)
            key = encode_json(None if value is _MISSING else value)
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return message if int.from_bytes(digest) < self._below else None


class Conflate:
    """Keep only the latest message of each key, within one batch.

    Keys are apart for each channel. The window is the batch: what the nozzle reads at once. While
    little comes, a message goes alone and nothing is dropped; under load `nozzle.pace_s` (7 ms
    unless set) is the shortest window, and with several transformers nothing else holds: what
    is kept depends on how messages fell into batches. Nothing is ever delayed.

    A message does not take the place of one with a higher version, nor of what came after that: it
    would have no effect itself. What skips the history takes the place of nothing that is kept.

    Args:
        key: Path of the key, as `symbol`. Messages without it all go on. Not given: the channel
            alone is the key.
    """

    selects = True

    def __init__(self, key: str = "") -> None:
        self._path = _path(key) if key else None

    def batch(self, messages: list[Message]) -> list[Message | None]:
        """Return each message if it is the latest with its key, else None."""
        latest: dict[_Key, int] = {}
        newest: dict[_Key, Message] = {}  # of those with a version
        kept: list[Message | None] = [*messages]
        for index, message in enumerate(messages):
            key = self._key(message)
            if key is None:
                continue
            if message.version:
                if key in newest and _is_older(message, newest[key]):
                    kept[index] = None
                    continue
                newest[key] = message
            if key in latest:
                kept[latest[key]] = None
            latest[key] = index
        return kept

    def _key(self, message: Message) -> _Key | None:
        value = None if self._path is None else _get(message.data, self._path)
        if value is _MISSING:
            return None
        return message.channel, message.skip_history, encode_json(value)


def _is_older(message: Message, before: Message) -> bool:
    is_same_epoch = message.version_epoch in ("", before.version_epoch)
    return is_same_epoch and message.version < before.version


BUILTINS: Final[Mapping[str, type]] = {
    "filter": Filter,
    "pick": Pick,
    "sample": Sample,
    "conflate": Conflate,
}
"""Name in the settings -> class."""


def _path(text: str) -> tuple[str, ...]:
    names = tuple(text.split("."))
    if not all(names):
        raise ValueError(f"{text!r} is no path: write names with dots between, as user.name")
    return names


def _get(data: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(data, dict) or name not in data:
            return _MISSING
        data = data[name]
    return data


def _picked(data: Any, tree: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {}
    picked: dict[str, Any] = {}
    for name, value in data.items():
        if name not in tree:
            continue
        below = tree[name]
        if below is None:
            picked[name] = value
        elif isinstance(value, dict):
            picked[name] = _picked(value, below)
    return picked


def _equal_to_one_of(wanted: Sequence[Any]) -> Callable[[Any], bool]:
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        raise ValueError("one_of: give a list of values")  # noqa: TRY004  a setting's value
    pairs = [(isinstance(value, bool), value) for value in wanted]
    return lambda value: (isinstance(value, bool), value) in pairs


def _between(low: float | None, high: float | None) -> Callable[[Any], bool]:
    least = -math.inf if low is None else low
    most = math.inf if high is None else high
    if not (_is_number(least) and _is_number(most)):
        raise ValueError("at_least, at_most: give numbers")
    return lambda value: _is_number(value) and least <= value <= most


def _found(pattern: str) -> Callable[[Any], bool]:
    search = re.compile(pattern).search
    return lambda value: isinstance(value, str) and search(value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
