"""The Protobuf codec, against the schema of an SDK, and against JSON."""

import contextlib
import io
import json
from typing import Any, get_args

import pytest
from google.protobuf.proto import parse_length_prefixed
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from serve.protocol.json_codec import JSON, publication
from serve.protocol.messages import (
    Command,
    ConnectResult,
    DisconnectCode,
    Disconnected,
    DisconnectError,
    ErrorCode,
    Failure,
    HistoryResult,
    Join,
    Leave,
    OwnError,
    PresenceResult,
    PresenceStatsResult,
    Publish,
    PublishResult,
    Push,
    Refreshed,
    RefreshResult,
    Result,
    RpcResult,
    Send,
    SubRefreshResult,
    Subscribe,
    Subscribed,
    SubscribeResult,
    Unsubscribed,
    UnsubscribeResult,
)
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.shape import DELTAS
from serve.protocol.wire import BLOCK_BYTES, Wire
from tests.fossil_apply import apply as apply_delta
from tests.protobuf_speech import SCHEMA, from_protobuf, to_protobuf

SUBSCRIBE = {
    "channel": "c",
    "token": "t",
    "recover": True,
    "epoch": "e",
    "offset": 2**40,
    "data": {"a": "é"},
    "positioned": True,
    "recoverable": True,
    "join_leave": True,
    "delta": "fossil",
    "tf": {"op": "and", "nodes": [{"key": "k", "cmp": "in", "vals": ["", "x"]}, {"op": "not"}]},
    "flag": 3,
}
WHOLE_COMMANDS: list[dict[str, Any]] = [
    {"id": 2**32 - 1, "connect": {}},
    {
        "id": 1,
        "connect": {
            "token": "t",
            "data": [1],
            "subs": {"c": SUBSCRIBE, "": {}},
            "name": "n",
            "version": "v",
            "headers": {"h": "", "": "x"},
        },
    },
    {"id": 2, "subscribe": SUBSCRIBE},
    {"id": 3, "unsubscribe": {"channel": "c"}},
    {"id": 4, "publish": {"channel": "c", "data": {"x": [None, 1.5, "é"]}}},
    {"id": 5, "presence": {"channel": "c"}},
    {"id": 6, "presence_stats": {"channel": "c"}},
    {"id": 7, "history": {"channel": "c", "limit": -1, "reverse": True}},
    {"id": 7, "history": {"channel": "c", "since": {"offset": 9, "epoch": "e"}}},
    {"id": 7, "history": {"channel": "c", "since": {}}},
    {"id": 8, "ping": {}},
    {"send": {"data": 0}},
    {"id": 9, "rpc": {"method": "m", "data": False}},
    {"id": 10, "refresh": {"token": "t"}},
    {"id": 11, "sub_refresh": {"channel": "c", "token": "t"}},
    {},
]
PUBLICATIONS = [
    b'{"data":null}',
    b'{"tags":{"a":"b","":""},"data":{"x": [1, "}"]}}',
    b'{"info":{"user":"u","client":"c","conn_info":{"n":1},"chan_info":[]},"data":"data"}',
    b'{"tags":{"data":"\\""},"info":{"user":"","client":"c"},"data":{"data":1}}',
]
INFO_JSON = Raw(b'{"user":"u","client":"c","conn_info":{"n":1}}')
WHOLE_SUBSCRIBE = SubscribeResult(
    expires=True,
    ttl=30,
    recoverable=True,
    epoch="e",
    publications=[publication(n, body) for n, body in enumerate(PUBLICATIONS, 2**33)],
    recovered=True,
    offset=2**33,
    positioned=True,
    data=Raw(b'{"for":"you"}'),
    was_recovering=True,
    delta=True,
)
RESULT_EXAMPLES: list[Result] = [
    ConnectResult(
        "id",
        version="1",
        expires=True,
        ttl=60,
        subs={"a": WHOLE_SUBSCRIBE, "b": SubscribeResult()},
        ping=25,
        pong=True,
        data=Raw(b"[1]"),
        session="s",
        node="n",
    ),
    WHOLE_SUBSCRIBE,
    SubscribeResult(),
    UnsubscribeResult(),
    PublishResult(),
    PresenceResult({"id": INFO_JSON}),
    PresenceResult({}),
    PresenceStatsResult(3, 0),
    HistoryResult([publication(n, body) for n, body in enumerate(PUBLICATIONS, 1)], "e", 4),
    HistoryResult([], "", 0),
    RefreshResult("id", version="1", expires=True, ttl=60),
    SubRefreshResult(expires=True, ttl=60),
    RpcResult(),
    RpcResult(Raw(b'{"a":1}')),
]
PUSH_EXAMPLES: list[Push] = [
    Join(INFO_JSON),
    Leave(INFO_JSON),
    Unsubscribed(2500, "insufficient state"),
    Subscribed(recoverable=True, epoch="e", offset=300, positioned=True, data=Raw(b'{"a":1}')),
    Subscribed(),
    Refreshed(expires=True, ttl=60),
    Disconnected(3001, "shutdown", reconnect=True),
]


