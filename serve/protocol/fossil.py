"""Deltas in the text format of Fossil: a new text as copies from an old one, and inserts.

https://fossil-scm.org/home/doc/trunk/www/delta_format.wiki
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

_BLOCK: Final = 16
"""Bytes that must be the same for a copy to be found."""
_COPY_MIN: Final = 8
"""Bytes that make a copy worth its text."""
_TRIES_MAX: Final = 4_096
"""Blocks that are looked for; what is left then is inserted. Bounds the time to a few ms."""
_AROUND: Final = 1_024
"""Bytes before and after the first and the last change that are looked through as well."""
_FOUND_TRIES: Final = 32
"""What a block that is found counts: its copy takes the time of so many lookups."""
_CANDIDATES_MAX: Final = 4
"""Places of a block that are compared; the longest copy is taken."""
_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_STEP: Final = 64
"""Bytes that are compared one by one, as it were."""
_Index = dict[bytes, list[int]]
"""Block -> where in the old text it is, in order."""
_Copy = tuple[int, int, int]
"""Where in the new text it begins and ends, and where in the old text it is from."""


def delta(old: bytes, new: bytes) -> bytes | None:
    """Return what makes `new` of `old`; None: it would not be shorter than `new`.

    Inserts begin and end where characters of `new` do: where `new` is UTF-8, so is the delta, and
    a JSON string can carry it.
    """
    parts = [_number(len(new)), b"\n"]
    done = 0
    for begin, end, source in _copies(old, new):
        start, stop = _whole_characters(new, begin, end)
        if stop - start < _COPY_MIN:
            continue
        if start > done:
            parts.append(_insert(new[done:start]))
        parts.append(b"%b@%b," % (_number(stop - start), _number(source + start - begin)))
        done = stop
    if done < len(new):
        parts.append(_insert(new[done:]))
    parts += (_number(_checksum(new)), b";")
    found = b"".join(parts)
    return found if len(found) < len(new) else None


def _copies(old: bytes, new: bytes) -> Iterator[_Copy]:
    """Yield what both have in common, in the order of `new`.

    Most changes leave a long beginning and end as they were, which are found without an index.
    """
    prefix = _common(old, 0, new, 0, len(new))
    suffix = _common_end(old[prefix:], new[prefix:])
    stop = len(new) - suffix
    if prefix:
        yield 0, prefix, 0
    if stop - prefix >= _BLOCK <= len(old):
        index = _index(old, prefix - _AROUND, len(old) - suffix + _AROUND)
        yield from _moved(old, new, index, prefix, stop)
    if suffix:
        yield stop, len(new), len(old) - suffix


def _moved(old: bytes, new: bytes, index: _Index, start: int, stop: int) -> Iterator[_Copy]:
    """Find blocks of `old` in a part of `new`, as far as they go in both directions.

    Fossil rolls a hash along `new`. Here a dictionary of blocks stands for it: to slice and hash
    16 bytes takes Python less time than to update a sum.
    """
    at = done = near = start
    tries = 0
    while at + _BLOCK <= stop and tries < _TRIES_MAX:
        tries += 1
        places = index.get(new[at : at + _BLOCK])
        if places is None:
            at += 1
            continue
        tries += _FOUND_TRIES
        source, length = _longest(old, new, _nearest(places, near), at, stop)
        back = _common_end(old[max(0, source - at + done) : source], new[done:at])
        yield at - back, at + length, source - back
        at = done = at + length
        near = source + length


def _index(old: bytes, start: int, stop: int) -> _Index:
    index: _Index = {}
    for at in range(max(0, start), min(len(old), stop) - _BLOCK + 1, _BLOCK):
        block = old[at : at + _BLOCK]
        if block in index:
            index[block].append(at)
        else:
            index[block] = [at]
    return index


def _nearest(places: Sequence[int], near: int) -> Sequence[int]:
    """Return places from where the last copy ended on: most texts keep their order."""
    first = min(bisect_left(places, near), max(0, len(places) - _CANDIDATES_MAX))
    return places[first : first + _CANDIDATES_MAX]


def _longest(old: bytes, new: bytes, places: Sequence[int], at: int, stop: int) -> tuple[int, int]:
    lengths = {source: _common(old, source, new, at, stop) for source in places}
    return max(lengths.items(), key=lambda item: item[1])


def _common(old: bytes, source: int, new: bytes, at: int, stop: int) -> int:
    """Count the bytes from `source` and from `at` on that are the same."""
    length, step = 0, _STEP
    while True:
        left = old[source + length : source + length + step]
        right = new[at + length : min(at + length + step, stop)]
        if left != right:
            return length + _common_start(left, right)
        length += len(left)
        if len(left) < step:
            return length
        step *= 2


def _common_start(left: bytes, right: bytes) -> int:
    """Count the same bytes of two texts that differ. Comparing halves is quick, sums of few."""
    low, high = 0, min(len(left), len(right))
    while high - low > _STEP:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    differing = int.from_bytes(left[low:high], "big") ^ int.from_bytes(right[low:high], "big")
    return high - (differing.bit_length() + 7) // 8


def _common_end(left: bytes, right: bytes) -> int:
    """Count the same bytes at the end of two texts."""
    low, high = 0, min(len(left), len(right))
    while high - low > _STEP:
        middle = (low + high) // 2
        if left[-middle : len(left) - low] == right[-middle : len(right) - low]:
            low = middle
        else:
            high = middle
    left, right = (
        left[len(left) - high : len(left) - low],
        right[len(right) - high : len(right) - low],
    )
    differing = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return high - (differing.bit_length() + 7) // 8


def _whole_characters(text: bytes, begin: int, end: int) -> tuple[int, int]:
    """Narrow a stretch of UTF-8 to whole characters; bytes 10xxxxxx do not begin one."""
    while begin < end and text[begin] & 0xC0 == 0x80:
        begin += 1
    while begin < end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return begin, end


def _insert(text: bytes) -> bytes:
    return b"%b:%b" % (_number(len(text)), text)


def _number(value: int) -> bytes:
    digits = bytearray()
    while value or not digits:
        digits.append(_DIGITS[value & 63])
        value >>= 6
    digits.reverse()
    return bytes(digits)


def _checksum(text: bytes) -> int:
    """Add up the text as big-endian 32-bit words, the last filled with zeros."""
    words = -(-len(text) // 4)
    total: int = sum(struct.unpack(f">{words}I", text.ljust(words * 4, b"\0")))
    return total & 0xFFFFFFFF
