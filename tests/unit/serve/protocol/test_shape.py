"""Publications as deltas and filtered, for one subscription and for all of a channel."""

import asyncio
import json
from typing import Any

import pytest

from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import FeedGroup, FeedRecord
from serve.hub.hub import Hub
from serve.protocol.json_codec import decode_connect
from serve.protocol.shape import DELTAS, Filtered
from serve.protocol.tag_filter import TagFilter
from tests.fossil_apply import apply
from tests.hub_client import ONE_WAY, WIRE, Client, Store, refuse

KEPT = ChannelSettings(
    history_size=100, history_ttl_s=60, force_recovery=True, allowed_delta_types=("fossil",)
)
SETTINGS = Settings(
    client=ClientSettings(insecure=True),
    namespaces={
        "d": KEPT,
        "plain": ChannelSettings(allowed_delta_types=("fossil",), allow_tags_filter=True),
        "t": KEPT.model_copy(update={"allow_tags_filter": True}),
        "cache": KEPT.model_copy(
            update={"force_recovery_mode": "cache", "allow_tags_filter": True}
        ),
        "none": KEPT.model_copy(update={"allowed_delta_types": ()}),
    },
)
ODD = {"key": "odd", "cmp": "eq", "val": "1"}


def long(number: int) -> dict[str, Any]:
    """Return data of which little changes."""
    return {"text": "much that stays as it is, \u20ac and all; " * 3, "number": number}


@pytest.fixture
async def store() -> Store:
    """A store in memory."""
    return Store()


@pytest.fixture
async def hub(store: Store) -> Hub:
    """A hub without a feed: tests deliver by hand."""
    return Hub(SETTINGS, store, refuse)


class Reader:
    """Reads publications as a client with deltas does."""

    def __init__(self) -> None:
        self.base = b""
        self.deltas = 0

    def read(self, publication: dict[str, Any]) -> Any:
        """Return the data."""
        text = publication["data"].encode()
        if publication.get("delta"):
            self.deltas += 1
            self.base = apply(self.base, text)
        else:
            self.base = text
        return json.loads(self.base)


async def test_live_deltas(hub: Hub, store: Store) -> None:
    """The first is whole, the others deltas, made once for all; other clients get all whole."""
    delta = [await Client(hub).subscribed("d:a", delta="fossil") for _ in "12"]
    other = await Client(hub).subscribed("d:a")
    assert [client.replies()[1]["subscribe"].get("delta") for client in (*delta, other)] == [
        True,
        True,
        None,
    ]
    for client in delta:
        client.blocks.clear()
    hub.deliver([store.publish("d:a", long(1), long(2))])
    hub.deliver([store.publish("d:a", long(3))])
    assert [block is same for block, same in zip(delta[0].blocks, delta[1].blocks, strict=True)]
    reader = Reader()
    assert [reader.read(p) for p in delta[0].pushes()] == [long(1), long(2), long(3)]
    assert reader.deltas == 2
    assert [p["offset"] for p in delta[0].pushes()] == [1, 2, 3]
    assert other.data() == [long(1), long(2), long(3)]


async def test_who_comes_later_begins_with_a_whole(hub: Hub, store: Store) -> None:
    """Each can read all that it gets, whoever comes and goes."""
    clients = []
    for number in range(1, 8):
        client = await Client(hub).subscribed("d:a", delta="fossil")
        clients.append(client)
        if number == 5:
            clients[0].say({"id": 9, "unsubscribe": {"channel": "d:a"}})
            await clients[0].until(lambda: len(clients[0].replies()) == 3)
        hub.deliver([store.publish("d:a", long(number))])
    for begun, client in enumerate(clients, 1):
        reader = Reader()
        last = 4 if begun == 1 else 7
        got = [reader.read(publication) for publication in client.pushes()]
        assert got == [long(number) for number in range(begun, last + 1)]
        assert reader.deltas == len(got) - 1


async def test_all_gone_leaves_no_base(hub: Hub, store: Store) -> None:
    """A subscriber that is the only one again gets a whole first."""
    other = await Client(hub).subscribed("d:a")
    first = await Client(hub).subscribed("d:a", delta="fossil")
    hub.deliver([store.publish("d:a", long(1))])
    first.say({"id": 9, "unsubscribe": {"channel": "d:a"}})
    await first.until(lambda: len(first.replies()) == 3)
    hub.deliver([store.publish("d:a", long(2))])
    again = await Client(hub).subscribed("d:a", delta="fossil")
    hub.deliver([store.publish("d:a", long(3))])
    (publication,) = again.pushes()
    assert "delta" not in publication
    assert Reader().read(publication) == long(3)
    assert len(other.data()) == 3


