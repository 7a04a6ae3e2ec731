"""What one-way transports have in common: a client connects once, and is told what happens.

https://centrifugal.dev/docs/transports/uni_client_protocol
"""

from serve.protocol.json_codec import decode_connect
from serve.protocol.messages import Close, Disconnected, DisconnectError
from serve.protocol.wire import Wire
from serve.session.connection import Connection
from serve.session.session import State


def take_first(connection: Connection, text: bytes) -> None:
    """Take a frame of a socket: the first is the connect request, others are not looked at."""
    if connection.session.state is not State.NEW:
        return
    try:
        connection.connect(decode_connect(text))
    except DisconnectError as error:
        connection.shut(error.code)


def farewell(wire: Wire, close: Close) -> bytes:
    """Return the push that says why a connection ends, framed."""
    push = Disconnected(close.code, close.reason, close.reconnect)
    return wire.frame(wire.codec.push("", push))
