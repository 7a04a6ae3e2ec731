"""What is JSON in our structs: as members of Protobuf messages, and from their bytes."""

import re
from typing import Any, Final

import msgspec
from google.protobuf.json_format import MessageToJson
from msgspec import Raw, Struct

from actors.message import without_newlines
from serve.protocol.body import DELTA_END, TEXT_BRACE, split
from serve.protocol.messages import EMPTY
from serve.protocol.protocol_pb2 import TagFilter


class _Info(Struct):
    """`ClientInfo` as others wrote it: anything may be missing."""

    user: str = ""
    client: str = ""
    conn_info: Raw = EMPTY
    chan_info: Raw = EMPTY


class _Publication(Struct):
    """A publication as it is stored, or in the shape of deltas; with its offset or without."""

    data: Raw
    offset: int = 0
    tags: dict[str, str] = {}
    info: Raw = EMPTY
    delta: bool = False


# Each is used by one thread only, and holds no state between calls.
_check: Final = msgspec.json.Decoder(Raw).decode
_decode_info: Final = msgspec.json.Decoder(_Info).decode
_decode_publication: Final = msgspec.json.Decoder(_Publication).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_ALONE: Final = b'{"data":'
_OFFSET: Final = re.compile(rb'{"offset":(\d+),')
_TEXT: Final = re.compile(rb'{(?:"offset":\d+,)?' + re.escape(TEXT_BRACE[1:]))


def publication(body: bytes) -> dict[str, Any]:
    """Return the members of a publication, with its offset if it has one. Does not raise.

    Args:
        body: As it is stored, or in the shape of deltas. Of that, the data are the bytes that
            JSON has as a string.
    """
    if body.startswith(_ALONE):  # Most.
        return {"data": body[len(_ALONE) : -1]}
    found = _decoded(body)
    data = bytes(found.data)
    return {
        "data": _decode_text(data).encode() if _TEXT.match(body) else data,
        "offset": found.offset,
        "tags": found.tags,
        "info": client_info(found.info) if found.info else None,
        "delta": found.delta,
    }


def _decoded(body: bytes) -> _Publication:
    try:
        return _decode_publication(body)
    except (msgspec.DecodeError, RecursionError):
        # Deeper than the stack goes. By their bytes, data and offset can be found all the same.
        data, offset = split(body)[1], _OFFSET.match(body)
        return _Publication(
            Raw(data.removesuffix(DELTA_END)),
            offset=int(offset[1]) if offset else 0,
            delta=data.endswith(DELTA_END),
        )


def client_info(text: Raw) -> dict[str, Any]:
    """Return the members of a `ClientInfo`; none, if it is not one. Does not raise.

    Producers in other languages may give any object as the info of a publication.
    """
    try:
        found = _decode_info(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {
        "user": found.user,
        "client": found.client,
        "conn_info": bytes(found.conn_info),
        "chan_info": bytes(found.chan_info),
    }


def json_of(content: bytes) -> Raw:
    """Return JSON without raw newlines.

    Raises:
        ValueError: It is none, and clients of the JSON codec could not be given it.
        RecursionError: It is too deep.
    """
    content.decode()  # The next line lets any bytes pass within strings.
    return Raw(without_newlines(bytes(_check(content))))


def published_json(content: bytes) -> Raw:
    """Return the same of what is published; what is no JSON counts as not given.

    That is an error of its command (107). Of all else it is one of the frame, and ends the
    connection.
    """
    try:
        return json_of(content)
    except (ValueError, RecursionError):
        return EMPTY


def filter_json(tag_filter: TagFilter) -> Raw:
    """Return a tag filter as JSON clients have it."""
    return Raw(MessageToJson(tag_filter, indent=None).encode())
