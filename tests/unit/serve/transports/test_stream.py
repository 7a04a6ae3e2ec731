"""Responses that go on: what becomes of their connections."""

from typing import Any

import pytest

from actors.store.memory.store import MemoryStore
from serve.hub.hub import Hub
from serve.session.approach import UNKNOWN
from serve.session.connection import Connection
from serve.transports.forwarding import Emulation
from serve.transports.http_stream import HTTP_STREAM
from serve.transports.stream import SessionStream
from tests.hub_client import SETTINGS, Store, refuse


async def test_connection_whose_request_fails_is_forgotten() -> None:
    """A bug of ours in its first step leaves nothing that counts for `client.connections_max`."""
    hub = Hub(SETTINGS, Store(), refuse)
    emulation = Emulation(MemoryStore().boxes, "node")

    def begin(connection: Connection) -> None:
        connection.receive(b'{"id":1,"connect":{}}')
        raise RecursionError

    async def idle(*_: object) -> Any:
        raise AssertionError

    response = SessionStream(hub, emulation, HTTP_STREAM, begin, {}, UNKNOWN)
    with pytest.raises(RecursionError):
        await response({}, idle, idle)
    assert not hub._connections
    assert not emulation._sessions
