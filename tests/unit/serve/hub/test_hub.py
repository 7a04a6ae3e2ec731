"""The hub: who gets what the feed says, how gaps heal, and what others see of clients."""

import asyncio
from collections.abc import Sequence
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from actors.errors import MessageError, QueueFullError, UnavailableError
from actors.message import Ack, Meta
from actors.pacing import Backoff
from actors.partition import partition_of
from actors.settings.client import ClientSettings
from actors.settings.tree import AuthSettings
from actors.store.interface import FeedGroup, FeedRecord, History
from actors.store.memory.store import MemoryStore
from serve.directives.directive import RefreshClients
from serve.hub.hub import Hub
from serve.protocol.messages import Close, Connect, Subscribe
from tests.hub_client import CACHE, ONE_WAY, SETTINGS, STREAM, Client, Store, refuse, settled


@pytest.fixture
async def store() -> Store:
    """A store in memory."""
    return Store()


@pytest.fixture
async def hub(store: Store) -> Hub:
    """A hub without a feed: tests deliver by hand."""
    return Hub(SETTINGS, store, refuse)


# --- delivery


async def test_publications_are_encoded_once_for_all(hub: Hub, store: Store) -> None:
    """All sessions of one wire get the same bytes, one block for a read of the feed."""
    clients = [await Client(hub).subscribed("kept:a") for _ in range(3)]
    for client in clients:
        client.blocks.clear()
    hub.deliver([store.publish("kept:a", 1, 2), store.publish("kept:a", 3)])
    (first,), (second,), (third,) = (client.blocks for client in clients)
    assert first is second is third
    assert clients[0].pushes() == [{"offset": n, "data": n} for n in (1, 2, 3)]
    assert hub.numbers()["delivered"] == 9


async def test_only_subscribers_get_a_publication(hub: Hub, store: Store) -> None:
    """Channels that nobody is subscribed to are passed over, their bodies counted off."""
    client = await Client(hub).subscribed("plain:b")
    group = [FeedGroup(f"plain:{name}", 0, "", 2) for name in "abc"]
    bodies = [b'{"data":"%b%d"}' % (name, n) for name in (b"a", b"b", b"c") for n in (1, 2)]
    hub.deliver([FeedRecord(0, "1-0", 1, 0.0, group, bodies, [])])
    assert client.data() == ["b1", "b2"]


async def test_channels_of_one_read_go_in_one_write(hub: Hub, store: Store) -> None:
    """A client subscribed to several channels gets its blocks joined, where frames allow it."""
    stream = await Client(hub, STREAM).subscribed("plain:a", "plain:b")
    frames = await Client(hub).subscribed("plain:a", "plain:b")
    stream.blocks.clear()
    frames.blocks.clear()
    hub.deliver([store.publish("plain:a", 1), store.publish("plain:b", 2)])
    assert stream.data() == frames.data() == [1, 2]
    assert (len(stream.blocks), len(frames.blocks)) == (1, 2)


async def test_unsubscribed_client_gets_no_more(hub: Hub, store: Store) -> None:
    """After the reply nothing comes, and the channel is forgotten."""
    client = await Client(hub).subscribed("kept:a")
    client.say({"id": 9, "unsubscribe": {"channel": "kept:a"}})
    await client.until(lambda: client.replies()[-1]["id"] == 9)
    hub.deliver([store.publish("kept:a", 1)])
    assert client.data() == []
    assert hub.numbers()["num_channels"] == hub.numbers()["num_subs"] == 0


async def test_client_that_ends_while_it_is_written_to(hub: Hub, store: Store) -> None:
    """A sink that closes in `write` disturbs nobody else."""
    clients = [await Client(hub).subscribed("plain:a") for _ in range(3)]
    clients[1].connection.write = lambda block: clients[1].connection.slow()
    hub.deliver([store.publish("plain:a", 1)])
    assert [client.data() for client in clients] == [[1], [], [1]]
    assert clients[1].closed == Close(3008, "slow")
    assert hub.numbers()["slow"] == 1
    assert hub.numbers()["num_clients"] == 2


async def test_repeated_records_are_dropped(hub: Hub, store: Store) -> None:
    """A record that the feed hands on twice is delivered once."""
    client = await Client(hub).subscribed("kept:a")
    record = store.publish("kept:a", 1)
    hub.deliver([record])
    hub.deliver([record, store.publish("kept:a", 2)])
    assert client.data() == [1, 2]


