"""The Protobuf form of the client protocol: each message stands behind its length.

https://centrifugal.dev/docs/transports/client_protocol#protobuf-protocol. Google's library does the
encoding. The schema's messages have the names and fields of our structs (protocol.proto).
"""

from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any, Final, get_args

from google.protobuf.message import DecodeError, Message
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed
from msgspec import Struct

from serve.protocol import protocol_pb2
from serve.protocol.messages import (
    Command,
    CommandBody,
    DisconnectCode,
    DisconnectError,
    Failure,
    Publish,
    Push,
    Result,
    Send,
    StreamPosition,
)
from serve.protocol.protobuf_json import (
    client_info,
    filter_json,
    json_of,
    publication,
    published_json,
)

_OFFSET_MAX: Final = 2**63 - 1
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
        rest = BytesIO(frame)
        try:
            while (message := parse_length_prefixed(protocol_pb2.Command, rest)) is not None:
                commands.append(_command(message))
        # Overflow: a length that no memory has.
        except (DecodeError, ValueError, OverflowError, RecursionError) as error:
            raise DisconnectError(DisconnectCode.BAD_REQUEST) from error
        return commands

    def reply(self, command_id: int, result: Result) -> bytes:
        """See `Codec.reply`."""
        return _framed(id=command_id, **{_RESULT_FIELDS[type(result).__name__]: _members(result)})

    def error(self, command_id: int, code: Failure) -> bytes:
        """See `Codec.error`."""
        error = {"code": code.value, "message": code.reason, "temporary": code.temporary}
        return _framed(id=command_id, error=error)

    def push(self, channel: str, body: Push) -> bytes:
        """See `Codec.push`."""
        return _framed(push={"channel": channel, _PUSH_FIELDS[type(body).__name__]: _members(body)})

    def publications(self, channel: str, first: int, bodies: Sequence[bytes]) -> list[bytes]:
        """See `Codec.publications`.

        The hot path of every fan-out (benchmarks/protobuf_encode.py). Dicts, as the library copies
        messages that are put into others.
        """
        return [
            _framed(
                push={
                    "channel": channel,
                    "pub": publication(body) | {"offset": first and first + index},
                }
            )
            for index, body in enumerate(bodies)
        ]

    def join(self, messages: Iterable[bytes]) -> bytes:
        """See `Codec.join`."""
        return b"".join(messages)


def _framed(**members: Any) -> bytes:
    """Return a reply behind its length."""
    written = BytesIO()
    serialize_length_prefixed(protocol_pb2.Reply(**members), written)
    return written.getvalue()


def _fields(message: type[Message]) -> dict[str, str]:
    """Return the names of the fields that hold messages, by the names of those."""
    fields = message.DESCRIPTOR.fields
    return {f.message_type.name: f.name for f in fields if f.message_type is not None}


_RESULT_FIELDS: Final = _fields(protocol_pb2.Reply)
_PUSH_FIELDS: Final = _fields(protocol_pb2.Push)


def _as_it_is(value: Any) -> Any:
    return value


def _members(value: Struct) -> dict[str, Any]:
    """Return the members of a struct's message."""
    return {
        name: _WRITE.get(name, _as_it_is)(getattr(value, name)) for name in value.__struct_fields__
    }


_WRITE: Final[dict[str, Callable[[Any], Any]]] = {
    "data": bytes,
    "info": client_info,
    "presence": lambda found: {client: client_info(info) for client, info in found.items()},
    "publications": lambda bodies: [publication(bytes(body)) for body in bodies],
    "subs": lambda results: {channel: _members(result) for channel, result in results.items()},
}
"""What is no plain value, by the name of its field."""


def _command(message: protocol_pb2.Command) -> Command:
    # Set fields in the order of their numbers.
    methods = [value for field, value in message.ListFields() if field.name != "id"]
    body = _struct(methods[0]) if methods else None
    if isinstance(body, Send):
        return Command(message.id, body)
    if message.id == 0:
        return _PONG
    if body is None:
        raise ValueError("no method")
    return Command(message.id, body)


def _struct(message: Message) -> Any:
    """Return a message's struct.

    Raises:
        ValueError, RecursionError: Its values are not of the protocol.
    """
    if isinstance(message, protocol_pb2.Publish):
        return Publish(message.channel, published_json(message.data))
    kind = _STRUCTS[message.DESCRIPTOR.name]
    fields = message.ListFields()
    return kind(**{field.name: _READ.get(field.name, _as_it_is)(value) for field, value in fields})


_STRUCTS: Final = {kind.__name__: kind for kind in (*get_args(CommandBody), StreamPosition)}


def _offset(value: int) -> int:
    if value > _OFFSET_MAX:
        raise ValueError("an offset that clients of the JSON codec could not give")
    return value


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "data": json_of,
    "headers": dict,
    "offset": _offset,
    "since": _struct,
    "subs": lambda wishes: {channel: _struct(wish) for channel, wish in wishes.items()},
    "tf": filter_json,
}
"""What is no plain value, by the name of its field."""


PROTOBUF: Final = ProtobufCodec()
