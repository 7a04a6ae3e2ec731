"""The control stream and the survey on a real server: when it comes to harm, and side by side."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from actors.errors import UnavailableError
from actors.partition import Keys
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisStats
from serve.directives.directive import AskChannels, Directive, UnsubscribeClients, encode
from serve.directives.follower import DirectiveFollower
from serve.directives.survey import Survey
from tests.integration.small_pipeline import TIMEOUT_S, OwnValkey, until

pytestmark = pytest.mark.redis


class Edge:
    """What an edge has of the control stream."""

    def __init__(self, url: str, name: str = "a", channels: dict[str, int] | None = None) -> None:
        self.name = name
        self.heard: list[str] = []
        self.store = RedisEdgeStore(
            url, Keys(), partitions=2, timeout_s=TIMEOUT_S, block_s_max=TIMEOUT_S
        )
        self.survey = Survey(self.store, name, lambda _: channels or {})
        self.follower = DirectiveFollower(self.store.control, self._take, block_s=TIMEOUT_S)

    def _take(self, directive: Directive) -> None:
        if isinstance(directive, AskChannels):
            self.survey.take(directive)
        else:
            assert isinstance(directive, UnsubscribeClients)
            self.heard.append(directive.channel)

    async def tell(self, channel: str) -> None:
        """Tell all edges something."""
        await self.store.control.add(encode(UnsubscribeClients(user="u", channel=channel)))

    async def tell_until_it_works(self, channel: str) -> None:
        """Do so, however often the server is not there; it may be told more than once."""
        while True:
            try:
                return await self.tell(channel)
            except UnavailableError:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(*edges: Edge) -> AsyncIterator[None]:
    """Let edges follow."""
    async with asyncio.timeout(60):
        for edge in edges:
            edge.follower.start()
            await edge.follower.ready()
        try:
            yield
        finally:
            for edge in edges:
                await edge.follower.close()
                await edge.survey.close()
                await edge.store.close()


def restart(valkey: OwnValkey) -> None:
    """Crash, and start again on the same data."""
    valkey.kill()
    valkey.start()


def restart_empty(valkey: OwnValkey) -> None:
    """Crash, and start again on nothing."""
    valkey.kill()
    valkey.forget()
    valkey.start()


def empty(valkey: OwnValkey) -> None:
    """Forget everything."""
    with valkey.admin() as admin:
        admin.flushall()


def end_connections(valkey: OwnValkey) -> None:
    """End all connections."""
    with valkey.admin() as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.mark.parametrize("harm", [restart, restart_empty, empty, end_connections])
async def test_followers_go_on_after_trouble(
    valkey: OwnValkey, harm: Callable[[OwnValkey], None]
) -> None:
    """What is told afterwards is heard; what was heard is not heard again."""
    a, b = Edge(valkey.url), Edge(valkey.url)
    async with following(a, b):
        await a.tell("before")
        await until(lambda: bool(a.heard and b.heard))
        await asyncio.to_thread(harm, valkey)
        await a.tell_until_it_works("after")
        await until(lambda: a.heard[-1] == b.heard[-1] == "after")
    assert (a.heard.count("before"), b.heard.count("before")) == (1, 1)


async def test_what_was_told_while_one_hung_is_heard(valkey: OwnValkey) -> None:
    """A server that hangs and goes on has kept what an edge had not read."""
    a, b = Edge(valkey.url), Edge(valkey.url)
    async with following(a, b):
        valkey.signal(signal.SIGSTOP)
        with pytest.raises(UnavailableError):
            await a.tell("meanwhile")
        valkey.signal(signal.SIGCONT)
        await a.tell_until_it_works("after")
        await until(lambda: "after" in a.heard and a.heard == b.heard)


async def test_surveys_side_by_side(valkey: OwnValkey) -> None:
    """Each has answers of its own, and leaves nothing in the server."""
    a, b = Edge(valkey.url, "a", {"x": 1}), Edge(valkey.url, "b", {"x": 2, "y" * 255: 1})
    stats = RedisStats(valkey.url, Keys())
    for edge in (a, b):
        stats.write_stats(f"edge:{edge.name}", {"kind": "edge", "at_s": time.time()})
    async with following(a, b):
        found = await asyncio.gather(
            *(edge.survey.channels("") for edge in (a, b) for _ in "12345")
        )
        with valkey.admin() as admin:
            await until(lambda: admin.keys("raywire:emulation:*") == [])
    stats.close()
    assert found == [{"x": 3, "y" * 255: 1}] * 10
