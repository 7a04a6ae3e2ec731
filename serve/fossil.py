"""Deltas in Fossil's format: what turns one text into the next, itself as text.

https://fossil-scm.org/home/doc/trunk/www/delta_format.wiki: the target's length, copies out of the
source (`N@offset,`), inserted bytes (`N:bytes`), and a checksum. Lengths are bytes.

Source blocks of 16 bytes at multiples of 16 are looked for at every place of the target, and what
is found is grown both ways. What the two have in common at their ends is found first, by comparing
halves, so a single edit costs about as much as comparing the texts.
"""

from collections.abc import Iterator
from struct import unpack
from typing import Final, NamedTuple

_BLOCK: Final = 16
_LOOK_BYTES_MAX: Final = 65_536
"""Longer middles are inserted whole: looking through them would hold up all clients of an edge."""
_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


class _Copy(NamedTuple):
    """`size` bytes of the target, from `at` on, are those of the source from `source` on."""

    at: int
    source: int
    size: int


def delta(source: bytes, target: bytes) -> bytes | None:
    """Return the delta from one UTF-8 text to another; None: it would not be shorter than `target`.

    It is UTF-8 as well, so it can be sent as a JSON string: no insertion begins or ends within a
    character.
    """
    parts = [_number(len(target)), b"\n"]
    done = 0
    for copy in _copies(source, target):
        snapped = _snapped(copy, target)
        # What a copy of so few bytes saves, it costs.
        if snapped.size < _BLOCK // 2:
            continue
        if snapped.at > done:
            parts += (_number(snapped.at - done), b":", target[done : snapped.at])
        parts += (_number(snapped.size), b"@", _number(snapped.source), b",")
        done = snapped.at + snapped.size
    if done < len(target):
        parts += (_number(len(target) - done), b":", target[done:])
    parts += (_number(_checksum(target)), b";")
    found = b"".join(parts)
    return found if len(found) < len(target) else None


def _copies(source: bytes, target: bytes) -> Iterator[_Copy]:
    """Yield what the target has of the source, in the target's order, without overlaps."""
    most = min(len(source), len(target))
    head = _common(source, target, most)
    tail = _common_end(source, target, most - head)
    if head:
        yield _Copy(0, 0, head)
    end = len(target) - tail
    if end - head <= _LOOK_BYTES_MAX:
        yield from _found(source, target, head, end)
    if tail:
        yield _Copy(end, len(source) - tail, tail)


def _found(source: bytes, target: bytes, start: int, end: int) -> Iterator[_Copy]:
    if end - start < _BLOCK or len(source) < _BLOCK:
        return
    # Of equal blocks the first counts: `reversed`, as later ones win in a dict.
    blocks = {
        source[at : at + _BLOCK]: at for at in reversed(range(0, len(source) - _BLOCK + 1, _BLOCK))
    }
    at = start
    while at <= end - _BLOCK:
        place = blocks.get(target[at : at + _BLOCK])
        if place is None:
            at += 1
            continue
        back = _common_end(source[:place], target[start:at], min(place, at - start))
        ahead = _common(source[place:], target[at:end], min(len(source) - place, end - at))
        yield _Copy(at - back, place - back, back + ahead)
        at = start = at + ahead


def _common(one: bytes, other: bytes, most: int) -> int:
    """Return how many of the first `most` bytes are the same before they differ."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(one: bytes, other: bytes, most: int) -> int:
    """Return how many of the last `most` bytes are the same, counted from the end."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        a, b = len(one), len(other)
        if one[a - middle : a - low] == other[b - middle : b - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _snapped(copy: _Copy, target: bytes) -> _Copy:
    """Return a copy without the parts of characters at its ends."""
    at, source, size = copy
    while size and _within_character(target, at):
        at, source, size = at + 1, source + 1, size - 1
    while size and _within_character(target, at + size):
        size -= 1
    return _Copy(at, source, size)


def _within_character(text: bytes, at: int) -> bool:
    return at < len(text) and text[at] & 0xC0 == 0x80


def _checksum(text: bytes) -> int:
    """Return the sum of the text's big-endian 32-bit words, zeros added at its end."""
    padded = text + bytes(-len(text) % 4)
    words: tuple[int, ...] = unpack(f">{len(padded) // 4}I", padded)
    return sum(words) % 2**32


def _number(value: int) -> bytes:
    digits = bytearray()
    while True:
        value, digit = divmod(value, 64)
        digits.append(_DIGITS[digit])
        if not value:
            return bytes(reversed(digits))