# --- gaps


async def test_gap_heals_from_history_in_order(hub: Hub, store: Store) -> None:
    """What comes meanwhile waits; nobody notices."""
    client = await Client(hub).subscribed("kept:a")
    store.publish("kept:a", 1, 2)
    store.gate.clear()
    hub.deliver([store.publish("kept:a", 3)])
    hub.deliver([store.publish("kept:a", 4)])
    await settled()
    assert client.data() == []
    store.gate.set()
    await client.until(lambda: len(client.data()) == 4)
    assert client.data() == [1, 2, 3, 4]


async def test_feed_gap_heals_without_another_publication(hub: Hub, store: Store) -> None:
    """The follower saw a jump: what was lost is found, though nothing more comes."""
    client = await Client(hub).subscribed("kept:a")
    store.publish("kept:a", 1)
    for partition in range(8):
        hub.feed_gap(partition)
    await client.until(lambda: client.data() == [1])


class LateAnswers(Store):
    """The server has read the history; its answer is under way until the gate is open."""

    async def history(self, channel: str, **how: Any) -> History:
        """Read at once, and answer late."""
        history = await MemoryStore.history(self, channel, **how)
        await self.gate.wait()
        self.reads += 1
        return history


async def test_gap_that_is_told_while_a_history_is_read() -> None:
    """The answer may lack what was lost meanwhile: the history is read once more."""
    store = LateAnswers()
    hub = Hub(SETTINGS, store, refuse)
    client = await Client(hub).subscribed("kept:a")
    store.gate.clear()
    hub.feed_gap(partition_of("kept:a", 8))
    await settled()
    store.publish("kept:a", 1)
    hub.feed_gap(partition_of("kept:a", 8))
    store.gate.set()
    await client.until(lambda: client.data() == [1])
    assert store.reads == 3


async def test_gap_that_is_told_while_a_position_is_read() -> None:
    """As when an edge starts: the position that a client is told is not older than the feed's."""
    store = LateAnswers()
    hub = Hub(SETTINGS, store, refuse)
    store.gate.clear()
    client = Client(hub)
    client.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "kept:a"}})
    await settled()
    store.publish("kept:a", 1)
    hub.feed_gap(partition_of("kept:a", 8))
    store.gate.set()
    await client.until(lambda: len(client.replies()) == 2)
    assert client.replies()[1]["subscribe"]["offset"] == 1


