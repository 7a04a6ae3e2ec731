"""How much may wait for a client: only what gathers behind a send counts."""

from typing import Any

from actors.settings.tree import ChannelSettings, Settings
from actors.store.memory.store import MemoryStore
from serve.hub.hub import Hub
from serve.transports.http_stream import HTTP_STREAM
from serve.transports.outlet import Outlet
from tests.hub_client import refuse


def opened(bytes_max: int) -> Outlet:
    """Make an outlet with a connection."""
    hub = Hub(Settings(channels=ChannelSettings()), MemoryStore(), refuse)
    outlet = Outlet(bytes_max)
    outlet.connection = hub.connect(outlet, HTTP_STREAM.wire)
    return outlet


def ending(outlet: Outlet) -> Any:
    """Return the code that it has ended with."""
    return outlet.ended and outlet.ended.code


async def test_sender_that_is_free_is_given_any_amount() -> None:
    """One turn of the event loop may bring much: that says nothing about the client."""
    outlet = opened(10)
    blocks = [b"larger than all", b"and one more"]
    for _ in range(2):
        for block in blocks:
            outlet.write(block)
        assert await outlet.take() == blocks
        taken = outlet.take()
        taken.send(None)  # the sender is back, and waits
        taken.close()
    assert ending(outlet) is None


async def test_what_gathers_behind_a_send_is_limited() -> None:
    """A client that does not take it is closed at the limit, and what waited is dropped."""
    outlet = opened(10)
    outlet.write(b"larger than all")
    await outlet.take()
    outlet.write(b"01234")
    outlet.write(b"56789")
    assert ending(outlet) is None
    outlet.write(b"x")
    assert ending(outlet) == 3008
    assert await outlet.take() == []


async def test_each_send_that_ends_makes_room() -> None:
    """What waited is under way then, and as much may wait again."""
    outlet = opened(10)
    outlet.write(b"first")
    for _ in range(3):
        await outlet.take()
        outlet.write(b"0123456789")
    assert ending(outlet) is None