def test_every_result_and_push_has_an_example_here() -> None:
    """So that none is forgotten in what follows."""
    assert {type(result) for result in RESULT_EXAMPLES} == set(get_args(Result))
    assert {type(push) for push in PUSH_EXAMPLES} == set(get_args(Push))


# --- commands


def plain(command: Command) -> Any:
    """Make a command comparable: JSON within it as what it says."""
    return json.loads(encode(command.body)), command.id, type(command.body)


def encode(value: Any) -> str:
    """Encode structs for comparison."""
    if isinstance(value, Raw):
        return bytes(value).decode() or "null"
    if hasattr(value, "__struct_fields__"):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, dict):
        members = [f"{json.dumps(key)}:{encode(item)}" for key, item in value.items()]
        return f"{{{','.join(members)}}}"
    return json.dumps(value)


@pytest.mark.parametrize("command", WHOLE_COMMANDS, ids=str)
def test_command_is_what_it_is_in_json(command: dict[str, Any]) -> None:
    """What an SDK encodes is read as the JSON of the same command is."""
    (got,) = PROTOBUF.decode(to_protobuf(command))
    (wanted,) = JSON.decode(json.dumps(command).encode())
    assert plain(got) == plain(wanted)


def test_commands_of_a_frame_keep_their_order() -> None:
    """Several stand in one frame, each behind its length."""
    commands = PROTOBUF.decode(to_protobuf(*WHOLE_COMMANDS))
    assert [command.id for command in commands] == [c.get("id", 0) for c in WHOLE_COMMANDS]


@pytest.mark.parametrize("command", [{}, {"ping": {}}, {"subscribe": {"channel": "c"}}], ids=str)
def test_command_without_id_is_a_pong(command: dict[str, Any]) -> None:
    """Only `send` has no id; whatever else has none answers a ping."""
    assert PROTOBUF.decode(to_protobuf(command)) == [Command(0, None)]
    assert PROTOBUF.decode(b"\0") == [Command(0, None)]


def test_first_method_counts() -> None:
    """A command has one method; of several, the first of the schema counts."""
    frame = to_protobuf({"id": 1, "history": {"channel": "h"}, "subscribe": {"channel": "s"}})
    (command,) = PROTOBUF.decode(frame)
    assert isinstance(command.body, Subscribe)


def framed(message: bytes) -> bytes:
    """Put a message behind its length, below 128."""
    return bytes((len(message),)) + message


def test_unknown_fields_are_passed_over() -> None:
    """Newer clients may send fields of any wire type that we do not know."""
    unknown = b"\xf8\x07\x01" + b"\xf9\x07" + bytes(8) + b"\xfa\x07\x01x" + b"\xfd\x07" + bytes(4)
    (command,) = PROTOBUF.decode(framed(b"\x08\x01\x3a\x1a\x0a\x01c" + unknown + unknown))
    assert isinstance(command.body, Publish)
    assert command.body.channel == "c"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x05\x08",  # cut off
        b"\x80",  # half a length
        b"\xff" * 11,  # a length without end
        b"\xff" * 9 + b"\x01",  # a length that no memory has
        framed(b"\x08"),  # an id without number
        framed(b"\x08\x01"),  # no method
        framed(b"\x08\x01\x22\x05\x0a"),  # a connect over its end
        framed(b"\x08\x01\x22\x03\x0a\x01\xff"),  # a token that is no UTF-8
        framed(b"\x08\x01\x22\x03\x12\x01x"),  # data that is no JSON
        framed(b"\x08\x01\x22\x05\x12\x03\x22\xff\x22"),  # JSON that is no UTF-8
        framed(b"\x08\x01\x2a\x0b\x38" + b"\xff" * 9 + b"\x01"),  # an offset over 63 bits
        framed(b"\x0b\x08"),  # a group without end
        framed(b"\x00\x01"),  # field 0
        b"\x01\x08" + to_protobuf({"id": 1, "connect": {}}),
        b'{"id":1,"connect":{}}',
    ],
)
def test_bad_frame_is_a_bad_request(frame: bytes) -> None:
    """What is not of the protocol ends the connection with 3501, and nothing else is raised."""
    with pytest.raises(DisconnectError) as caught:
        PROTOBUF.decode(frame)
    assert caught.value.code is DisconnectCode.BAD_REQUEST