async def test_gaps_that_are_told_all_the_time_are_explained(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that each come too early say nothing of the history: nobody is told of a loss."""
    client = await Client(hub).subscribed("kept:a")
    read = store.history
    doubts = 10

    async def disturbed(channel: str, **how: Any) -> History:
        nonlocal doubts
        doubts -= 1
        if doubts > 0:
            hub.feed_gap(partition_of("kept:a", 8))
        return await read(channel, **how)

    monkeypatch.setattr(store, "history", disturbed)
    hub.feed_gap(partition_of("kept:a", 8))
    hub.deliver([store.publish("kept:a", 1)])
    await client.until(lambda: client.data() == [1])
    await settled()
    assert doubts <= 0
    assert client.pushes("unsubscribe") == []


async def test_healing_goes_on_when_the_store_comes_back(hub: Hub, store: Store) -> None:
    """A store that is away is asked again."""
    client = await Client(hub).subscribed("kept:a")
    store.publish("kept:a", 1)
    store.failures = 2
    hub.deliver([store.publish("kept:a", 2)])
    await client.until(lambda: client.data() == [1, 2])


async def test_long_gap_heals_in_parts(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history is read in bounded parts, up to the top."""
    monkeypatch.setattr("serve.hub.healer._LIMIT", 3)
    client = await Client(hub).subscribed("kept:a")
    store.publish("kept:a", *range(1, 11))
    hub.deliver([store.publish("kept:a", 11)])
    await client.until(lambda: len(client.data()) == 11)
    assert client.data() == list(range(1, 12))


async def test_lost_publications_end_positioned_subscriptions(hub: Hub, store: Store) -> None:
    """2500 for client-side ones, 3010 for server-side ones; others go on with what there is."""
    positioned = await Client(hub).subscribed("loose:a", positioned=True)
    unpositioned = await Client(hub).subscribed("loose:a")
    server_side = Client(hub)
    server_side.say({"id": 1, "connect": {"subs": {"loose:a": {"positioned": True}}}})
    await server_side.until(lambda: len(server_side.replies()) == 1)
    store.publish("loose:a", 1, 2, 3, size=1)
    hub.deliver([store.publish("loose:a", 4, size=1)])
    await unpositioned.until(lambda: unpositioned.data() == [4])
    assert positioned.pushes("unsubscribe") == [{"code": 2500, "reason": "insufficient state"}]
    assert positioned.data() == []
    assert positioned.closed is None
    assert server_side.closed == Close(3010, "insufficient state")
    assert hub.numbers()["num_subs"] == 1


async def test_new_epoch_ends_positioned_subscriptions(hub: Hub, store: Store) -> None:
    """The data was lost and begins anew: positions of before mean nothing."""
    client = await Client(hub).subscribed("kept:a")
    hub.deliver([store.publish("kept:a", 1)])
    del store._channels["kept:a"]
    hub.deliver([store.publish("kept:a", "new")])
    await client.until(lambda: client.pushes("unsubscribe") != [])
    assert client.pushes("unsubscribe")[0]["code"] == 2500
    client.say({"id": 9, "subscribe": {"channel": "kept:a", "recover": True, "offset": 1}})
    await client.until(lambda: client.replies()[-1]["id"] == 9)
    assert client.replies()[-1]["subscribe"]["recovered"]
    hub.deliver([store.publish("kept:a", "next")])
    assert client.data() == [1, "next"]


async def test_history_behind_the_feed_does_not_stop_a_channel(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap that reads never explain is accepted, and positioned clients are told."""
    monkeypatch.setattr("serve.hub.healer._BACKOFF", Backoff(first_s=0, max_s=0))
    client = await Client(hub).subscribed("loose:a")
    positioned = await Client(hub).subscribed("loose:a", positioned=True)
    epoch = store._channel("loose:a").epoch
    partition = partition_of("loose:a", 8)
    group = FeedGroup("loose:a", 7, epoch, 1)
    hub.deliver([FeedRecord(partition, "1-0", 1, 0.0, [group], [b'{"data":7}'], [])])
    await client.until(lambda: client.data() == [7])
    assert positioned.pushes("unsubscribe")[0]["code"] == 2500


class Story:
    """A channel with clients that come at any time, and a feed that does anything."""

    def __init__(self) -> None:
        self.store = Store()
        self.hub = Hub(SETTINGS, self.store, refuse)
        self.late: list[FeedRecord] = []
        self.clients: list[tuple[Client, int]] = []
        self.top = 0

    def publish(self, count: int, fate: str) -> None:
        """Publish, and let the feed lose, delay or repeat it."""
        record = self.store.publish("kept:a", *range(self.top + 1, self.top + count + 1))
        self.top += count
        if fate == "late":
            self.late.append(record)
        elif fate != "lost":
            self.hub.deliver([*self.late, record] * (2 if fate == "twice" else 1))
            self.late.clear()

    def come(self, begin: int) -> None:
        """Let a client come that has everything up to an offset."""
        client = Client(self.hub)
        epoch = self.store._channel("kept:a").epoch
        wish = {"recover": True, "offset": begin, "epoch": epoch}
        client.say(
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": "kept:a", **wish}},
        )
        self.clients.append((client, begin))

    async def end(self) -> None:
        """Let the feed tell that it lost something, and look at what the clients have."""
        await settled()
        for partition in range(8):
            self.hub.feed_gap(partition)
        for _ in range(5):
            await settled()
        for client, begin in self.clients:
            result = client.replies()[1]["subscribe"]
            found = [item["data"] for item in result.get("publications", [])]
            assert found + client.data() == list(range(begin + 1, self.top + 1))


@hypothesis_settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from(["seen", "lost", "twice", "late"]),
            st.integers(0, 25),
            st.sampled_from([None, 0, 1, 4]),
        ),
        max_size=12,
    )
)
def test_everybody_gets_everything_once(steps: Sequence[tuple[int, str, int, int | None]]) -> None:
    """Records lost, repeated and delayed, clients that come and recover: no gap and no repeat."""

    async def scenario() -> None:
        story = Story()
        story.come(0)
        for count, fate, turns, behind in steps:
            story.publish(count, fate)
            if behind is not None:
                story.come(max(0, story.top - behind))
            for _ in range(turns):
                await asyncio.sleep(0)
        await story.end()

    asyncio.run(scenario())


async def test_quiet_channel_is_checked_and_heals(store: Store) -> None:
    """What never came by the feed is found, without another publication."""
    limits = ClientSettings(insecure=True, position_check_s=0.01)
    hub = Hub(SETTINGS.model_copy(update={"client": limits}), store, refuse)
    await hub.start()
    client = await Client(hub).subscribed("kept:a")
    store.publish("kept:a", 1)
    await client.until(lambda: client.data() == [1])
    client.connection.lost()
    await hub.close()


# --- joining


async def test_crowd_costs_one_read(hub: Hub, store: Store) -> None:
    """The position of a channel is read once; who is at its top needs nothing more."""
    await Client(hub).subscribed("kept:a")
    hub.deliver([store.publish("kept:a", 1)])
    epoch = store._channel("kept:a").epoch
    for _ in range(5):
        client = await Client(hub).subscribed("kept:a", recover=True, offset=1, epoch=epoch)
        assert client.replies()[1]["subscribe"]["recovered"]
    assert store.reads == 1


async def test_recovery_is_limited(store: Store) -> None:
    """Who missed more than the setting allows is told so, and gets none of it."""
    limits = ClientSettings(insecure=True, recovery_max=5)
    hub = Hub(SETTINGS.model_copy(update={"client": limits}), store, refuse)
    store.publish("kept:a", *range(6))
    for since, count in ((1, 5), (0, 0)):
        wish = {"recover": True, "offset": since, "epoch": store._channel("kept:a").epoch}
        client = await Client(hub).subscribed("kept:a", **wish)
        result = client.replies()[1]["subscribe"]
        assert result.get("recovered", False) is (count > 0)
        assert len(result.get("publications", [])) == count
        assert result["was_recovering"]


async def test_subscription_fails_while_the_store_is_away(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Error 100, temporary: the client tries again, and nothing of it is left here."""
    monkeypatch.setattr("serve.hub.healer._WAIT_S", 0.01)
    store.gate.clear()
    client = await Client(hub).subscribed("kept:a")
    error = client.replies()[1]["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    assert hub.numbers()["num_channels"] == 0
    store.gate.set()
    await settled()
    client.say({"id": 9, "subscribe": {"channel": "kept:a"}})
    await client.until(lambda: "subscribe" in client.replies()[-1])


async def test_reply_comes_before_what_it_begins(hub: Hub, store: Store) -> None:
    """Though something is published in every turn of the loop, the reply is the first."""
    await Client(hub).subscribed("kept:a")
    client = Client(hub)
    client.say({"id": 1, "connect": {}})
    await client.until(lambda: client.replies() != [])
    client.say({"id": 2, "subscribe": {"channel": "kept:a", "recover": True}})
    for number in range(1, 50):
        hub.deliver([store.publish("kept:a", number)])
        await asyncio.sleep(0)
    reply, *pushes = client.heard()[1:]
    found = [item["data"] for item in reply["subscribe"].get("publications", [])]
    assert found + [push["push"]["pub"]["data"] for push in pushes] == list(range(1, 50))


@pytest.mark.parametrize(
    "wishes", [{"channel": "latest:a"}, {"channel": "cache:a", "recover": True}]
)
async def test_cache_mode_gives_the_latest(hub: Hub, store: Store, wishes: dict[str, Any]) -> None:
    """To those who ask without a position, and, where it is set, to all; then all that follow."""
    channel = wishes["channel"]
    hub.deliver([store.publish(channel, 1, 2)])
    client = Client(hub)
    client.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": wishes})
    await client.until(lambda: len(client.replies()) == 2)
    reply = client.replies()[1]["subscribe"]
    assert (reply["recovered"], reply["was_recovering"]) == (True, True)
    assert reply["publications"] == [{"offset": 2, "data": 2}]
    hub.deliver([store.publish(channel, 3)])
    assert client.pushes() == [{"offset": 3, "data": 3}]


async def test_cache_mode_without_a_latest(hub: Hub) -> None:
    """An empty channel has nothing to give: not recovered, and the client goes on from there."""
    client = await Client(hub).subscribed("latest:empty")
    reply = client.replies()[1]["subscribe"]
    assert ("recovered" in reply, reply["was_recovering"]) == (False, True)


@pytest.mark.parametrize("wishes", [{}, {"tf": {"key": "is", "cmp": "eq", "val": "wanted"}}])
async def test_cache_mode_repeats_nothing_while_the_feed_is_behind(
    store: Store, wishes: dict[str, Any]
) -> None:
    """A client that has the latest publication already, from another edge, recovers without it."""
    filtered = CACHE.model_copy(update={"allow_tags_filter": True})
    hub = Hub(SETTINGS.model_copy(update={"channels": filtered}), store, refuse)
    await Client(hub).subscribed("a")
    hub.deliver([store.publish("a", 1)])
    late = store.publish("a", 2)
    epoch = store._channel("a").epoch
    client = await Client(hub).subscribed("a", recover=True, offset=2, epoch=epoch, **wishes)
    result = client.replies()[1]["subscribe"]
    assert (result["recovered"], result["offset"]) == (True, 2)
    assert "publications" not in result
    hub.deliver([late, store.publish("a", 3, tags={"is": "wanted"})])
    assert client.data() == [3]


async def test_epoch_that_changes_while_a_client_joins(hub: Hub, store: Store) -> None:
    """Its history and the channel's position do not belong together: 3010, and all is mended."""
    first = await Client(hub).subscribed("kept:a")
    hub.deliver([store.publish("kept:a", 1), store.publish("kept:a", 2)])
    store.gate.clear()
    client = Client(hub)
    wish = {"recover": True, "offset": 1}
    client.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "kept:a", **wish}})
    await settled()
    del store._channels["kept:a"]
    store.publish("kept:a", "new", "newer")
    store.gate.set()
    await client.until(lambda: client.closed is not None)
    assert client.closed == Close(3010, "insufficient state")
    await first.until(lambda: first.pushes("unsubscribe") != [])


