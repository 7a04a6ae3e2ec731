"""Deltas for clients of the Protobuf codec, beside those of JSON: by the schema of an SDK."""

import asyncio
import io
import json
from typing import Any, Final

import pytest
from centrifuge.protocol import client_pb2  # type: ignore[import-untyped]
from google.protobuf.json_format import ParseDict
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed
from hypothesis import given
from hypothesis import strategies as st

from serve.hub.hub import Hub
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.shape import DELTAS
from serve.protocol.wire import Wire
from tests.fossil_apply import apply
from tests.hub_client import Client, Store, refuse
from tests.unit.serve.protocol.test_shape import SETTINGS, Reader, long

SCHEMA: Final[Any] = client_pb2
WIRE = Wire(PROTOBUF, bytes, stream=False)


def read(blocks: bytes) -> list[Any]:
    """Return the replies that stand behind their lengths."""
    rest = io.BytesIO(blocks)
    return list(iter(lambda: parse_length_prefixed(SCHEMA.Reply, rest), None))


class ProtobufClient(Client):
    """A connection that speaks Protobuf."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, WIRE)

    def say(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame."""
        frame = io.BytesIO()
        for command in commands:
            serialize_length_prefixed(ParseDict(command, SCHEMA.Command()), frame)
        self.connection.receive(frame.getvalue())

    def heard(self) -> list[Any]:
        """Return all messages so far."""
        return read(b"".join(self.blocks))

    def replies(self) -> list[Any]:
        """Return the replies."""
        return [message for message in self.heard() if message.id]

    def pushes(self, kind: str = "pub") -> list[Any]:
        """Return the pushes of a kind."""
        pushes = [message.push for message in self.heard() if message.HasField("push")]
        return [getattr(push, kind) for push in pushes if push.HasField(kind)]


class ByteReader:
    """Reads publications as a client with deltas does, and as one without."""

    def __init__(self) -> None:
        self.base = b""
        self.deltas = 0

    def read(self, publication: Any) -> bytes:
        """Return the data."""
        self.deltas += publication.delta
        self.base = apply(self.base, publication.data) if publication.delta else publication.data
        return self.base


def texts(*numbers: int) -> list[bytes]:
    """Return data as they are stored."""
    return [json.dumps(long(number)).encode() for number in numbers]


@pytest.fixture
async def store() -> Store:
    """A store in memory."""
    return Store()


@pytest.fixture
async def hub(store: Store) -> Hub:
    """A hub without a feed: tests deliver by hand."""
    return Hub(SETTINGS, store, refuse)


async def test_live_deltas_are_bytes(hub: Hub, store: Store) -> None:
    """The first is whole and not quoted, deltas have their flag; JSON beside it stays as it was."""
    binary = await ProtobufClient(hub).subscribed("d:a", delta="fossil")
    plain = await ProtobufClient(hub).subscribed("d:a")
    text = await Client(hub).subscribed("d:a", delta="fossil")
    assert [c.replies()[1].subscribe.delta for c in (binary, plain)] == [True, False]
    hub.deliver([store.publish("d:a", long(1), long(2))])
    hub.deliver([store.publish("d:a", long(3))])
    reader = ByteReader()
    assert [reader.read(p) for p in binary.pushes()] == texts(1, 2, 3)
    assert reader.deltas == 2
    assert [p.offset for p in binary.pushes()] == [1, 2, 3]
    assert [p.data for p in plain.pushes()] == texts(1, 2, 3)
    in_text = Reader()
    assert [in_text.read(p) for p in text.pushes()] == [long(1), long(2), long(3)]
    assert in_text.deltas == 2


async def test_who_comes_later_begins_with_a_whole(hub: Hub, store: Store) -> None:
    """Each can read all that it gets, of whichever codec those before it were."""
    first = await Client(hub).subscribed("d:a", delta="fossil")
    hub.deliver([store.publish("d:a", long(1))])
    second = await ProtobufClient(hub).subscribed("d:a", delta="fossil")
    hub.deliver([store.publish("d:a", long(2))])
    third = await ProtobufClient(hub).subscribed("d:a", delta="fossil")
    first.say({"id": 9, "unsubscribe": {"channel": "d:a"}})
    await first.until(lambda: len(first.replies()) == 3)
    hub.deliver([store.publish("d:a", long(3))])
    readers = ByteReader(), ByteReader()
    assert [readers[0].read(p) for p in second.pushes()] == texts(2, 3)
    assert [readers[1].read(p) for p in third.pushes()] == texts(3)
    assert [reader.deltas for reader in readers] == [1, 0]


async def test_recovered_and_held_deltas_are_bytes(hub: Hub, store: Store) -> None:
    """Those within the reply, those held until it is made, and the next live one."""
    hub.deliver([store.publish("d:a", long(1), long(2), long(3))])
    store.gate.clear()
    client = ProtobufClient(hub)
    client.say({"id": 1, "connect": {}})
    subscribe = {"channel": "d:a", "delta": "fossil", "recover": True, "offset": 1}
    client.say({"id": 2, "subscribe": subscribe})
    await asyncio.sleep(0)
    hub.deliver([store.publish("d:a", long(4), long(5))])
    store.gate.set()
    await client.until(lambda: len(client.replies()) == 2)
    hub.deliver([store.publish("d:a", long(6))])
    reply = client.replies()[1].subscribe
    reader = ByteReader()
    assert (reply.recovered, reply.delta) == (True, True)
    assert [reader.read(p) for p in (*reply.publications, *client.pushes())] == texts(*range(2, 7))
    assert reader.deltas > 0


ENDS: Final = ['"a":1,"delta":true}', {"delta": True}, {"x": 1, "delta": True}, True, '"']


@given(
    st.lists(
        st.sampled_from(ENDS) | st.text(max_size=20) | st.text(min_size=40, max_size=60),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_no_data_look_like_a_delta(data: list[Any], tagged: bool) -> None:
    """Whatever the data end with, they come as they are, as deltas and without, tags beside."""
    before = b'"tags":{"a":"b"},' if tagged else b""
    wanted = [json.dumps(item, ensure_ascii=False).encode() for item in data]
    bodies = [b'{%b"data":%b}' % (before, item) for item in wanted]
    for ours in (bodies, DELTAS.shaped([(1, bodies)])[0][1]):
        reader = ByteReader()
        pushed = read(b"".join(PROTOBUF.publications("c", 1, ours)))
        assert [reader.read(reply.push.pub) for reply in pushed] == wanted
        assert all(reply.push.pub.tags == ({"a": "b"} if tagged else {}) for reply in pushed)


async def test_tag_filter(hub: Hub, store: Store) -> None:
    """It is a message of its own, and does what it does in JSON; one that is not valid: 107."""
    wanted = await ProtobufClient(hub).subscribed("t:a", tf={"key": "odd", "cmp": "nex"})
    unwanted = await ProtobufClient(hub).subscribed(
        "t:a", tf={"op": "and", "nodes": [{"key": "odd", "cmp": "in", "vals": ["1", "2"]}]}
    )
    refused = await ProtobufClient(hub).subscribed("t:a", tf={"key": "odd", "cmp": "??"})
    hub.deliver([store.publish("t:a", 1)])
    assert [p.data for p in wanted.pushes()] == [b"1"]
    assert unwanted.pushes() == []
    assert refused.replies()[1].error.code == 107
