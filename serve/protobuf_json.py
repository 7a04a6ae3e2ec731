"""What is JSON in our structs, but a Protobuf message to clients; and JSON that comes as bytes."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from actors.message import without_newlines
from serve.body import split
from serve.protobuf_wire import (
    FLAG,
    OFFSET,
    SIZED,
    TEXT,
    Field,
    Kind,
    ListField,
    MapField,
    Shape,
    sized,
)
from serve.protocol import EMPTY


class Info(Struct):
    """`ClientInfo` as others wrote it: anything may be missing."""

    user: str = ""
    client: str = ""
    conn_info: Raw = EMPTY
    chan_info: Raw = EMPTY


class Publication(Struct):
    """A publication as it is stored, with its offset or without."""

    data: Raw = EMPTY
    offset: int = 0
    tags: dict[str, str] = {}
    delta: bool = False
    info: Info | None = None


class FilterNode(Struct, omit_defaults=True):
    """A node of a tag filter."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list["FilterNode"] = []


# Each is used by one thread only, and holds no state between calls.
_check: Final = msgspec.json.Decoder(Raw).decode
_decode_info: Final = msgspec.json.Decoder(Info).decode
_decode_publication: Final = msgspec.json.Decoder(Publication).decode
_decode_string: Final = msgspec.json.Decoder(str).decode
_decode_filter: Final = msgspec.json.Decoder(FilterNode).decode
DELTA_ENDS: Final = (b',"delta":true}', b',"delta":false}')
"""How publications in the shape of deltas end (`serve.shape`); none that is stored does."""
_OFFSET: Final = b'{"offset":'
_DATA: Final = b'"data":'


def publication_of(body: bytes) -> Publication:
    """Return a publication as it is stored, or in the shape of deltas. Does not raise.

    Of those, the data are the bytes that JSON has as a string. Producers in other languages may
    give any object as `info`. Where it is not that of a client, or too deep to be decoded, data
    and offset are all that is left.
    """
    if not body.endswith(DELTA_ENDS):
        return _stored(body)
    found = _stored(body[: body.rindex(b",")] + b"}")
    found.data = Raw(_decode_string(bytes(found.data)).encode())
    found.delta = body.endswith(DELTA_ENDS[0])
    return found


def _stored(body: bytes) -> Publication:
    """Return a publication whose last member is `data`."""
    offset, start = 0, 1
    if body.startswith(_OFFSET):
        comma = body.index(b",")
        offset, start = int(body[len(_OFFSET) : comma]), comma + 1
    if not body.startswith(_DATA, start):
        try:
            return _decode_publication(body)
        except (msgspec.ValidationError, RecursionError):
            return Publication(Raw(split(body)[1]), offset)
    return Publication(Raw(body[start + len(_DATA) : -1]), offset)


def _read_json(content: bytes) -> Raw:
    """Return JSON without raw newlines; of nothing, nothing.

    Raises:
        ValueError: It is none, and clients of the JSON codec could not be given it.
        RecursionError: It is too deep.
    """
    if not content:
        return EMPTY
    content.decode()  # The next line lets any bytes pass within strings.
    return Raw(without_newlines(bytes(_check(content))))


def _read_published(content: bytes) -> Raw:
    try:
        return _read_json(content)
    except (ValueError, RecursionError):
        return EMPTY


def _write_json(value: Raw) -> bytes:
    return sized(bytes(value))


def _no_reader(content: bytes) -> Raw:
    raise ValueError(f"clients do not send this: {len(content)} bytes")


def _write_info(value: Raw) -> bytes:
    try:
        return sized(INFO.write(_decode_info(value)))
    except (msgspec.ValidationError, RecursionError):
        return sized(b"")


JSON_TEXT: Final = Kind(SIZED, _write_json, _read_json)
"""JSON as bytes."""

PUBLISHED: Final = Kind(SIZED, _write_json, _read_published)
"""The same for what is published: what is no JSON counts as not given.

That is an error of the command (107). Elsewhere it is one of the frame, and ends the connection.
"""

INFO: Final = Shape(
    Info,
    {
        "user": Field(1, TEXT),
        "client": Field(2, TEXT),
        "conn_info": Field(3, JSON_TEXT),
        "chan_info": Field(4, JSON_TEXT),
    },
)

PUBLICATION: Final = Shape(
    Publication,
    {
        "data": Field(4, JSON_TEXT),
        "info": Field(5, INFO.kind),
        "offset": Field(6, OFFSET),
        "tags": MapField(7, TEXT, str),
        "delta": Field(8, FLAG),
    },
)

JSON_INFO: Final = Kind(SIZED, _write_info, _no_reader)
"""A `ClientInfo` that is given as JSON."""

JSON_PUBLICATION: Final = Kind(
    SIZED, lambda value: sized(PUBLICATION.write(publication_of(bytes(value)))), _no_reader
)
"""A publication that is given as JSON."""


def _write_filter(node: FilterNode) -> bytes:
    return sized(_FILTER.write(node))


def _read_filter(content: bytes) -> FilterNode:
    return _FILTER.read(content)


_FILTER: Final[Shape[FilterNode]] = Shape(
    FilterNode,
    {
        "op": Field(1, TEXT),
        "key": Field(2, TEXT),
        "cmp": Field(3, TEXT),
        "val": Field(4, TEXT),
        "vals": ListField(5, TEXT),
        "nodes": ListField(6, Kind(SIZED, _write_filter, _read_filter)),
    },
)
JSON_FILTER: Final = Kind(
    SIZED,
    lambda value: _write_filter(_decode_filter(value)),
    lambda content: Raw(msgspec.json.encode(_read_filter(content))),
)
"""A tag filter that is given as JSON, and wanted as JSON."""