async def test_epoch_that_changes_while_one_joins_who_needs_no_position(
    hub: Hub, store: Store
) -> None:
    """It begins anew with the channel: the lower offsets are no repeats."""
    await Client(hub).subscribed("loose:a")
    hub.deliver([store.publish("loose:a", 1, 2, 3)])
    store.gate.clear()
    client = Client(hub)
    client.say({"id": 1, "connect": {"subs": {"loose:a": {}, "loose:b": {}}}})
    await settled()
    del store._channels["loose:a"]
    hub.deliver([store.publish("loose:a", "new")])
    store.gate.set()
    await client.until(lambda: client.data() == ["new"])
    hub.deliver([store.publish("loose:a", "newer")])
    assert client.data() == ["new", "newer"]


async def test_history_behind_the_position_is_not_trusted(hub: Hub, store: Store) -> None:
    """A replica that lags must not make a client miss what is between: error 100, try again."""
    await Client(hub).subscribed("kept:a")
    hub.deliver([store.publish("kept:a", 1, 2)])
    channel = store._channel("kept:a")
    channel.offset, channel.bodies = 1, channel.bodies[:1]
    client = await Client(hub).subscribed("kept:a", recover=True)
    assert client.replies()[1]["error"]["code"] == 100


async def test_client_that_goes_while_it_subscribes(hub: Hub, store: Store) -> None:
    """Nothing of it is left, whatever was under way."""
    store.gate.clear()
    client = Client(hub)
    client.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "kept:a"}})
    await settled()
    client.connection.lost()
    store.gate.set()
    await settled()
    assert hub.numbers()["num_channels"] == hub.numbers()["num_clients"] == 0
    assert not hub._connections


