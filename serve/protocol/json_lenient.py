"""Reads what clients send as Go does, where msgspec is stricter: Centrifugo's clients rely on it.

Half a surrogate pair counts as U+FFFD, and a field that is null as one left out:
https://pkg.go.dev/encoding/json#Unmarshal.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

T = TypeVar("T")

# A pair, or half of one, or any other escape: so a backslash that is escaped begins none.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_LEVELS: Final = 4
"""How deep fields lie: in a command, its request, that one's `subs`, and what is wished there."""
_ANY: Final = frozenset({"data", "tf"})
"""Fields of any JSON; null is a value there."""
# Each is used by one thread only, and holds no state between calls.
_encode: Final = msgspec.json.Encoder().encode
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode


def decoded(text: bytes, decode: Callable[[bytes], T]) -> T:
    """Return what a decoder of msgspec makes of a text. One that is right at once costs no more.

    Raises:
        msgspec.DecodeError: It is not JSON of that shape.
        UnicodeDecodeError: It is not UTF-8.
        RecursionError: It is too deep.
    """
    if not text.isascii():
        text.decode()  # The decoder lets any bytes pass within what it leaves as it is.
    try:
        return decode(text)
    except msgspec.DecodeError:
        return decode(_without_nulls(_ESCAPE.sub(_whole, text), _LEVELS))


def _whole(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]


def _without_nulls(text: bytes, levels: int) -> bytes:
    """Return an object without its fields that are null, and anything else as it is."""
    if not levels or not text.lstrip().startswith(b"{"):
        return text
    return _encode(
        {
            name: value if name in _ANY else Raw(_without_nulls(bytes(value), levels - 1))
            for name, value in _members(text).items()
            if name in _ANY or bytes(value) != b"null"
        }
    )