def sized(content: bytes) -> bytes:
    """Put bytes of any number behind it."""
    size, number = len(content), b""
    while size > 0x7F:
        number += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return number + bytes((size,)) + content


def test_depth_without_end_is_a_bad_request() -> None:
    """Tag filters within tag filters, thousands deep, and JSON as deep."""
    node = b""
    for _ in range(5_000):
        node = b"\x32" + sized(node)
    subscribe = b"\x08\x01\x2a" + sized(b"\x6a" + sized(node))
    connect = b"\x08\x01\x22" + sized(b"\x12" + sized(b"[" * 30_000))
    for message in (subscribe, connect):
        with pytest.raises(DisconnectError):
            PROTOBUF.decode(sized(message))


def test_published_data_that_is_no_json_is_an_error_of_its_command() -> None:
    """It counts as not given, which is error 107; other commands of the frame go on."""
    command = SCHEMA.Command(id=1, publish=SCHEMA.PublishRequest(channel="c", data=b"\x01\xff"))
    (got,) = PROTOBUF.decode(framed(command.SerializeToString()))
    assert isinstance(got.body, Publish)
    assert bytes(got.body.data) == b""


def test_data_has_no_raw_newlines() -> None:
    """JSON clients get it too, and would take a newline for the end of the message."""
    command = SCHEMA.Command(
        id=1, publish=SCHEMA.PublishRequest(channel="c", data=b'{\r\n"a":\n"\\n"}')
    )
    (got,) = PROTOBUF.decode(framed(command.SerializeToString()))
    assert isinstance(got.body, Publish)
    assert bytes(got.body.data) == b'{  "a": "\\n"}'


@given(st.binary(max_size=300))
def test_no_bytes_break_the_codec(frame: bytes) -> None:
    """Any bytes are commands, or end the connection; never another error."""
    for attempt in (frame, framed(frame[:100])):
        with contextlib.suppress(DisconnectError):
            PROTOBUF.decode(attempt)


FRAME = to_protobuf(*WHOLE_COMMANDS)


@given(st.integers(0, len(FRAME)), st.integers(0, len(FRAME)), st.binary(max_size=3))
def test_no_part_breaks_the_codec(start: int, end: int, between: bytes) -> None:
    """Frames that were cut, or changed within, are commands or end the connection."""
    for frame in (FRAME[start:end], FRAME[:start] + between + FRAME[start + len(between) :]):
        with contextlib.suppress(DisconnectError):
            PROTOBUF.decode(frame)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
SUBSCRIBES = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.text(max_size=10),
        "token": st.text(max_size=200),
        "recover": st.booleans(),
        "epoch": st.text(max_size=8),
        "offset": st.integers(0, 2**63 - 1),
        "data": JSON_VALUES,
        "flag": st.integers(-(2**63), 2**63 - 1),
        "delta": st.just("fossil"),
    },
)
COMMAND_FRAMES = st.lists(
    st.builds(
        lambda number, method: {"id": number, **method},
        st.integers(1, 2**32 - 1),
        st.fixed_dictionaries({"subscribe": SUBSCRIBES})
        | st.fixed_dictionaries(
            {"connect": st.fixed_dictionaries({"subs": st.dictionaries(st.text(), SUBSCRIBES)})}
        )
        | st.fixed_dictionaries({"publish": st.fixed_dictionaries({"data": JSON_VALUES})})
        | st.fixed_dictionaries(
            {"history": st.fixed_dictionaries({"limit": st.integers(-(2**31), 2**31 - 1)})}
        ),
    ),
    min_size=1,
    max_size=4,
)


