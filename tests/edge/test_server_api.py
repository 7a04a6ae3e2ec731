"""The server API at one edge, clients at another: two real edges on one store in memory."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect

from tests.edge.test_streams import connected
from tests.two_edges import Two, two_edges


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """Two edges with a pipeline behind them."""
    async with two_edges() as pair:
        yield pair


async def test_subscribe_reaches_a_client_at_another_edge(two: Two) -> None:
    """The client is told with a push, gets what is published, and is in the presence."""
    async with two.client() as ann:
        await two.call("subscribe", user="ann", channel="news", info={"i": 1}, data={"d": "x\ny"})
        push = await ann.push()
        assert push == {"channel": "news", "subscribe": {"data": {"d": "x\ny"}}}

        await two.call("publish", channel="news", data=1)
        assert (await ann.push())["pub"] == {"offset": 1, "data": 1}
        there = (await two.call("presence", channel="news"))["presence"]
        assert there == {ann.id: {"user": "ann", "client": ann.id, "chan_info": {"i": 1}}}


async def test_subscribe_with_a_position_gives_what_came_after(two: Two) -> None:
    """The push has the position that was asked for, the publications follow, then live ones."""
    await two.call("publish", channel="recover:a", data=0)
    await two.call("publish", channel="recover:a", data=1)
    position = await two.call("publish", channel="recover:a", data=2)
    async with two.client() as ann:
        since = {"offset": 1, "epoch": position["epoch"]}
        await two.call("subscribe", user="ann", channel="recover:a", recover_since=since)
        told = (await ann.push())["subscribe"]
        assert told == {
            "recoverable": True, "positioned": True, "offset": 1, "epoch": position["epoch"]
        }  # fmt: skip
        await two.call("publish", channel="recover:a", data=3)
        offsets = [(await ann.push())["pub"]["offset"] for _ in range(3)]
    assert offsets == [2, 3, 4]


async def test_subscribers_see_no_stale_versions(two: Two) -> None:
    """Whichever edge is asked: it answers with the top position, and nothing is delivered."""
    turned = Two(two.clients, two.asked, two.store)
    state = {"channel": "recover:a", "version_epoch": "a"}
    async with two.client() as ann, turned.http:
        await ann.say({"id": 2, "subscribe": {"channel": "recover:a"}})
        assert "subscribe" in await ann.hear()
        top = await two.call("publish", **state, data=9, version=9)
        for edge in (two, turned):
            for version in (8, 9):
                assert await edge.call("publish", **state, data=version, version=version) == top
        assert (await turned.call("publish", **state, data=10, version=10))["offset"] == 2
        anew = {**state, "version_epoch": "b"}
        assert (await two.call("publish", **anew, data=1, version=1))["offset"] == 3
        assert (await two.call("publish", channel="recover:a", data=0))["offset"] == 4
        seen = [(await ann.push())["pub"] for _ in range(4)]
    assert [(pub["offset"], pub["data"]) for pub in seen] == [(1, 9), (2, 10), (3, 1), (4, 0)]


async def test_subscribe_means_the_clients_that_are_named(two: Two) -> None:
    """All of a user, or the one with an id; others hear nothing, and twice is once."""
    async with two.client() as first, two.client() as second, two.client("bob") as bob:
        await two.call("subscribe", user="ann", channel="news", client=second.id)
        assert (await second.push())["channel"] == "news"
        await two.call("subscribe", user="ann", channel="news")
        assert (await first.push())["channel"] == "news"
        assert await second.answers()
        assert await bob.answers()


async def test_unsubscribe_ends_a_subscription(two: Two) -> None:
    """Whoever made it: the client is told with code 2000, and the connection goes on."""
    async with two.client() as ann:
        await ann.say({"id": 2, "subscribe": {"channel": "news"}})
        assert "subscribe" in await ann.hear()
        await two.call("subscribe", user="ann", channel="more")
        await ann.push()
        for channel in ("news", "more"):
            await two.call("unsubscribe", user="ann", channel=channel)
            assert await ann.push() == {
                "channel": channel,
                "unsubscribe": {"code": 2000, "reason": "server unsubscribe"},
            }
        await two.call("unsubscribe", user="ann", channel="news")
        await two.call("publish", channel="news", data=1)
        assert await ann.answers()
        async with asyncio.timeout(5):
            while await two.store.presence("news"):
                await asyncio.sleep(0.005)


async def test_disconnect_ends_connections_but_the_whitelist(two: Two) -> None:
    """The code is 3503 unless given; who is in the whitelist stays, and so do others' clients."""
    async with two.client() as first, two.client() as second, two.client("bob") as bob:
        await two.call("disconnect", user="ann", whitelist=[second.id])
        assert await first.closed() == (3503, "force disconnect")
        assert await second.answers()
        why = {"code": 4000, "reason": "too many"}
        await two.call("disconnect", user="ann", disconnect=why)
        assert await second.closed() == (4000, "too many")
        assert await bob.answers()


