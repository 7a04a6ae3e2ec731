"""Which channels all edges have: added up, or an error that says why not."""

import asyncio

import pytest

from actors.errors import MessageError, UnavailableError
from actors.store.memory.store import MemoryStore
from serve.directives.directive import AskChannels, Directive
from serve.directives.follower import DirectiveFollower
from serve.directives.survey import CHANNELS_MAX, Survey

NOW_S = 1_000.0


class Edge:
    """One that counts what it is told to."""

    def __init__(self, store: MemoryStore, name: str, channels: dict[str, int]) -> None:
        store.write_stats(f"edge:{name}", {"kind": "edge", "at_s": NOW_S})
        self.asked: list[str] = []
        self.channels = channels
        self.survey = Survey(store, name, self.count, within_s=0.2, wall=lambda: NOW_S)
        self.follower = DirectiveFollower(store.control, self.take)

    def count(self, pattern: str) -> dict[str, int]:
        """Say what there is."""
        self.asked.append(pattern)
        return self.channels

    def take(self, directive: Directive) -> None:
        """Hand on."""
        assert isinstance(directive, AskChannels)
        self.survey.take(directive)

    async def __aenter__(self) -> "Edge":
        self.follower.start()
        await self.follower.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.follower.close()
        await self.survey.close()


async def test_counts_are_added_up() -> None:
    """Each edge answers, and the caller's own is one of them."""
    store = MemoryStore(clock=lambda: NOW_S)
    async with (
        asyncio.timeout(5),
        Edge(store, "a", {"x": 1}) as a,
        Edge(store, "b", {"x": 2, "y": 1}) as b,
    ):
        store.write_stats("edge:dead", {"kind": "edge", "at_s": NOW_S - 11})
        store.write_stats("nozzle:0", {"kind": "nozzle", "at_s": NOW_S})
        assert await a.survey.channels("p*") == {"x": 3, "y": 1}
        assert b.asked == ["p*"]


async def test_edge_that_does_not_answer_is_an_error() -> None:
    """Half of the truth would look like the whole."""
    store = MemoryStore(clock=lambda: NOW_S)
    async with asyncio.timeout(5), Edge(store, "a", {"x": 1}) as a:
        store.write_stats("edge:mute", {"kind": "edge", "at_s": NOW_S - 1})
        with pytest.raises(UnavailableError, match="1 edges did not say"):
            await a.survey.channels("")


async def test_late_answer_is_nothing() -> None:
    """Nobody waits for it any more, and nothing is kept."""
    store = MemoryStore(clock=lambda: NOW_S)
    async with asyncio.timeout(5), Edge(store, "a", {"x": 1}) as a:
        a.survey.take(AskChannels(id="over"))
        assert await a.survey.channels("") == {"x": 1}
    await store.boxes.open("over", ttl_s=9)
    assert await store.boxes.take("over", limit=9, block_s=0) == []


async def test_too_many_channels_are_refused() -> None:
    """The caller is told to narrow the pattern."""
    store = MemoryStore(clock=lambda: NOW_S)
    many = {f"c{n}": 1 for n in range(CHANNELS_MAX + 1)}
    async with asyncio.timeout(5), Edge(store, "a", many) as a:
        with pytest.raises(MessageError, match="more than"):
            await a.survey.channels("")
