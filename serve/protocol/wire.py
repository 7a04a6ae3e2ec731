"""How messages become what a transport sends: a codec, and the frame around its blocks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from serve.protocol.messages import Command, Failure, Push, Result

BLOCK_BYTES: Final = 65_536
"""Messages are joined to blocks of about this size: some clients refuse frames over 1 MiB."""


class Codec(Protocol):
    """Commands from frames, messages from results and pushes. A frame holds several messages."""

    binary: bool
    """Frames hold bytes, not text."""
    ping: bytes

    def decode(self, frame: bytes) -> list[Command]:
        """Return a frame's commands, in order.

        Raises:
            DisconnectError: The frame is not of this protocol. Nothing of it counts.
        """
        ...

    def reply(self, command_id: int, result: Result) -> bytes:
        """Answer a command."""
        ...

    def error(self, command_id: int, code: Failure) -> bytes:
        """Refuse a command."""
        ...

    def push(self, channel: str, body: Push) -> bytes:
        """Tell what happened; an empty channel is left out."""
        ...

    def publications(self, channel: str, first: int, bodies: Sequence[bytes]) -> list[bytes]:
        """Return one push for each body, with offsets from `first` on; 0: without offsets."""
        ...

    def join(self, messages: Iterable[bytes]) -> bytes:
        """Join messages to one block."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Wire:
    """How blocks look on one kind of transport. Sessions of one wire share the same bytes.

    Attributes:
        codec: What the messages look like.
        frame: Makes of a block what the transport sends.
        stream: Frames may be written joined.
    """

    codec: Codec
    frame: Callable[[bytes], bytes]
    stream: bool

    def pack(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return messages, in order, as few frames; one is over `BLOCK_BYTES` only by a message."""
        if sum(map(len, messages)) <= BLOCK_BYTES:
            frames = [self.frame(self.codec.join(messages))]
        else:
            frames = [self.frame(self.codec.join(part)) for part in _parts(messages)]
        return [b"".join(frames)] if self.stream and len(frames) > 1 else frames


def _parts(messages: Sequence[bytes]) -> Iterable[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for message in messages:
        if part and size + len(message) > BLOCK_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += len(message)
    if part:
        yield part