async def test_recovered_deltas(hub: Hub, store: Store) -> None:
    """What was missed: the first whole, then deltas; the next live one is whole again."""
    hub.deliver([store.publish("d:a", *map(long, range(5)))])
    client = await Client(hub).subscribed("d:a", delta="fossil", recover=True, offset=2)
    reply = client.replies()[1]["subscribe"]
    assert (reply["recovered"], reply["delta"]) == (True, True)
    hub.deliver([store.publish("d:a", long(5))])
    reader = Reader()
    got = [reader.read(p) for p in (*reply["publications"], *client.pushes())]
    assert got == [long(number) for number in (2, 3, 4, 5)]
    assert reader.deltas == 2


async def test_held_while_the_reply_is_made(hub: Hub, store: Store) -> None:
    """They come after the reply, readable as well."""
    store.publish("d:a", long(0))
    store.gate.clear()
    client = Client(hub)
    client.say({"id": 1, "connect": {}})
    subscribe = {"channel": "d:a", "delta": "fossil", "recover": True, "offset": 0}
    client.say({"id": 2, "subscribe": subscribe})
    await asyncio.sleep(0)
    hub.deliver([store.publish("d:a", long(1), long(2))])
    store.gate.set()
    await client.until(lambda: len(client.replies()) == 2)
    reader = Reader()
    reply = client.replies()[1]["subscribe"]
    got = [reader.read(p) for p in (*reply["publications"], *client.pushes())]
    assert got == [long(number) for number in range(3)]


@pytest.mark.parametrize("channel", ["plain:a", "none:a"])
async def test_deltas_need_positions_and_leave(hub: Hub, store: Store, channel: str) -> None:
    """Without them, or where the namespace has none, publications come whole, as objects."""
    client = await Client(hub).subscribed(channel, delta="fossil")
    assert "delta" not in client.replies()[1]["subscribe"]
    hub.deliver([store.publish(channel, long(1), long(2))])
    assert client.data() == [long(1), long(2)]


@pytest.mark.parametrize("one_way", [False, True])
async def test_deltas_of_what_the_server_subscribes(
    hub: Hub, store: Store, *, one_way: bool
) -> None:
    """Where the connect request asks for them; unknown ones are passed over, as in Centrifugo."""
    hub.deliver([store.publish("d:a", *map(long, range(3)))])
    client = Client(hub, ONE_WAY if one_way else WIRE)
    delta = {"delta": "fossil", "recover": True, "offset": 1}
    subs = {"d:a": delta, "d:b": {"delta": "x"}, "d:c": {}, "plain:a": {"delta": "fossil"}}
    if one_way:
        client.connection.connect(decode_connect(json.dumps({"subs": subs}).encode()))
    else:
        client.say({"id": 1, "connect": {"subs": subs}})
    await client.until(lambda: len(client.heard()) == 1)
    found = client.heard()[0]["connect"]["subs"]
    assert {channel: result.get("delta") for channel, result in found.items()} == {
        "d:a": True,
        "d:b": None,
        "d:c": None,
        "plain:a": None,
    }
    hub.deliver([store.publish("d:a", long(3)), store.publish("d:a", long(4))])
    pushes = [m if one_way else m["push"] for m in client.heard()[1:]]
    reader = Reader()
    got = [reader.read(p) for p in (*found["d:a"]["publications"], *(p["pub"] for p in pushes))]
    assert got == [long(number) for number in (1, 2, 3, 4)]
    assert reader.deltas == 2


async def test_server_side_subscriptions_have_no_filter(hub: Hub) -> None:
    """A wish for one is passed over, as in Centrifugo: all publications come."""
    client = Client(hub)
    client.say({"id": 1, "connect": {"subs": {"plain:a": {"tf": ODD}}}})
    await client.until(lambda: len(client.replies()) == 1)
    hub.deliver([tagged(0, "0", "1")])
    assert client.data() == [0, 1]


def tagged(first: int, *odds: str) -> FeedRecord:
    """Return a record of publications with a tag."""
    bodies = [b'{"tags":{"odd":"%b"},"data":%d}' % (odd.encode(), n) for n, odd in enumerate(odds)]
    return FeedRecord(0, "1-0", 1, 0.0, [FeedGroup("plain:a", first, "", len(odds))], bodies, [])


async def test_only_wanted_publications_come(hub: Hub) -> None:
    """A filter passes over the others; those without tags are not wanted by `eq`."""
    client = await Client(hub).subscribed("plain:a", tf=ODD)
    all_ = await Client(hub).subscribed("plain:a")
    client.blocks.clear()
    hub.deliver([tagged(0, "0", "1", "0", "1")])
    assert client.data() == [1, 3]
    assert all_.data() == [0, 1, 2, 3]
    client.blocks.clear()
    hub.deliver([tagged(0, "0", "0")])
    assert client.blocks == []


