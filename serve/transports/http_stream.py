"""HTTP streaming, one way and both ways: a response of JSON lines that goes on.

Both ways, it may be Protobuf, too: messages behind their lengths, as they stand in a frame.

https://centrifugal.dev/docs/transports/http_stream,
https://centrifugal.dev/docs/transports/uni_http_stream
"""

from dataclasses import replace
from typing import Final

from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.wire import Wire
from serve.transports.request import PROTOBUF_TYPE
from serve.transports.stream import StreamKind


def json_lines(block: bytes) -> bytes:
    """End the last line of a block; each message is a line already."""
    return block + b"\n"


_HEADERS: Final = {"Content-Type": "application/x-ndjson"}
_JSON_STREAM: Final = StreamKind(
    path="/connection/http_stream",
    methods=("POST",),
    wire=Wire(JSON, json_lines, stream=True),
    one_way=False,
    headers=_HEADERS,
)
_PROTOBUF_STREAM: Final = replace(
    _JSON_STREAM,
    wire=Wire(PROTOBUF, bytes, stream=True),
    headers={"Content-Type": PROTOBUF_TYPE},
)
HTTP_STREAM: Final = replace(_JSON_STREAM, protobuf=_PROTOBUF_STREAM)
ONE_WAY_HTTP_STREAM: Final = StreamKind(
    path="/connection/uni_http_stream",
    methods=("POST",),
    wire=Wire(ONE_WAY_JSON, json_lines, stream=True),
    one_way=True,
    headers=_HEADERS,
    not_empty=("POST",),
)
