"""Server-Sent Events, one way and both ways.

https://html.spec.whatwg.org/multipage/server-sent-events.html,
https://centrifugal.dev/docs/transports/sse, https://centrifugal.dev/docs/transports/uni_sse
"""

from typing import Final

from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.wire import Wire
from serve.transports.stream import StreamKind


def sse_events(block: bytes) -> bytes:
    """Make one event of each message of a block. A message has no line end in it."""
    return b"data: " + block.replace(b"\n", b"\n\ndata: ") + b"\n\n"


_HEADERS: Final = {"Content-Type": "text/event-stream; charset=utf-8"}
SSE: Final = StreamKind(
    path="/connection/sse",
    methods=("GET", "POST"),
    wire=Wire(JSON, sse_events, stream=True),
    one_way=False,
    headers=_HEADERS,
    opening=b"\r\n",
    not_empty=("GET",),
)
ONE_WAY_SSE: Final = StreamKind(
    path="/connection/uni_sse",
    methods=("GET", "POST"),
    wire=Wire(ONE_WAY_JSON, sse_events, stream=True),
    one_way=True,
    headers=_HEADERS,
    opening=b"\r\n",
    not_empty=("POST",),
)