async def test_refresh_sets_when_a_connection_expires(two: Two) -> None:
    """The client is told how long it has; one that is said to have expired is closed."""
    async with two.client() as ann:
        await two.call("refresh", user="ann", expire_at=int(time.time()) + 100)
        told = (await ann.push())["refresh"]
        assert told["expires"]
        assert 97 <= told["ttl"] <= 100
        await two.call("refresh", user="ann")
        assert await ann.push() == {"refresh": {}}
        await two.call("refresh", user="ann", expired=True)
        assert await ann.closed() == (3005, "connection expired")


async def test_anonymous_clients_are_meant_by_id_only(two: Two) -> None:
    """An empty user alone is taken for a mistake."""
    async with two.client("") as one, two.client("") as other:
        response = await two.http.post("/api/disconnect", json={})
        assert response.json()["error"]["code"] == 107
        await two.call("disconnect", client=one.id)
        assert (await one.closed())[0] == 3503
        assert await other.answers()


@pytest.mark.parametrize("kind", ["sse", "http_stream"])
async def test_a_stream_is_meant_by_its_session(two: Two, kind: str) -> None:
    """The name that only the client knows finds it; a push says why the connection ends."""
    token = two.token("ann")
    async with (
        connected(two.clients, kind, {"token": token}) as one,
        connected(two.clients, kind, {"token": token}) as other,
    ):
        await two.call("subscribe", user="ann", session=one.session, channel="news")
        assert (await one.hear())["push"] == {"channel": "news", "subscribe": {}}
        await two.call("disconnect", user="ann", session=one.session)
        why = {"code": 3503, "reason": "force disconnect"}
        assert (await one.hear())["push"] == {"disconnect": why}
        assert await one.hear() is None
        await two.call("subscribe", user="ann", channel="more")
        assert (await other.hear())["push"] == {"channel": "more", "subscribe": {}}


async def test_one_way_clients_are_told_by_bare_pushes(two: Two) -> None:
    """Subscribed, published, unsubscribed: all without a word from the client."""
    url = f"ws://{two.clients.address}/connection/uni_websocket"
    async with asyncio.timeout(5), connect(url) as socket:
        await socket.send(json.dumps({"token": two.token("ann")}))
        session = json.loads(await socket.recv())["connect"]["session"]
        await two.call("subscribe", user="ann", session=session, channel="news", data=[1])
        assert json.loads(await socket.recv()) == {"channel": "news", "subscribe": {"data": [1]}}
        await two.call("publish", channel="news", data=2)
        assert json.loads(await socket.recv())["pub"]["data"] == 2
        await two.call("unsubscribe", user="ann", channel="news")
        assert json.loads(await socket.recv())["unsubscribe"]["code"] == 2000


async def test_channels_counts_on_all_edges(two: Two) -> None:
    """A channel's clients are added up over the edges; a pattern chooses channels."""
    turned = Two(two.clients, two.asked, two.store)
    async with two.client() as ann, turned.client("bob") as bob, turned.http:
        for client, channels in ((ann, ("news", "recover:a")), (bob, ("news",))):
            for channel in channels:
                await client.say({"id": 2, "subscribe": {"channel": channel}})
                assert "subscribe" in await client.hear()
        assert await two.call("channels") == {
            "channels": {"news": {"num_clients": 2}, "recover:a": {"num_clients": 1}}
        }
        found = await turned.call("channels", pattern="rec*")
    assert found == {"channels": {"recover:a": {"num_clients": 1}}}


async def test_recovery_after_a_removed_history_is_told(two: Two) -> None:
    """Who lacks what was removed is not recovered; who lacks nothing is; offsets go on."""
    await two.call("publish", channel="recover:a", data=0)
    await two.call("publish", channel="recover:a", data=1)
    position = await two.call("publish", channel="recover:a", data=2)
    await two.call("history_remove", channel="recover:a")
    found = await two.call("history", channel="recover:a", limit=-1)
    assert found == {"publications": [], "offset": 3, "epoch": position["epoch"]}
    wish = {"channel": "recover:a", "recover": True, "epoch": position["epoch"]}
    async with two.client() as behind, two.client() as ahead:
        await behind.say({"id": 2, "subscribe": {**wish, "offset": 1}})
        assert not (await behind.hear())["subscribe"].get("recovered")
        await ahead.say({"id": 2, "subscribe": {**wish, "offset": 3}})
        assert (await ahead.hear())["subscribe"]["recovered"]
        assert (await two.call("publish", channel="recover:a", data=3))["offset"] == 4
        assert (await ahead.push())["pub"]["offset"] == 4
        assert (await behind.push())["pub"]["offset"] == 4