# --- presence


async def test_others_see_a_client_come_and_go(hub: Hub, store: Store) -> None:
    """Presence holds from the reply on; joins and leaves go through the feed."""
    first = await Client(hub).subscribed("seen:a")
    second = await Client(hub).subscribed("seen:a")
    ids = [client.connection.session.client for client in (first, second)]
    assert set(await store.presence("seen:a")) == set(ids)
    first.say({"id": 8, "presence": {"channel": "seen:a"}})
    first.say({"id": 9, "presence_stats": {"channel": "seen:a"}})
    await first.until(lambda: first.replies()[-1]["id"] == 9)
    assert set(first.replies()[-2]["presence"]["presence"]) == set(ids)
    assert first.replies()[-1]["presence_stats"] == {"num_clients": 2, "num_users": 1}
    second.connection.lost()
    await settled()
    assert set(await store.presence("seen:a")) == {ids[0]}
    hub.deliver(store._feeds[partition_of("seen:a", 8)])
    assert [join["info"]["client"] for join in first.pushes("join")] == ids
    assert [leave["info"]["client"] for leave in first.pushes("leave")] == ids[1:]


async def test_joins_keep_their_place_among_publications(hub: Hub, store: Store) -> None:
    """A join of a record does not overtake what was published before it."""
    client = await Client(hub).subscribed("seen:a")
    join = FeedRecord(0, "1-0", 0, 0.0, [], [], [], [("seen:a", "join", b'{"user":"x"}')])
    hub.deliver([store.publish("seen:a", 1), join, store.publish("seen:a", 2)])
    kinds = [next(key for key in m["push"] if key != "channel") for m in client.heard()[2:]]
    assert kinds == ["pub", "join", "pub"]


