"""What clients of any SDK must be able to do at two edges: the tests of each SDK call these."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from actors.settings.tree import ChannelSettings, Settings
from tests.sdk.cable import cable_to
from tests.sdk.client import CallError, Client, Options
from tests.sdk.kinds import Kind
from tests.two_edges import SETTINGS as TWO_SETTINGS
from tests.two_edges import Two, two_edges

OPEN = ChannelSettings(
    history_size=10,
    history_ttl_s=60,
    presence=True,
    join_leave=True,
    allow_subscribe_for_client=True,
    allow_publish_for_subscriber=True,
    allow_history_for_subscriber=True,
    allow_presence_for_subscriber=True,
)
CACHE = OPEN.model_copy(update={"force_recovery": True, "force_recovery_mode": "cache"})
SETTINGS = TWO_SETTINGS.model_copy(
    update={
        "channels": OPEN,
        "namespaces": {
            "bare": ChannelSettings(),
            "wall": OPEN.model_copy(update={"allow_publish_for_client": True}),
            "deltas": OPEN.model_copy(update={"allowed_delta_types": ("fossil",)}),
            "tagged": OPEN.model_copy(update={"allow_tags_filter": True}),
            "cache": CACHE,
            "latest": CACHE.model_copy(update={"auto_cache_recover": True}),
        },
    }
)


class Journey:
    """Two edges and clients of one kind, at the second edge where nothing else is said."""

    def __init__(self, two: Two, kind: Kind, stack: AsyncExitStack) -> None:
        self.two = two
        self.kind = kind
        self._stack = stack

    async def open(self, options: Options, address: str = "", *, emulation: str = "") -> Client:
        """Make a client that has not connected yet."""
        address = address or self.two.clients.address
        opened = self.kind.client(address, options, emulation=emulation)
        return await self._stack.enter_async_context(opened)

    async def client(self, user: str, address: str = "", *, emulation: str = "") -> Client:
        """Connect a user."""
        options = Options(self.two.token(user))
        client = await self.open(options, address, emulation=emulation)
        await client.call("connect")
        assert (await client.hear("connecting"))["code"] == 0
        client.id = (await client.hear("connected"))["client"]
        return client

    async def publish(self, *data: object, channel: str = "news") -> None:
        """Publish by the server API, at the first edge."""
        for one in data:
            await self.two.call("publish", channel=channel, data=one)


@asynccontextmanager
async def journey(kind: Kind, settings: Settings = SETTINGS) -> AsyncIterator[Journey]:
    """Run two edges, and clients that end before them."""
    async with two_edges(settings) as two, AsyncExitStack() as stack:
        yield Journey(two, kind, stack)


async def side_by_side(kinds: Sequence[Kind], made: Callable[[Journey], Awaitable[None]]) -> None:
    """Have clients of several kinds make a journey at one time, at the same edges."""

    async def make(way: Journey) -> None:
        try:
            await made(way)
        except Exception as error:
            error.add_note(str(way.kind))
            raise

    async with (
        two_edges(SETTINGS) as two,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        for kind in kinds:
            group.create_task(make(Journey(two, kind, stack)))


async def conversation(way: Journey) -> None:
    """Two users at two edges see each other come, talk and go.

    The reply to a publish comes after the commit: the history that is read then has it.
    """
    ann = await way.client("ann")
    bob = await way.client("bob", way.two.asked.address)
    subscribed = await ann.subscribe("news", {"join_leave": True})
    assert (subscribed["channel"], subscribed["recovered"]) == ("news", False)
    assert (await ann.hear("join"))["info"]["user"] == "ann"
    await bob.subscribe("news")
    joined = (await ann.hear("join"))["info"]
    assert (joined["user"], joined["client"]) == ("bob", bob.id)
    there = (await ann.call("presence", "news"))["clients"]
    assert {client: info["user"] for client, info in there.items()} == {
        ann.id: "ann",
        bob.id: "bob",
    }
    assert await ann.call("presence_stats", "news") == {"num_clients": 2, "num_users": 2}

    await bob.call("publish", "news", {"text": "grüße\n\u2028", "n": [1, None, 2.5]})
    kept = await way.two.call("history", channel="news", limit=1)
    assert kept["publications"][0]["data"] == {"text": "grüße\n\u2028", "n": [1, None, 2.5]}
    for client in (ann, bob):
        heard = await client.hear("publication")
        assert heard["data"] == kept["publications"][0]["data"]
        assert (heard["channel"], heard["offset"]) == ("news", 1)
        assert (heard["info"]["user"], heard["info"]["client"]) == ("bob", bob.id)

    await bob.call("unsubscribe", "news")
    assert (await bob.hear("unsubscribed"))["code"] == 0
    assert (await ann.hear("leave"))["info"]["client"] == bob.id
    await way.publish("ann alone")
    assert await ann.data(1) == ["ann alone"]
    assert await ann.call("presence_stats", "news") == {"num_clients": 1, "num_users": 1}
    await ann.call("disconnect")
    assert (await ann.hear("disconnected"))["code"] == 0
    assert bob.heard("publication") == []
    assert bob.heard("join") == []


async def history(way: Journey) -> None:
    """By limit, from a position on, and backwards; without a limit only the position."""
    ann = await way.client("ann")
    await ann.subscribe("news")
    await way.publish(1, 2, 3, 4)

    async def offsets(**wishes: object) -> list[int]:
        found = await ann.call("history", "news", wishes)
        assert (found["offset"], found["epoch"]) == (4, epoch)
        return [publication["offset"] for publication in found["publications"]]

    epoch = (await way.two.call("history", channel="news"))["epoch"]
    assert await offsets() == []
    assert await offsets(limit=-1) == [1, 2, 3, 4]
    assert await offsets(limit=3) == [1, 2, 3]
    assert await offsets(limit=2, reverse=True) == [4, 3]
    since = {"offset": 2, "epoch": epoch}
    assert await offsets(limit=10, since=since) == [3, 4]
    assert await offsets(limit=1, since=since) == [3]
    assert await offsets(limit=10, since=since, reverse=True) == [1]
    with pytest.raises(CallError) as error:
        await offsets(limit=10, since={"offset": 2, "epoch": "gone"})
    assert error.value.code == 112


async def recovery(way: Journey) -> None:
    """After a cut a client gets exactly what it missed; where that is gone, it is told so."""
    async with cable_to(way.two.clients.address) as cable:
        ann = await way.client("ann", cable.address)
        first = await ann.subscribe("news", {"recoverable": True})
        assert (first["was_recovering"], first["recoverable"]) == (False, True)
        await way.publish(1)
        assert await ann.data(1) == [1]

        await cable.cut()
        assert (await ann.hear("subscribing"))["code"] == 0
        await ann.hear("connecting")
        await way.publish(2, 3)
        await cable.mend()
        again = await ann.hear("subscribed")
        assert (again["was_recovering"], again["recovered"]) == (True, True)
        await way.publish(4)
        assert await ann.data(3) == [2, 3, 4]

        await cable.cut()
        await ann.hear("connecting")
        await way.publish(5)
        await way.two.call("history_remove", channel="news")
        await cable.mend()
        again = await ann.hear("subscribed")
        assert (again["was_recovering"], again["recovered"]) == (True, False)
        await way.publish(6)
        assert await ann.data(1) == [6]


async def server_ends(way: Journey) -> None:
    """A subscription ends for good, and a connection by its code: come back, or do not."""
    ann = await way.client("ann")
    await ann.subscribe("news")
    await way.two.call("unsubscribe", user="ann", channel="news")
    ended = await ann.hear("unsubscribed")
    assert (ended["code"], ended["reason"]) == (2000, "server unsubscribe")
    await ann.subscribe("news")

    for code in (3000, 4001):
        why = {"code": code, "reason": "come back"}
        await way.two.call("disconnect", user="ann", disconnect=why)
        found = await ann.hear("connecting")
        assert (found["code"], found["reason"]) == (code, "come back")
        await ann.hear("connected")
        await ann.hear("subscribed")
    for code in (3503, 4501):
        why = {"code": code, "reason": "stay away"}
        await way.two.call("disconnect", user="ann", disconnect=why)
        found = await ann.hear("disconnected")
        assert (found["code"], found["reason"]) == (code, "stay away")
        await ann.call("connect")
        await ann.hear("connected")
    assert ann.heard("error") == []


async def edge_leaves(way: Journey) -> None:
    """A client of an edge that closes is told to come back (3001)."""
    ann = await way.client("ann")
    await way.two.clients.close()
    found = await ann.hear("connecting")
    assert (found["code"], found["reason"]) == (3001, "shutdown")


async def server_subscribes(way: Journey) -> None:
    """A subscription that the server makes is told, and so is what is published there."""
    ann = await way.client("ann")
    await way.two.call("subscribe", user="ann", channel="bare:x")
    assert (await ann.hear("server_subscribed"))["channel"] == "bare:x"
    await way.two.call("publish", channel="bare:x", data={"n": 1})
    heard = await ann.hear("server_publication")
    assert (heard["channel"], heard["data"]) == ("bare:x", {"n": 1})
    await way.two.call("unsubscribe", user="ann", channel="bare:x")
    assert (await ann.hear("server_unsubscribed"))["channel"] == "bare:x"


async def refusals(way: Journey) -> None:
    """Errors have the codes that the SDK's users know; a bad token ends it all (3500)."""
    ann = await way.client("ann")
    with pytest.raises(CallError) as error:
        await ann.call("rpc", "anything", {"n": 1})
    assert error.value.code == 108
    for channel, code in (("bare:x", 103), ("nowhere:x", 102)):
        await ann.call("subscribe", channel, {})
        assert (await ann.hear("unsubscribed"))["code"] == code
        with pytest.raises(CallError) as error:
            await ann.call("publish", channel, 1)
        assert error.value.code == code
    with pytest.raises(CallError) as error:
        await ann.call("presence", "bare:x")
    assert error.value.code == 108
    eve = await way.open(Options("not.a.token"))
    await eve.call("connect")
    assert (await eve.hear("disconnected"))["code"] == 3500
