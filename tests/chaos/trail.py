"""What one subscriber got of one channel, and how it goes on after a break. No socket."""

import zlib
from array import array
from dataclasses import dataclass, field


def mark(source: str, number: int) -> int:
    """Return a number that stands for one message, to compare contents by."""
    return zlib.crc32(f"{source} {number}".encode())


@dataclass(slots=True)
class Stretch:
    """Publications that should follow each other without a hole.

    Attributes:
        epoch: Of all of them.
        after: The offset from which on the server promised them.
        offsets: As they came.
        marks: What they held; see `mark`.
    """

    epoch: str
    after: int
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    marks: "array[int]" = field(default_factory=lambda: array("L"))


class Trail:
    """Everything that came, in stretches: a new one begins only where the server says so."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []

    def begin(self, offset: int, epoch: str) -> None:
        """Go on from a position that the server has told."""
        self.stretches.append(Stretch(epoch, offset))

    def add(self, offset: int, content: int) -> None:
        """Note one publication."""
        stretch = self.stretches[-1]
        stretch.offsets.append(offset)
        stretch.marks.append(content)

    @property
    def position(self) -> tuple[int, str] | None:
        """Offset and epoch to recover from; None: there is none yet."""
        if not self.stretches:
            return None
        last = self.stretches[-1]
        return (last.offsets[-1] if last.offsets else last.after), last.epoch
