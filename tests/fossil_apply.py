"""Applies Fossil deltas, as a client does: for tests of what makes them."""

from struct import unpack

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def apply(source: bytes, delta: bytes) -> bytes:
    """Return the target.

    Raises:
        ValueError: The delta is not one, or not of this source.
    """
    size, at = _number(delta, 0)
    if delta[at : at + 1] != b"\n":
        raise ValueError("no length")
    at += 1
    target = b""
    while True:
        count, at = _number(delta, at)
        sign = delta[at : at + 1]
        at += 1
        if sign == b"@":
            start, at = _number(delta, at)
            if delta[at : at + 1] != b"," or start + count > len(source):
                raise ValueError("no copy")
            at += 1
            target += source[start : start + count]
        elif sign == b":":
            target += delta[at : at + count]
            at += count
        elif sign == b";":
            break
        else:
            raise ValueError(f"unknown operation {sign!r}")
    if at != len(delta) or len(target) != size or _sum(target) != count:
        raise ValueError("the target is not the one meant")
    return target


def _number(text: bytes, at: int) -> tuple[int, int]:
    value, start = 0, at
    while at < len(text) and (digit := _DIGITS.find(chr(text[at]))) >= 0:
        value = value * 64 + digit
        at += 1
    if at == start:
        raise ValueError("no number")
    return value, at


def _sum(text: bytes) -> int:
    padded = text + b"\0" * (-len(text) % 4)
    total = 0
    for at in range(0, len(padded), 4):
        (word,) = unpack(">I", padded[at : at + 4])
        total = (total + word) % 2**32
    return total