async def test_unsubscribe_is_answered_when_nobody_sees_it(hub: Hub, store: Store) -> None:
    """By the time of the reply the client is out of the presence."""
    client = await Client(hub).subscribed("seen:a")
    client.say({"id": 9, "unsubscribe": {"channel": "seen:a"}})
    await client.until(lambda: client.replies()[-1]["id"] == 9)
    assert await store.presence("seen:a") == {}


async def test_presence_is_renewed() -> None:
    """Entries of clients that stay do not expire; what fails once is renewed in the next round."""
    limits = SETTINGS.client.model_copy(update={"presence_update_s": 0.01, "presence_ttl_s": 10.0})
    now = [1000.0]
    renewed = asyncio.Event()

    class Away(MemoryStore):
        failures = 1

        async def enter(self, channel: str, client: str, info: bytes, **how: Any) -> None:
            if now[0] > 1000 and self.failures:
                self.failures -= 1
                raise UnavailableError("away")
            await super().enter(channel, client, info, **how)
            if now[0] > 1000:
                renewed.set()

    store = Away(clock=lambda: now[0])
    hub = Hub(SETTINGS.model_copy(update={"client": limits}), store, refuse)
    await hub.start()
    await Client(hub).subscribed("seen:a")
    now[0] = 1009.0
    async with asyncio.timeout(5):
        await renewed.wait()
    now[0] = 1018.0
    assert len(await store.presence("seen:a")) == 1
    await hub.close()


async def test_leave_during_a_renewal_is_final() -> None:
    """A renewal that was under way when the client left does not bring it back."""
    gate = asyncio.Event()

    class Slow(MemoryStore):
        calls = 0

        async def enter(self, channel: str, client: str, info: bytes, **how: Any) -> None:
            self.calls += 1
            if self.calls > 1:
                await gate.wait()
            await super().enter(channel, client, info, **how)

    store = Slow()
    hub = Hub(SETTINGS, store, refuse)
    client = await Client(hub).subscribed("seen:a")
    renewal = asyncio.create_task(hub._presence.renew())
    await settled()
    client.connection.lost()
    await settled()
    gate.set()
    await renewal
    await settled()
    assert await store.presence("seen:a") == {}


def told(store: MemoryStore, client: Client) -> list[str]:
    """Return what the feed says of a client, in order."""
    records = [record for feed in store._feeds.values() for record in feed]
    mine = client.connection.session.client.encode()
    return [kind for record in records for _, kind, info in record.joins if mine in info]


@pytest.mark.parametrize("late", [True, False])
async def test_client_that_goes_while_it_enters_is_told_once(late: bool) -> None:
    """Whether the server had taken it in before it left, or did so only afterwards."""
    gate = asyncio.Event()

    class Slow(Store):
        async def enter(self, channel: str, client: str, info: bytes, **how: Any) -> None:
            if late:
                await gate.wait()
            await super().enter(channel, client, info, **how)
            await gate.wait()

    store = Slow()
    hub = Hub(SETTINGS, store, refuse)
    client = Client(hub)
    client.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "seen:a"}})
    await settled()
    client.connection.lost()
    await settled()
    gate.set()
    await settled()
    assert told(store, client) == ["join", "leave"]
    assert await store.presence("seen:a") == {}


