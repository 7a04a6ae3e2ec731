"""Which form of the client protocol a WebSocket client wants.

https://centrifugal.dev/docs/transports/websocket
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

_JSON: Final = "centrifuge-json"
_PROTOBUF: Final = "centrifuge-protobuf"


def choose_subprotocol(offered: Iterable[str], *, one_way: bool) -> str | None:
    """Return the first one that we speak; a client is never refused for what it offers.

    One-way connections are JSON. Who offers Protobuf alone for one is told that nothing was chosen,
    and browsers end it for that.
    """
    spoken = (_JSON,) if one_way else (_JSON, _PROTOBUF)
    return next((name for name in offered if name in spoken), None)


def wants_protobuf(subprotocol: str | None, query: str) -> bool:
    """Tell whether the chosen subprotocol, or the query of the URL, asks for Protobuf."""
    if subprotocol == _PROTOBUF:
        return True
    wishes = parse_qs(query)
    return "protobuf" in (*wishes.get("format", ()), *wishes.get("cf_protocol", ()))
