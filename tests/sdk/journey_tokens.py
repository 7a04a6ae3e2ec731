"""How clients of any SDK live on with new tokens, which they ask a function of the app's for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.sdk.client import Client, Options
from tests.sdk.journey import Journey
from tests.two_edges import Two

SHORT_S: Final = 1
"""The least: `ttl` is in whole seconds."""
LONG_S: Final = 600
BREAKS: Final = ("connecting", "error", "subscribing", "subscription_error")
"""What a client tells that does not simply live on."""

Makers = dict[str, Callable[[], str]]
"""What makes tokens for a channel, or with an empty name for the connection."""


@asynccontextmanager
async def supplied(client: Client, makers: Makers) -> AsyncIterator[None]:
    """Give a client the tokens that it asks for."""

    async def supply() -> None:
        while True:
            channel = (await client.hear("token_wanted"))["channel"]
            await client.call("give", channel, makers[channel]())

    async with asyncio.TaskGroup() as group:
        supplying = group.create_task(supply())
        yield
        supplying.cancel()


class Mint:
    """Makes a user's tokens."""

    def __init__(self, two: Two, user: str) -> None:
        self._two = two
        self._user = user

    def token(self, ttl_s: float, **claims: Any) -> str:
        """Make one that is good for a while, or was."""
        return self._two.token(**{"user": self._user, "exp": time.time() + ttl_s, **claims})

    def first(self, **claims: Any) -> Callable[[], str]:
        """Return what makes one that has expired, and then good ones that soon will.

        One of those would do, if no machine were so slow that it expires on its way.
        """

        def tokens() -> Iterator[str]:
            yield self.token(-1, **claims)
            while True:
                yield self.token(SHORT_S, **claims)

        return tokens().__next__


async def info_at(way: Journey, client: Client, channel: str) -> Any:
    """Return who a client is to those who get what it publishes."""
    await client.call("publish", channel, 1)
    kept = await way.two.call("history", channel=channel, limit=1, reverse=True)
    return kept["publications"][0]["info"]


async def tokens(way: Journey) -> None:
    """New ones are asked for in time, and nothing breaks; one that is refused is the end."""
    user = str(way.kind)
    kept, lost, wall = f"${user}", f"${user}-lost", f"wall:{user}"
    mint = Mint(way.two, user)
    makers: Makers = {"": mint.first()}
    makers.update({channel: mint.first(channel=channel) for channel in (kept, lost)})
    ann = await way.open(Options(asks=True))
    async with supplied(ann, makers):
        await ann.call("connect")
        client = (await ann.hear("connected"))["client"]
        makers[""] = lambda: mint.token(LONG_S, info="second")
        await ann.subscribe(kept, {"asks": True})
        makers[kept] = lambda: mint.token(LONG_S, channel=kept, info="second")
        await ann.subscribe(lost, {"asks": True})
        makers[lost] = lambda: mint.token(-1, channel=lost)
        for name in BREAKS:
            ann.heard(name)
        assert (await ann.hear("unsubscribed"))["code"] == 109
        # The other two were asked for before. They are taken, now or in a moment.
        while (await info_at(way, ann, wall)).get("conn_info") != "second":
            pass
        while (await info_at(way, ann, kept)).get("chan_info") != "second":
            pass
        assert (await info_at(way, ann, kept))["client"] == client
        assert [ann.heard(name) for name in BREAKS] == [[], [], [], []]

        await ann.call("disconnect")
        assert (await ann.hear("disconnected"))["code"] == 0
        makers[""] = mint.first()
        await ann.call("set_token", "")
        await ann.call("connect")
        await ann.hear("connected")
        makers[""] = lambda: mint.token(LONG_S, user="bob")
        assert (await ann.hear("disconnected"))["code"] == 3500
