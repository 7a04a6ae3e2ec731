"""The Protobuf wire format: structs from bytes, and bytes from structs.

https://protobuf.dev/programming-guides/encoding/. By hand, for what is encoded most is a
publication that comes as JSON: its few fields are spliced around bytes that exist already
(benchmarks/protobuf_encode.py). Of proto3 there is what the client protocol has: no floats, no
groups, no packed lists. Whatever is read of bytes that are not of the format raises `ValueError`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

VARINT: Final = 0
SIZED: Final = 2
_FIXED: Final = {1: 8, 5: 4}
"""Wire types of no field of ours, with their sizes: they are passed over."""
_VARINT_BYTES_MAX: Final = 10
_MASK: Final = 2**64 - 1

S = TypeVar("S", bound=Struct)


def _varint(value: int) -> bytes:
    value &= _MASK
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


_SHORT: Final = [_varint(value) for value in range(2**14)]
"""Those of one or two bytes: nearly all sizes."""


def varint(value: int) -> bytes:
    """Write an integer; a negative one as the two's complement of 64 bits."""
    return _SHORT[value] if 0 <= value < 2**14 else _varint(value)


def sized(value: bytes) -> bytes:
    """Write bytes after their number."""
    return varint(len(value)) + value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at a place, 64 bits without a sign, and the place after it.

    Raises:
        ValueError: It is not there as a whole.
    """
    if at < len(data) and data[at] < 0x80:  # Nearly all: tags, flags, short sizes.
        return data[at], at + 1
    value = shift = 0
    for index in range(at, min(at + _VARINT_BYTES_MAX, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, index + 1
        shift += 7
    raise ValueError("not a varint")


def read_sized(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes that stand after their number, and the place after them.

    Raises:
        ValueError: They are not there as a whole.
    """
    size, start = read_varint(data, at)
    end = start + size
    if end > len(data):
        raise ValueError("cut off")
    return data[start:end], end


def read_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Return each field's tag (its number times 8, plus its wire type) and its int or bytes.

    Raises:
        ValueError: The bytes are not a message.
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        wire_type = tag & 7
        if tag < 8:
            raise ValueError("no such field number")
        if wire_type == VARINT:
            number, at = read_varint(data, at)
            yield tag, number
        elif wire_type == SIZED:
            content, at = read_sized(data, at)
            yield tag, content
        else:
            at += _FIXED.get(wire_type, len(data))
            if at > len(data):
                raise ValueError("cut off, or no such wire type")


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of values.

    Attributes:
        wire_type: `VARINT`, and values are read from an int; or `SIZED`, and from bytes.
        write: Makes of a value what stands behind the tag.
        read: Makes a value; raises `ValueError` if there is none.
    """

    wire_type: int
    write: Callable[[Any], bytes]
    read: Callable[[Any], Any]


class Field:
    """A field that stands once; of several, the last counts."""

    def __init__(self, number: int, kind: Kind) -> None:
        self.tag: Final = number << 3 | kind.wire_type
        self._kind = kind
        self._head = varint(self.tag)

    def write(self, value: Any) -> bytes:
        """Return the field with its tag."""
        return self._head + self._kind.write(value)

    def read(self, before: Any, content: Any) -> Any:
        """Return the value, with what was read of this field `before` (None: nothing)."""
        del before
        return self._kind.read(content)


class ListField(Field):
    """A field that stands once for each item of a list."""

    def write(self, value: Any) -> bytes:
        """See `Field.write`."""
        return b"".join([self._head + self._kind.write(item) for item in value])

    def read(self, before: Any, content: Any) -> Any:
        """See `Field.read`."""
        items: list[Any] = [] if before is None else before
        items.append(self._kind.read(content))
        return items


class MapField(Field):
    """A field that stands once for each item of a dict: a message of key (1) and value (2).

    Args:
        number: Its number.
        kind: Of the values. Keys are strings.
        missing: The value of an item that has none.
    """

    def __init__(self, number: int, kind: Kind, missing: Callable[[], Any]) -> None:
        super().__init__(number, Kind(SIZED, kind.write, kind.read))
        self._key = Field(1, TEXT)
        self._value = Field(2, kind)
        self._missing = missing

    def write(self, value: Any) -> bytes:
        """See `Field.write`."""
        items = [self._key.write(key) + self._value.write(item) for key, item in value.items()]
        return b"".join([self._head + sized(item) for item in items])

    def read(self, before: Any, content: Any) -> Any:
        """See `Field.read`."""
        items: dict[str, Any] = {} if before is None else before
        fields = dict(read_fields(content))
        key, value = fields.get(self._key.tag), fields.get(self._value.tag)
        name = "" if key is None else key.decode()
        items[name] = self._missing() if value is None else self._kind.read(value)
        return items


class Shape(Generic[S]):
    """How structs of one class are written: its fields, by their names."""

    def __init__(self, struct: type[S], fields: Mapping[str, Field]) -> None:
        self.struct: Final = struct
        self.fields: Final = fields
        self._by_tag = {field.tag: (name, field) for name, field in fields.items()}
        self._writers = [
            (name, field.write)
            for name, field in fields.items()
            if name in struct.__struct_fields__
        ]

    @property
    def kind(self) -> Kind:
        """Such a struct as a field's value."""
        return Kind(SIZED, lambda value: sized(self.write(value)), self.read)

    def write(self, value: S) -> bytes:
        """Return a struct's message. What is zero, empty or None is left out, as proto3 has it."""
        return b"".join(
            [write(item) for name, write in self._writers if (item := getattr(value, name))]
        )

    def read(self, data: bytes) -> S:
        """Return the struct of a message; unknown fields are passed over.

        Raises:
            ValueError: The bytes are not such a message.
        """
        found: dict[str, Any] = {}
        for tag, content in read_fields(data):
            known = self._by_tag.get(tag)
            if known is not None:
                name, field = known
                found[name] = field.read(found.get(name), content)
        return self.struct(**found)


def _bounded(maximum: int) -> Callable[[int], int]:
    def read(value: int) -> int:
        if value > maximum:
            raise ValueError("too large a number")
        return value

    return read


def _signed(value: int) -> int:
    return value - 2**64 if value >> 63 else value


TEXT: Final = Kind(SIZED, lambda value: sized(value.encode()), bytes.decode)
BYTES: Final = Kind(SIZED, sized, bytes)
FLAG: Final = Kind(VARINT, varint, bool)
UINT32: Final = Kind(VARINT, varint, _bounded(2**32 - 1))
OFFSET: Final = Kind(VARINT, varint, _bounded(2**63 - 1))
INT: Final = Kind(VARINT, varint, _signed)
