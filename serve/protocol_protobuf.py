"""The Protobuf form of the client protocol: each message stands behind its length.

https://centrifugal.dev/docs/transports/client_protocol#protobuf-protocol
"""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from serve.protobuf_fields import COMMANDS, PUSHES, RESULTS
from serve.protobuf_json import DELTA_ENDS, PUBLICATION, publication_of
from serve.protobuf_wire import (
    FLAG,
    SIZED,
    TEXT,
    UINT32,
    Field,
    Shape,
    read_fields,
    read_sized,
    sized,
    varint,
)
from serve.protocol import (
    Command,
    DisconnectCode,
    DisconnectError,
    Failure,
    Push,
    Result,
    Send,
)


class _Failure(Struct):
    code: int
    message: str
    temporary: bool


_FAILURE: Final = Shape(
    _Failure,
    {"code": Field(1, UINT32), "message": Field(2, TEXT), "temporary": Field(3, FLAG)},
)
_ID: Final = Field(1, UINT32)
"""Of a command, and of the reply to it."""
_ERROR: Final = Field(2, _FAILURE.kind)
_BODY_TAGS: Final = {number << 3 | SIZED: number for number in COMMANDS}
_RESULT_FIELDS: Final = {s.struct: Field(number, s.kind) for number, s in RESULTS.items()}
_PUSH_FIELDS: Final = {s.struct: Field(number, s.kind) for number, s in PUSHES.items()}
_CHANNEL: Final = Field(2, TEXT)
"""Of a push."""
_PUSH: Final = varint(4 << 3 | SIZED)
"""The tag of a push in a reply, and of a publication in a push."""
_DATA: Final = varint(PUBLICATION.fields["data"].tag)
_OFFSET: Final = varint(PUBLICATION.fields["offset"].tag)
_DATA_ALONE: Final = b'{"data":'
_PONG: Final = Command(0, None)


class ProtobufCodec:
    """Protobuf of a two-way connection. One-way connections are JSON."""

    binary = True
    ping = b"\0"

    def decode(self, frame: bytes) -> list[Command]:
        """See `Codec.decode`."""
        if not frame:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        commands: list[Command] = []
        at = 0
        try:
            while at < len(frame):
                message, at = read_sized(frame, at)
                commands.append(_command(message) if message else _PONG)
        except (ValueError, RecursionError) as error:
            raise DisconnectError(DisconnectCode.BAD_REQUEST) from error
        return commands

    def reply(self, command_id: int, result: Result) -> bytes:
        """See `Codec.reply`."""
        return sized(_id(command_id) + _RESULT_FIELDS[type(result)].write(result))

    def error(self, command_id: int, code: Failure) -> bytes:
        """See `Codec.error`."""
        failure = _Failure(code.value, code.reason, code.temporary)
        return sized(_id(command_id) + _ERROR.write(failure))

    def push(self, channel: str, body: Push) -> bytes:
        """See `Codec.push`."""
        where = _CHANNEL.write(channel) if channel else b""
        return sized(_PUSH + sized(where + _PUSH_FIELDS[type(body)].write(body)))

    def publications(self, channel: str, first: int, bodies: Sequence[bytes]) -> list[bytes]:
        """See `Codec.publications`."""
        head = _CHANNEL.write(channel) + _PUSH
        if not first:
            return [_publication(head, 0, body) for body in bodies]
        return [_publication(head, offset, body) for offset, body in enumerate(bodies, first)]

    def join(self, messages: Iterable[bytes]) -> bytes:
        """See `Codec.join`."""
        return b"".join(messages)


def _command(message: bytes) -> Command:
    command_id, number, content = 0, 0, b""
    for tag, value in read_fields(message):
        if tag == _ID.tag:
            command_id = _ID.read(None, value)
        elif tag in _BODY_TAGS and (not number or _BODY_TAGS[tag] <= number):
            number, content = _BODY_TAGS[tag], value
    body = COMMANDS[number].read(content) if number else None
    if isinstance(body, Send):
        return Command(command_id, body)
    if command_id == 0:
        return _PONG
    if body is None:
        raise ValueError("no method")
    return Command(command_id, body)


def _id(command_id: int) -> bytes:
    return _ID.write(command_id) if command_id else b""


def _publication(head: bytes, offset: int, body: bytes) -> bytes:
    """Return the push of one publication; the hot path of every fan-out.

    Most have nothing but data and offset. Spliced, as JSON is, they cost a third of what Google's
    library takes; with tags or info about the same (benchmarks/protobuf_encode.py).
    """
    if body.startswith(_DATA_ALONE) and not body.endswith(DELTA_ENDS):
        data = body[len(_DATA_ALONE) : -1]
        number = _OFFSET + varint(offset) if offset else b""
        publication = b"%b%b%b%b" % (_DATA, varint(len(data)), data, number)
    else:
        found = publication_of(body)
        found.offset = offset
        publication = PUBLICATION.write(found)
    push = b"%b%b%b" % (head, varint(len(publication)), publication)
    return sized(b"%b%b%b" % (_PUSH, varint(len(push)), push))


PROTOBUF: Final = ProtobufCodec()
