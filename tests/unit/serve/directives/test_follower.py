"""The follower of the control stream: from the end on, each once, through a server's absence."""

import asyncio

import pytest

from actors.errors import UnavailableError
from actors.pacing import Backoff
from actors.store.memory.control import MemoryControl
from actors.store.memory.store import MemoryStore
from serve.directives.directive import Directive, UnsubscribeClients, encode
from serve.directives.follower import DirectiveFollower


def told(channel: str) -> bytes:
    """A record."""
    return encode(UnsubscribeClients(user="u", channel=channel))


class Heard:
    """What a follower handed on."""

    def __init__(self) -> None:
        self.channels: list[str] = []
        self.news = asyncio.Event()

    def take(self, directive: Directive) -> None:
        """Note a directive."""
        assert isinstance(directive, UnsubscribeClients)
        self.channels.append(directive.channel)
        self.news.set()

    async def until(self, channel: str) -> None:
        """Wait until a channel was heard of."""
        async with asyncio.timeout(5):
            while channel not in self.channels:
                self.news.clear()
                await self.news.wait()


class Flaky:
    """A control stream whose server is away now and then, and may come back as another."""

    def __init__(self, control: MemoryControl) -> None:
        self.control = control
        self.failures = 0
        self.failed = asyncio.Event()

    async def add(self, record: bytes) -> None:
        """Append."""
        await self.control.add(record)

    async def end(self) -> str:
        """Return the end."""
        return await self.control.end()

    async def read(self, after: str, *, limit: int, block_s: float) -> list[tuple[str, bytes]]:
        """Read, or fail."""
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise UnavailableError("away")
        return await self.control.read(after, limit=limit, block_s=min(block_s, 0.01))


async def test_follows_from_the_end_on() -> None:
    """What was told before it started is not handed on; records it does not know neither."""
    control = MemoryStore().control
    await control.add(told("before"))
    heard = Heard()
    follower = DirectiveFollower(control, heard.take)
    follower.start()
    async with asyncio.timeout(5):
        await follower.ready()
    for record in (told("a"), b"?", told("b")):
        await control.add(record)
    await heard.until("b")
    await follower.close()
    assert heard.channels == ["a", "b"]


async def test_goes_on_when_the_server_is_back() -> None:
    """What was told meanwhile is handed on, once."""
    store = MemoryStore()
    flaky, heard = Flaky(store.control), Heard()
    follower = DirectiveFollower(flaky, heard.take, backoff=Backoff(0.001, 0.001))
    follower.start()
    async with asyncio.timeout(5):
        await follower.ready()
        await flaky.add(told("a"))
        await heard.until("a")
        flaky.failures = 3
        await flaky.failed.wait()
        await flaky.add(told("b"))
        await heard.until("b")
    await follower.close()
    assert heard.channels == ["a", "b"]


async def test_begins_anew_in_a_stream_that_ends_before() -> None:
    """A server that was emptied has lower ids for a while: they are not waited for."""
    flaky, heard = Flaky(MemoryStore().control), Heard()
    slow = MemoryStore(clock=lambda: 1.0).control
    follower = DirectiveFollower(flaky, heard.take, backoff=Backoff(0.001, 0.001))
    follower.start()
    async with asyncio.timeout(5):
        await follower.ready()
        await flaky.add(told("a"))
        await heard.until("a")
        await slow.add(told("old"))
        flaky.control, flaky.failures = slow, 1
        await flaky.failed.wait()
        while heard.channels[-1] != "b":
            await slow.add(told("b"))
            await asyncio.sleep(0.005)
    await follower.close()
    assert set(heard.channels) == {"a", "b"}


async def checked(follower: DirectiveFollower) -> None:
    """Check until it raises."""
    while True:
        follower.check()
        await asyncio.sleep(0.001)


async def test_what_broke_it_is_told() -> None:
    """An error of whoever takes the directives ends the follower; `check` raises it."""

    def fail(_: Directive) -> None:
        raise ValueError("broken")

    control = MemoryStore().control
    follower = DirectiveFollower(control, fail)
    follower.start()
    async with asyncio.timeout(5):
        await follower.ready()
        await control.add(told("a"))
        with pytest.raises(ValueError, match="broken"):
            await checked(follower)
    with pytest.raises(ValueError, match="broken"):
        await follower.close()