async def test_client_that_did_not_enter_does_not_leave() -> None:
    """The server was away when it would have come."""

    class Away(Store):
        async def enter(self, channel: str, client: str, info: bytes, **how: Any) -> None:
            raise UnavailableError("away")

    store = Away()
    client = await Client(Hub(SETTINGS, store, refuse)).subscribed("seen:a")
    assert client.replies()[1]["error"]["code"] == 100
    await settled()
    assert told(store, client) == []


async def test_client_that_is_refused_is_not_told(store: Store) -> None:
    """Who wants to recover or nothing, and cannot, was never there."""
    seen = SETTINGS.namespaces["kept"].model_copy(update={"presence": True, "join_leave": True})
    hub = Hub(SETTINGS.model_copy(update={"channels": seen}), store, refuse)
    wish = {"recover": True, "offset": 5, "epoch": "other", "flag": 2}
    client = await Client(hub).subscribed("a", **wish)
    assert client.replies()[1]["error"]["code"] == 112
    await settled()
    assert told(store, client) == []


async def test_client_that_goes_while_its_position_is_read_is_not_told(store: Store) -> None:
    """It was not there yet."""
    seen = SETTINGS.namespaces["kept"].model_copy(update={"presence": True, "join_leave": True})
    hub = Hub(SETTINGS.model_copy(update={"channels": seen}), store, refuse)
    store.gate.clear()
    client = Client(hub)
    client.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}})
    await settled()
    client.connection.lost()
    store.gate.set()
    await settled()
    assert store.reads == 1
    assert told(store, client) == []


# --- publish


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Ack(0, "t", 1, "e"), None),
        (Ack(0, "t", error="a transform failed"), 107),
        (MessageError("too large"), 107),
        (QueueFullError("full"), 111),
        (UnavailableError("away"), 100),
    ],
)
async def test_publish_outcomes(outcome: Ack | Exception, code: int | None) -> None:
    """Committed, refused, full, away: each has its answer."""
    asked = []

    async def publish(channel: str, data: bytes, meta: Meta) -> Ack:
        asked.append((channel, data, meta.info))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    client = await Client(Hub(SETTINGS, Store(), publish)).subscribed()
    client.say({"id": 2, "publish": {"channel": "plain:a", "data": [1]}})
    await client.until(lambda: len(client.replies()) == 2)
    reply = client.replies()[1]
    assert reply.get("error", {}).get("code") == code
    assert asked == [("plain:a", b"[1]", {"user": "", "client": client.connection.session.client})]


async def test_publishes_are_handed_on_in_order(store: Store) -> None:
    """Those of one client are given to the queue in the order of its commands."""
    asked: list[bytes] = []
    gate = asyncio.Event()

    async def publish(channel: str, data: bytes, meta: Meta) -> Ack:
        asked.append(data)
        await gate.wait()
        return Ack(0, "")

    client = await Client(Hub(SETTINGS, store, publish)).subscribed()
    numbers = range(2, 102)
    client.say(*({"id": n, "publish": {"channel": "plain:a", "data": n}} for n in numbers))
    await settled()
    assert client.paused
    gate.set()
    await client.until(lambda: len(client.replies()) == 101)
    assert asked == [b"%d" % number for number in numbers]
    assert not client.paused


