"""How publications look to one subscription: as they are stored, as deltas, or filtered by tags."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from serve.protocol.body import DELTA_END, TEXT_BRACE, split, tags_of, wants_whole
from serve.protocol.fossil import delta
from serve.protocol.tag_filter import TagFilter

Run = tuple[int, Sequence[bytes]]
"""Publications in order: the offset of the first (0: they have none), and their bodies."""


class Shape(Protocol):
    """What is made of publications, as stored, before a codec gets them."""

    def shaped(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return what a subscription gets for publications that nothing was sent before of."""
        ...


class Stored:
    """All of them, as they are."""

    def shaped(self, runs: Sequence[Run]) -> Sequence[Run]:
        """See `Shape.shaped`."""
        return runs


class Deltas:
    """The first whole, each other as a delta from the one before where that is shorter and wanted.

    The data are JSON strings: of the whole, or with `delta` of what changed (Fossil's format). How
    they begin tells other codecs such strings from those that are data.
    https://centrifugal.dev/docs/server/delta_compression
    """

    def shaped(self, runs: Sequence[Run]) -> Sequence[Run]:
        """See `Shape.shaped`."""
        return chained(None, runs)[0]


class Filtered(Struct, frozen=True):
    """Those whose tags fit. The others count for the position, but are not sent."""

    tag_filter: TagFilter

    def shaped(self, runs: Sequence[Run]) -> Sequence[Run]:
        """See `Shape.shaped`."""
        matches = self.tag_filter.matches
        return [
            (first and first + index, (body,))
            for first, bodies in runs
            for index, body in enumerate(bodies)
            if matches(tags_of(body))
        ]


STORED: Final = Stored()
DELTAS: Final = Deltas()
_encode: Final = msgspec.json.Encoder().encode


def chained(base: bytes | None, runs: Sequence[Run]) -> tuple[list[Run], bytes | None]:
    """Return publications, each as what changed since the one before, and the last one's data.

    Args:
        base: The data before the first; None: the first is sent whole.
        runs: The publications.
    """
    made: list[Run] = []
    for first, bodies in runs:
        shaped = []
        for body in bodies:
            head, data = split(body)
            change = None if base is None or wants_whole(body) else delta(base, data)
            shaped.append(_with_data(head, data, change))
            base = data
        made.append((first, shaped))
    return made, base


def whole(body: bytes) -> bytes:
    """Return a publication for a subscription with deltas that has not got the one before."""
    return _with_data(*split(body), None)


def _with_data(head: bytes, data: bytes, change: bytes | None) -> bytes:
    start = TEXT_BRACE + head[1:]
    if change is None:
        return start + _encode(data.decode()) + b"}"
    return start + _encode(change.decode()) + DELTA_END + b"}"