@given(COMMAND_FRAMES)
def test_well_formed_commands_round_trip(commands: list[dict[str, Any]]) -> None:
    """What clients encode comes out as it would of JSON, whatever is in it and how many."""
    got = PROTOBUF.decode(to_protobuf(*commands))
    wanted = JSON.decode("\n".join(map(json.dumps, commands)).encode())
    assert list(map(plain, got)) == list(map(plain, wanted))


# --- replies and pushes


@pytest.mark.parametrize("result", RESULT_EXAMPLES, ids=lambda result: type(result).__name__)
def test_reply_is_what_it_is_in_json(result: Result) -> None:
    """Read by an SDK, it says what the JSON says."""
    assert from_protobuf(PROTOBUF.reply(7, result)) == [json.loads(JSON.reply(7, result))]


@pytest.mark.parametrize("push", PUSH_EXAMPLES, ids=lambda push: type(push).__name__)
@pytest.mark.parametrize("channel", ["c", ""])
def test_push_is_what_it_is_in_json(push: Push, channel: str) -> None:
    """The same for all that is pushed, with and without a channel."""
    got = from_protobuf(PROTOBUF.push(channel, push))
    assert got == [json.loads(JSON.push(channel, push))]


@pytest.mark.parametrize("code", [*ErrorCode, OwnError(403, 'say "é"', temporary=True)])
def test_error_is_what_it_is_in_json(code: Failure) -> None:
    """Code, message, and whether to try again."""
    assert from_protobuf(PROTOBUF.error(7, code)) == [json.loads(JSON.error(7, code))]


@pytest.mark.parametrize("first", [0, 1, 2**40])
def test_publications_are_what_they_are_in_json(first: int) -> None:
    """Each has its offset, tags and publisher; the data is embedded as it is."""
    channel = "c" * 200
    got = b"".join(PROTOBUF.publications(channel, first, PUBLICATIONS))
    wanted = JSON.publications(channel, first, PUBLICATIONS)
    assert from_protobuf(got) == list(map(json.loads, wanted))


def test_deltas_are_bytes() -> None:
    """What JSON has as strings, the whole and what changed, Protobuf has as they are."""
    whole = b'{"text":"%b"}' % ("é" * 100).encode()
    bodies = [
        b'{"data":%b}' % whole,
        b'{"tags":{"a":"b"},"data":%b}' % whole.replace(b"text", b"word"),
        b'{"info":5,"data":",\\"delta\\":true"}',
    ]
    ((_, shaped),) = DELTAS.shaped([(1, bodies)])
    first, second, third = map(pushed, PROTOBUF.publications("c", 1, shaped))
    assert (first.data, first.delta) == (whole, False)
    assert (second.delta, second.tags, second.offset) == (True, {"a": "b"}, 2)
    assert apply_delta(first.data, second.data) == whole.replace(b"text", b"word")
    assert (third.data, third.delta) == (b'",\\"delta\\":true"', False)
    (plain,) = PROTOBUF.publications("c", 1, bodies[2:])
    assert pushed(plain).data == third.data


def pushed(message: bytes) -> Any:
    """Return the publication of a push."""
    return parse_length_prefixed(SCHEMA.Reply, io.BytesIO(message)).push.pub


def test_ping_is_an_empty_reply() -> None:
    """A length of zero, and nothing."""
    assert from_protobuf(PROTOBUF.ping) == [{}]


@given(st.lists(st.binary(max_size=40_000), min_size=1, max_size=6))
def test_packing_loses_nothing(datas: list[bytes]) -> None:
    """However messages are packed, they come out whole and in order, in frames of bounded size."""
    bodies = [b'{"data":"%b"}' % data.hex().encode() for data in datas]
    messages = PROTOBUF.publications("c", 1, bodies)
    frames = Wire(PROTOBUF, bytes, stream=False).pack(messages)
    found = [message for frame in frames for message in from_protobuf(frame)]
    assert [m["push"]["pub"]["data"] for m in found] == [data.hex() for data in datas]
    assert all(len(f) <= BLOCK_BYTES or len(from_protobuf(f)) == 1 for f in frames)


def test_send_needs_no_id() -> None:
    """`send` has no reply, and so no id."""
    (command,) = PROTOBUF.decode(to_protobuf({"send": {"data": 1}}))
    assert isinstance(command.body, Send)
