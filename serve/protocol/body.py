"""What a stored publication consists of: found by its bytes, not decoded.

A body is a JSON object as the publisher shapes it: `tags` and `info` where there are any, in this
order, then `data`. What is in them may be as deep as it likes: a decoder would raise where its
stack ends, and that would end the edge that follows the feed.
"""

import re
from typing import Final

import msgspec

from actors.message import WHOLE_BRACE

TEXT_BRACE: Final = b"{  "
"""How a publication in the shape of deltas begins (see `shape`): the data are a JSON string.

Of those that are stored none does. As with `WHOLE_BRACE`, JSON does not mind the blanks.
"""
DELTA_END: Final = b',"delta":true'
"""What stands between such data and the last brace where they are a delta."""

_KEY: Final = b'"data":'
_ALONE: Final = b"{" + _KEY
_TAGGED: Final = (b'{"tags":', WHOLE_BRACE + b'"tags":')
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_decode_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


def split(body: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the data, and the data; the rest is one brace."""
    start = len(_ALONE) if body.startswith(_ALONE) else _data_start(body)
    return body[:start], body[start:-1]


def wants_whole(body: bytes) -> bool:
    """Tell whether nobody should get it as a delta."""
    return body.startswith(WHOLE_BRACE)


def tags_of(body: bytes) -> dict[str, str]:
    """Return the tags."""
    if not body.startswith(_TAGGED):
        return {}
    start = body.index(b":") + 1
    # An object of texts: it ends with the first brace outside of them.
    end = next(token.end() for token in _TOKENS.finditer(body, start) if token[0] == b"}")
    return _decode_tags(body[start:end])


def _data_start(body: bytes) -> int:
    depth = 0
    for token in _TOKENS.finditer(body):
        text = token[0]
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and body.startswith(_KEY, token.start()):
            return token.start() + len(_KEY)
    raise ValueError("a publication without data")
