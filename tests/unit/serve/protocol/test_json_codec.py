"""The client protocol: frames in, messages out, and what a transport is given."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from serve.protocol.json_codec import JSON, ONE_WAY_JSON, decode_connect, publication
from serve.protocol.messages import (
    ClientInfo,
    Close,
    Connect,
    ConnectResult,
    DisconnectCode,
    Disconnected,
    DisconnectError,
    ErrorCode,
    History,
    HistoryResult,
    Join,
    PresenceResult,
    PresenceStatsResult,
    Publish,
    PublishResult,
    Send,
    StreamPosition,
    Subscribe,
    SubscribeResult,
    UnsubscribeCode,
    Unsubscribed,
    UnsubscribeResult,
    one_way_close,
)
from serve.protocol.wire import BLOCK_BYTES, Wire
from serve.transports.sse import sse_events
from serve.transports.websocket import text_frame


def test_commands_of_a_frame_keep_their_order() -> None:
    """A frame holds commands joined by newlines; a newline at its end is trimmed."""
    frame = (
        b'{"id":1,"connect":{"token":"t"}}\n{"id":2,"publish":{"channel":"c","data":{"a": 1}}}\n'
    )
    first, second = JSON.decode(frame)
    assert (first.id, second.id) == (1, 2)
    assert isinstance(first.body, Connect)
    assert first.body.token == "t"
    assert isinstance(second.body, Publish)
    assert bytes(second.body.data) == b'{"a": 1}'


@pytest.mark.parametrize("line", [b"{}", b'{"id":0}', b'{"ping":{}}', b'{"subscribe":{}}'])
def test_command_without_id_is_a_pong(line: bytes) -> None:
    """Only `send` has no id; whatever else has none answers a ping."""
    (command,) = JSON.decode(line)
    assert command.body is None


def test_send_needs_no_id() -> None:
    """`send` has no reply, and so no id."""
    (command,) = JSON.decode(b'{"send":{"data":1}}')
    assert isinstance(command.body, Send)


def test_first_method_counts() -> None:
    """A command has one method; of several, the first of the schema counts."""
    (command,) = JSON.decode(b'{"id":1,"history":{"channel":"h"},"subscribe":{"channel":"s"}}')
    assert isinstance(command.body, Subscribe)


def test_unknown_fields_are_passed_over() -> None:
    """Newer clients may send fields that we do not know."""
    (command,) = JSON.decode(b'{"id":1,"new":1,"history":{"channel":"h","new":[],"since":{}}}')
    assert isinstance(command.body, History)
    assert command.body.since == StreamPosition()


def test_any_number_is_a_limit() -> None:
    """The session cuts it down; the codec has no bound of its own."""
    (command,) = JSON.decode(b'{"id":1,"history":{"channel":"h","limit":100000000000000000000}}')
    assert isinstance(command.body, History)
    assert command.body.limit == 10**20


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (rb"\ud83d", rb"\ufffd"),
        (rb"\ude00", rb"\ufffd"),
        (rb"cut \uD83D", rb"cut \ufffd"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ud83d\u0041", rb"\ufffd\u0041"),
        (rb"\ud83d \ude00", rb"\ufffd \ufffd"),
        (rb"\\ud83d \udbff", rb"\\ud83d \ufffd"),
        (rb"\\\ud83d\n", rb"\\\ufffd\n"),
        (rb"\uD83D\uDE00 \udfff", rb"\uD83D\uDE00 \ufffd"),
    ],
)
def test_half_a_character_is_replaced(sent: bytes, taken: bytes) -> None:
    """Text may be cut within a surrogate pair; Go puts U+FFFD there, and so do we."""
    (command,) = JSON.decode(b'{"id":1,"publish":{"channel":"c","data":{"a":"%b"}}}' % sent)
    assert isinstance(command.body, Publish)
    assert bytes(command.body.data) == b'{"a":"%b"}' % taken
    assert decode_connect(b'{"name":"%b"}' % sent).name == json.loads(b'"%b"' % taken)


def test_null_is_a_field_left_out() -> None:
    """As Go takes it, but for data: there it is a value."""
    connect, subscribe, publish, pong = JSON.decode(
        b' {"id":1,"connect":{"token":null,"data":null,"subs":{"c":{"epoch":null}},"name":null}}\n'
        b'{"id":2,"subscribe":{"channel":"c","offset":null,"tf":null},"rpc":null}\n'
        b'{"id":3,"publish":{"channel":null,"data":{"a":null}}}\n'
        b'{"id":null,"ping":{}}'
    )
    assert isinstance(connect.body, Connect)
    assert (connect.body.token, connect.body.name) == ("", "")
    assert connect.body.subs["c"].epoch == ""
    assert bytes(connect.body.data) == b"null"
    assert isinstance(subscribe.body, Subscribe)
    assert (subscribe.body.channel, subscribe.body.offset) == ("c", 0)
    assert isinstance(publish.body, Publish)
    assert (publish.body.channel, bytes(publish.body.data)) == ("", b'{"a":null}')
    assert pong.body is None
    assert decode_connect(b'{"token":null}').token == ""


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\n",
        b"nonsense",
        b"[]",
        b'{"id":1}',
        b'{"id":1,"unheard_of":{}}',
        b'{"id":-1,"connect":{}}',
        b'{"id":1.5,"connect":{}}',
        b'{"id":4294967296,"connect":{}}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"connect":{}}\n\n{"id":2,"connect":{}}',
        b'{"id":1,"subscribe":{"channel":7}}',
        b'{"id":1,"subscribe":{"channel":"\xff"}}',
        b'{"id":1,"publish":{"channel":"c","data":"\xff"}}',
        b'{"id":1,"publish":{"channel":"c","data":"\\ud83"}}',
        b'{"id":1,"subscribe":{"channel":"c","offset":-1}}',
        b'{"id":1,"x":' + b"[" * 100_000,
        b'{"id":1,"publish":{"channel":"c","data":' + b"[" * 100_000,
    ],
)
def test_bad_frame_is_a_bad_request(frame: bytes) -> None:
    """What is not of the protocol ends the connection with 3501, and nothing else is raised."""
    with pytest.raises(DisconnectError) as caught:
        JSON.decode(frame)
    assert caught.value.code is DisconnectCode.BAD_REQUEST


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_the_codec(frame: bytes) -> None:
    """Any bytes are commands, or end the connection; never another error."""
    for decode in (JSON.decode, decode_connect):
        with contextlib.suppress(DisconnectError):
            decode(frame)


@given(
    st.dictionaries(
        st.sampled_from(["id", "connect", "subscribe", "publish", "history", "send", "rpc"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["channel", "token", "subs", "since", "offset", "data"]), inner
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_no_json_breaks_the_codec(value: object) -> None:
    """JSON of almost the right shape is commands, or ends the connection."""
    with contextlib.suppress(DisconnectError):
        JSON.decode(json.dumps(value).encode())


def test_reply_has_id_and_the_key_of_its_method() -> None:
    """An empty result is written as `{}`: clients look for the key."""
    assert json.loads(JSON.reply(3, PublishResult())) == {"id": 3, "publish": {}}
    assert json.loads(JSON.reply(4, UnsubscribeResult())) == {"id": 4, "unsubscribe": {}}
    assert json.loads(JSON.reply(5, SubscribeResult())) == {"id": 5, "subscribe": {}}


def test_empty_fields_are_left_out_but_for_some() -> None:
    """Value rules: what is zero or empty is omitted, except the fields that clients rely on."""
    assert json.loads(JSON.reply(1, ConnectResult("c", ping=25, pong=True))) == {
        "id": 1,
        "connect": {"client": "c", "ping": 25, "pong": True},
    }
    assert json.loads(JSON.reply(1, HistoryResult([], "", 0)))["history"] == {
        "publications": [],
        "epoch": "",
        "offset": 0,
    }
    assert json.loads(JSON.reply(1, PresenceResult({})))["presence"] == {"presence": {}}
    stats = json.loads(JSON.reply(1, PresenceStatsResult(0, 0)))["presence_stats"]
    assert stats == {"num_clients": 0, "num_users": 0}
    assert json.loads(msgspec.json.encode(ClientInfo("", "c"))) == {"user": "", "client": "c"}


def test_error_says_whether_to_try_again() -> None:
    """`temporary` is written only where it is true."""
    assert json.loads(JSON.error(2, ErrorCode.PERMISSION_DENIED)) == {
        "id": 2,
        "error": {"code": 103, "message": "permission denied"},
    }
    assert json.loads(JSON.error(2, ErrorCode.TOO_MANY_REQUESTS))["error"]["temporary"] is True


def test_publications_are_spliced() -> None:
    """A stored body is embedded as it is, with its offset; without history there is none."""
    bodies = [b'{"tags":{"a":"b"},"data":{"x": 1}}', b'{"data":null}']
    first, second = map(json.loads, JSON.publications('c"', 7, bodies))
    assert first == {
        "push": {"channel": 'c"', "pub": {"offset": 7, "tags": {"a": "b"}, "data": {"x": 1}}}
    }
    assert second["push"]["pub"] == {"offset": 8, "data": None}
    (plain,) = map(json.loads, JSON.publications("c", 0, bodies[:1]))
    assert plain["push"]["pub"] == {"tags": {"a": "b"}, "data": {"x": 1}}
    assert json.loads(bytes(publication(7, bodies[1]))) == {"offset": 7, "data": None}
    assert json.loads(bytes(publication(0, bodies[1]))) == {"data": None}


def test_one_way_messages_are_bare_pushes() -> None:
    """One-way transports have neither ids nor the wrapper `push`."""
    assert json.loads(ONE_WAY_JSON.reply(0, ConnectResult("c"))) == {"connect": {"client": "c"}}
    (message,) = map(json.loads, ONE_WAY_JSON.publications("c", 1, [b'{"data":5}']))
    assert message == {"channel": "c", "pub": {"offset": 1, "data": 5}}
    end = json.loads(ONE_WAY_JSON.push("", Disconnected(3001, "shutdown", reconnect=True)))
    assert end == {"disconnect": {"code": 3001, "reason": "shutdown", "reconnect": True}}


def test_pushes_name_their_channel() -> None:
    """Joins and ended subscriptions are pushes of a channel."""
    assert json.loads(JSON.push("c", Join(Raw(b'{"user":"u"}')))) == {
        "push": {"channel": "c", "join": {"info": {"user": "u"}}}
    }
    code = UnsubscribeCode.INSUFFICIENT_STATE
    assert json.loads(JSON.push("c", Unsubscribed(code, code.reason))) == {
        "push": {"channel": "c", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
    }


def test_connect_request_may_be_empty() -> None:
    """A one-way client that sends nothing connects with nothing."""
    assert decode_connect(b" ").token == ""
    assert decode_connect(b'{"token":"t"}').token == "t"
    with pytest.raises(DisconnectError):
        decode_connect(b'{"data":' + b"[" * 100_000)


def test_close_codes_tell_whether_to_come_back() -> None:
    """3500 to 3999 and 4500 to 4999 are for good; a reason fits into a close frame."""
    codes = (0, 1000, 3001, 3499, 3500, 3999, 4000, 4499, 4500, 4999, 5000)
    assert [code for code in codes if not Close(code, "").reconnect] == [3500, 3999, 4500, 4999]
    assert len(Close(4000, "ü" * 100).frame_reason.encode()) <= 123
    assert DisconnectCode.NO_PONG.reason == "no pong"


def test_one_way_clients_get_errors_as_closes() -> None:
    """A connect that fails is a disconnect push for those who know no errors."""
    assert one_way_close(ErrorCode.TOKEN_EXPIRED) is DisconnectCode.CONNECTION_EXPIRED
    assert one_way_close(ErrorCode.TOO_MANY_REQUESTS) is DisconnectCode.TOO_MANY_REQUESTS
    assert one_way_close(ErrorCode.PERMISSION_DENIED) is DisconnectCode.PERMISSION_DENIED
    assert one_way_close(ErrorCode.UNKNOWN_CHANNEL) is DisconnectCode.INTERNAL_SERVER_ERROR


@given(st.lists(st.binary(max_size=40_000).map(lambda b: b.replace(b"\n", b" ")), min_size=1))
def test_packing_loses_nothing(messages: list[bytes]) -> None:
    """However messages are packed, they come out whole and in order, in frames of bounded size."""
    wire = Wire(JSON, bytes, stream=False)
    frames = wire.pack(messages)
    assert [part for frame in frames for part in frame.split(b"\n")] == messages
    for frame in frames:
        assert len(frame) <= BLOCK_BYTES + len(messages) or b"\n" not in frame


def test_large_blocks_are_split_between_messages() -> None:
    """Some clients refuse frames over 1 MiB; where frames are a stream they are written at once."""
    messages = [b"x" * 30_000] * 5
    frames = Wire(JSON, bytes, stream=False).pack(messages)
    assert [frame.count(b"\n") + 1 for frame in frames] == [2, 2, 1]
    assert Wire(JSON, bytes, stream=True).pack(messages) == [b"".join(frames)]


@pytest.mark.parametrize(
    ("size", "head"),
    [(125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (65_536, b"\x81\x7f" + (65_536).to_bytes(8))],
)
def test_text_frames_have_the_shortest_length_field(size: int, head: bytes) -> None:
    """RFC 6455, section 5.2: 7, 16 or 64 bits, the fewest that do."""
    block = b"x" * size
    assert text_frame(block) == head + block


def test_each_message_is_one_event() -> None:
    """Server-Sent Events: messages are not joined within an event."""
    assert sse_events(b'{"a":1}\n{}') == b'data: {"a":1}\n\ndata: {}\n\n'