@pytest.mark.parametrize("where", ["receive", "direct", "tick", "answer", "failed"])
async def test_unforeseen_error_closes_only_its_client(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of ours is logged, nothing is raised, and one client comes back (3004)."""

    async def publish(channel: str, data: bytes, meta: Meta) -> Ack:
        if where == "failed":
            raise QueueFullError("full")
        return Ack(0, "t")

    limits = SETTINGS.client.model_copy(update={"ping_interval_s": 0.02})
    hub = Hub(SETTINGS.model_copy(update={"client": limits}), Store(), publish)
    client = await Client(hub).subscribed("plain:a")
    monkeypatch.setattr(client.connection.session, where, broken)
    hub.direct(RefreshClients(client=client.connection.session.client))
    client.say({"id": 9, "publish": {"channel": "plain:a", "data": 1}})
    await client.until(lambda: client.closed is not None)
    assert client.closed == Close(3004, "internal server error")
    assert caplog.messages == ["session failed"]
    assert hub.numbers()["num_subs"] == hub.numbers()["num_clients"] == 0


async def test_unforeseen_error_closes_a_one_way_client(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for the one request that it makes."""
    client = Client(hub, ONE_WAY)
    monkeypatch.setattr(client.connection.session, "connect", broken)
    client.connection.connect(Connect())
    assert client.closed == Close(3004, "internal server error")


async def test_client_that_cannot_be_closed_as_asked_is_closed(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    """What its transport cannot send is logged; the client is told 3004, and forgotten."""

    class Choosy(Client):
        def close(self, close: Close) -> None:
            if close.code != 3004:
                raise ValueError(close)
            super().close(close)

    client = await Choosy(hub).subscribed("plain:a")
    client.connection.shut(Close(4000, "odd"))
    assert client.closed == Close(3004, "internal server error")
    assert caplog.messages == ["client not closed as asked"]
    assert hub.numbers()["num_subs"] == len(hub._connections) == 0


def broken(*_: object) -> None:
    """Fail as nobody has foreseen."""
    raise RecursionError


# --- life


async def test_close_sends_everybody_away(hub: Hub, store: Store) -> None:
    """3001 for all, none is taken any more, and nobody is left in the presence."""
    await hub.start()
    clients = [await Client(hub).subscribed("seen:a") for _ in range(3)]
    assert not hub.full
    await hub.close()
    assert [client.closed for client in clients] == [Close(3001, "shutdown")] * 3
    assert hub.full
    assert await store.presence("seen:a") == {}
    assert hub.numbers()["num_subs"] == 0


async def test_edge_is_full_at_its_limit(store: Store) -> None:
    """One more connection than the limit is to be refused."""
    limits = SETTINGS.client.model_copy(update={"connections_max": 1})
    hub = Hub(SETTINGS.model_copy(update={"client": limits}), store, refuse)
    assert not hub.full
    client = Client(hub)
    assert hub.full
    client.connection.lost()
    assert not hub.full


async def test_time_passes_for_connections(store: Store) -> None:
    """The loop wakes a session when something is due: pings, and the end of who is silent."""
    limits = SETTINGS.client.model_copy(update={"ping_interval_s": 0.02, "pong_timeout_s": 0.01})
    hub = Hub(SETTINGS.model_copy(update={"client": limits}), store, refuse)
    client = await Client(hub).subscribed()
    await client.until(lambda: client.closed is not None)
    assert client.heard()[1] == {}
    assert client.closed == Close(3012, "no pong")


async def test_subscription_that_expires_is_forgotten(store: Store) -> None:
    """The client is told (2501), gets no more, and is seen no more."""
    limits = ClientSettings(allow_anonymous=True, expired_sub_close_delay_s=0.01)
    auth = AuthSettings(token_secret=SecretStr("s" * 32))
    settings = SETTINGS.model_copy(update={"client": limits, "auth": auth})
    hub = Hub(settings, store, refuse, wall=lambda: 1000.0)
    claims = {"channel": "seen:a", "expire_at": 1000.01}
    client = Client(hub)
    client.say({"id": 1, "connect": {}})
    await client.until(lambda: len(client.replies()) == 1)
    made = jwt.encode(claims, "s" * 32, algorithm="HS256")
    client.say({"id": 2, "subscribe": {"channel": "seen:a", "token": made}})
    await client.until(lambda: client.pushes("unsubscribe") != [])
    assert client.pushes("unsubscribe") == [{"code": 2501, "reason": "subscription expired"}]
    assert hub.numbers()["num_subs"] == 0
    await hub.close()
    assert await store.presence_stats("seen:a") == (0, 0)


async def test_one_way_client_gets_bare_pushes(hub: Hub, store: Store) -> None:
    """It connects by a call, and is served by its own codec."""
    client = Client(hub, ONE_WAY)
    client.connection.connect(Connect(subs={"kept:a": Subscribe()}))
    await client.until(lambda: client.heard() != [])
    hub.deliver([store.publish("kept:a", 1)])
    connect, publication = client.heard()
    assert "kept:a" in connect["connect"]["subs"]
    assert publication == {"channel": "kept:a", "pub": {"offset": 1, "data": 1}}