async def test_filter_keeps_offsets_in_recovery(hub: Hub, store: Store) -> None:
    """What is not wanted is left out, and counts for the continuity."""
    hub.deliver([store.publish("t:a", 1, 2, 3)])
    missing = {"key": "odd", "cmp": "nex"}
    client = await Client(hub).subscribed("t:a", tf=ODD, recover=True, offset=1)
    whole = await Client(hub).subscribed("t:a", tf=missing, recover=True, offset=1)
    reply = client.replies()[1]["subscribe"]
    assert (reply["recovered"], reply.get("publications", [])) == (True, [])
    assert [p["offset"] for p in whole.replies()[1]["subscribe"]["publications"]] == [2, 3]
    hub.deliver([store.publish("t:a", 4)])
    assert (client.pushes(), whole.pushes()) == ([], [{"offset": 4, "data": 4}])


@pytest.mark.parametrize(
    ("odds", "limit", "expected"),
    [
        ("011", 300, (True, [3])),
        ("010", 300, (True, [2])),
        ("000", 300, (False, [])),
        ("100", 2, (False, [])),
    ],
)
async def test_cache_mode_gives_the_latest_that_is_wanted(
    store: Store, odds: str, limit: int, expected: tuple[bool, list[int]]
) -> None:
    """Of the newest `recovery_max`. There is none: not recovered. All as in Centrifugo."""
    client_settings = SETTINGS.client.model_copy(update={"recovery_max": limit})
    hub = Hub(SETTINGS.model_copy(update={"client": client_settings}), store, refuse)
    for odd in odds:
        hub.deliver([store.publish("cache:a", 0, tags={"odd": odd})])
    client = await Client(hub).subscribed("cache:a", tf=ODD, recover=True)
    reply = client.replies()[1]["subscribe"]
    got = [publication["offset"] for publication in reply.get("publications", [])]
    assert (reply.get("recovered", False), got) == expected


@pytest.mark.parametrize(
    ("channel", "wishes"),
    [
        ("d:a", {"tf": ODD}),
        ("t:a", {"tf": {"key": "odd", "cmp": "??"}}),
        ("t:a", {"tf": ODD, "delta": "fossil"}),
    ],
)
async def test_refused_filters(hub: Hub, channel: str, wishes: dict[str, Any]) -> None:
    """Not allowed, not valid, or together with deltas: 107, and the connection goes on.

    Centrifugo's SDKs refuse both together; its server sends deltas, and forgets the filter.
    """
    client = await Client(hub).subscribed(channel, **wishes)
    assert client.replies()[1]["error"]["code"] == 107
    assert client.closed is None


def test_publisher_may_want_no_delta() -> None:
    """Such a one comes whole, as text like the others, and the next is a delta from it."""
    bodies = [
        b'%b"data":%b}' % (b, json.dumps(long(n)).encode()) for n, b in enumerate([b"{", b"{ "] * 2)
    ]
    ((_, shaped),) = DELTAS.shaped([(1, bodies)])
    found = [json.loads(body) for body in shaped]
    assert [item.get("delta", False) for item in found] == [False, False, True, False]
    reader = Reader()
    assert [reader.read(item) for item in found] == [long(n) for n in range(4)]


@pytest.mark.parametrize(
    "data",
    [b' {"x": 1} ', b"[" * 995 + b"]" * 995, b"[" * 100_000 + b"]" * 100_000],
    ids=["blanks", "as deep as can be published", "deeper"],
)
def test_any_data_can_be_shaped(data: bytes) -> None:
    """The feed must go on, whatever a producer wrote and however deep it is."""
    bodies = [b'{"tags":{"odd":"1"},"data":%b}' % data, b'{"data":%b}' % data]
    (shaped,) = DELTAS.shaped([(1, bodies)])
    texts = [json.loads(body) for body in shaped[1]]
    assert texts[0]["data"].encode() == data
    (filtered,) = Filtered(TagFilter(key="odd", cmp="ex")).shaped([(1, bodies)])
    assert filtered == (1, (bodies[0],))


def test_deltas_of_publications_with_more_than_data() -> None:
    """Tags and info stay as they are."""
    bodies = [b'{"tags":{"a":"b"},"info":{"user":"u","client":"c"},"data":{"x": 1}}'] * 2
    ((_, (first, second)),) = DELTAS.shaped([(1, bodies)])
    assert json.loads(first) == {
        "info": {"user": "u", "client": "c"},
        "tags": {"a": "b"},
        "data": '{"x": 1}',
    }
    assert json.loads(second)["tags"] == {"a": "b"}
