"""One client without its socket: every command, code and rule of the protocol that it keeps."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from pydantic import SecretStr

from actors.settings.client import ClientSettings
from actors.settings.tree import AuthSettings, ChannelSettings, Settings
from actors.store.interface import History
from serve.auth.access import Access
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import (
    Connect,
    DisconnectCode,
    ErrorCode,
    Join,
    PresenceResult,
    PublishResult,
    StreamPosition,
    Subscribe,
    UnsubscribeCode,
    UnsubscribeResult,
)
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.shape import Run
from serve.protocol.wire import Codec
from serve.session.asks import Ask, AskHistory, AskJoin, AskLeave, AskPresence, AskPublish, AskStats
from serve.session.authorised import AuthorisedSession as Session
from serve.session.place import NOWHERE, Place
from serve.session.session import PUBLISHES_MAX
from serve.session.subscription import HELD_BYTES_MAX, Read, Subscription
from tests.protobuf_speech import from_protobuf, to_protobuf
from tests.session_client import SessionClient

SECRET = "a secret that is long enough for HS256"
NOW_S = 1_800_000_000.0

OPEN = ChannelSettings(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    allow_presence_for_client=True,
    history_size=10,
    history_ttl_s=60,
    presence=True,
    join_leave=True,
)
NAMESPACES = {
    "open": OPEN,
    "plain": ChannelSettings(allow_subscribe_for_client=True),
    "closed": ChannelSettings(presence=True, history_size=10, history_ttl_s=60),
    "recover": OPEN.model_copy(update={"force_recovery": True}),
    "latest": OPEN.model_copy(
        update={
            "force_recovery": True,
            "force_recovery_mode": "cache",
            "auto_cache_recover": True,
        }
    ),
    "cache": OPEN.model_copy(update={"force_recovery": True, "force_recovery_mode": "cache"}),
    "wish": ChannelSettings(
        allow_subscribe_for_client=True, history_size=10, history_ttl_s=60, allow_positioning=True
    ),
    "back": ChannelSettings(
        allow_subscribe_for_client=True, history_size=10, history_ttl_s=60, allow_recovery=True
    ),
}


@dataclass(frozen=True, slots=True)
class Speech:
    """A codec, and what speaks it from the client's side."""

    codec: Codec
    encode: Callable[..., bytes]
    decode: Callable[[bytes], list[Any]]


def json_frame(*commands: dict[str, Any]) -> bytes:
    """Make a frame of commands."""
    return "\n".join(map(json.dumps, commands)).encode()


def json_messages(frame: bytes) -> list[Any]:
    """Read the messages of a frame."""
    return [json.loads(line) for line in frame.split(b"\n")]


IN_JSON = Speech(JSON, json_frame, json_messages)
IN_PROTOBUF = Speech(PROTOBUF, to_protobuf, from_protobuf)
ONE_WAY = Speech(ONE_WAY_JSON, json_frame, json_messages)


@pytest.fixture(
    autouse=True, scope="module", params=[IN_JSON, IN_PROTOBUF], ids=["JSON", "Protobuf"]
)
def speech(request: pytest.FixtureRequest) -> None:
    """Let the clients of all tests speak it: every rule holds in both codecs."""
    Client.speech = request.param


class Client(SessionClient[Session]):
    """A session, and what a test does with it."""

    speech = IN_JSON

    def __init__(self, *, one_way: bool = False, place: Place = NOWHERE, **limits: Any) -> None:
        settings = Settings(
            client=ClientSettings(**limits),
            auth=AuthSettings(token_secret=SecretStr(SECRET)),
            namespaces=NAMESPACES,
        )
        self.speech = ONE_WAY if one_way else self.speech
        self.asked: list[Ask] = []
        self.session = Session(
            "id",
            Access(settings, wall=lambda: NOW_S),
            self.speech.codec,
            now=self.now,
            spread=1.0,
            one_way=one_way,
            place=place,
        )

    def say(self, *commands: dict[str, Any]) -> list[Any]:
        """Send commands in one frame; return what is answered at once."""
        self.session.receive(self.speech.encode(*commands), self.now)
        return self.heard()

    def heard(self) -> list[Any]:
        """Return what the session says, decoded."""
        messages = self.session.take_messages()
        return [found for message in messages for found in self.speech.decode(message)]

    def join(self, *histories: History) -> list[Any]:
        """Answer the join that is asked for."""
        self.session.joined(self.ask(AskJoin), histories, self.now)
        return self.heard()

    def connected(self, user: str = "u", **claims: Any) -> "Client":
        """Connect with a token."""
        self.say({"id": 1, "connect": {"token": token(sub=user, **claims)}})
        self.join(*[History(0, "", [])] * len(claims.get("channels", ())))
        return self

    def subscribed(self, channel: str, history: History, **wishes: Any) -> Any:
        """Subscribe; return the result."""
        assert self.say({"id": 2, "subscribe": {"channel": channel, **wishes}}) == []
        (reply,) = self.join(history)
        return reply["subscribe"]


def token(**claims: Any) -> str:
    """Sign claims."""
    return jwt.encode(claims, SECRET, algorithm="HS256")


def error(code: ErrorCode, command_id: int = 2) -> list[Any]:
    """Say what an error reply looks like."""
    return [json.loads(JSON.error(command_id, code))]


def top(offset: int, *, epoch: str = "e", since: int | None = None) -> History:
    """Make a history: publications after `since`, up to `offset`."""
    first = offset + 1 if since is None else since + 1
    found = [(number, b'{"data":%d}' % number) for number in range(first, offset + 1)]
    return History(offset, epoch, found)


def run(first: int, last: int) -> Run:
    """Make publications as the feed has them."""
    return first, [b'{"data":%d}' % number for number in range(first, last + 1)]


def offsets(pushes: Sequence[Any]) -> list[int]:
    """Return the offsets of publications pushed."""
    return [push["push"]["pub"]["offset"] for push in pushes]


# --- connect


def test_connect_says_who_the_client_is_and_how_to_ping() -> None:
    """The result has id, ping and pong; no session or node on a two-way socket."""
    client = Client()
    client.say({"id": 7, "connect": {"token": token(sub="u")}})
    assert client.join() == [{"id": 7, "connect": {"client": "id", "ping": 25, "pong": True}}]
    assert client.session.user == "u"


def test_client_that_sends_by_requests_is_told_what_to_name() -> None:
    """Session and node, beside the rest."""
    client = Client(place=Place("1.0", session="secret", node="e1"))
    client.say({"id": 1, "connect": {"token": token(sub="u")}})
    (reply,) = client.join()
    assert reply["connect"] == {
        "client": "id", "version": "1.0", "ping": 25, "pong": True, "session": "secret",
        "node": "e1",
    }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [{"id": 1, "subscribe": {"channel": "open:a"}}, {"id": 1, "rpc": {}}, {"send": {}}, {}],
)
def test_first_command_must_be_connect(command: dict[str, Any]) -> None:
    """Anything else first: 3501."""
    client = Client()
    client.say(command)
    assert client.closed == 3501


def test_second_connect_is_a_bad_request() -> None:
    """An authenticated connection cannot connect again: 3501."""
    client = Client().connected()
    client.say({"id": 2, "connect": {}})
    assert client.closed == 3501


def test_connect_without_token_is_a_bad_request() -> None:
    """No credentials at all: disconnect 3501, not an error reply."""
    client = Client()
    assert client.say({"id": 1, "connect": {}}) == []
    assert client.closed == 3501


def test_bad_token_is_terminal() -> None:
    """Badly signed: 3500."""
    client = Client()
    client.say({"id": 1, "connect": {"token": "x"}})
    assert client.closed == 3500


def test_refused_connection_takes_no_more_commands() -> None:
    """Error 109 leaves a connection on which every further command is 3501."""
    client = Client()
    expired = {"id": 1, "connect": {"token": token(exp=NOW_S - 1)}}
    assert client.say(expired) == error(ErrorCode.TOKEN_EXPIRED, 1)
    assert client.closed is None
    client.say({"id": 2, "connect": {"token": token(sub="u")}})
    assert client.closed == 3501


def test_commands_wait_for_connect() -> None:
    """Commands of the frame that connects are taken once it has connected, in order."""
    client = Client()
    frame = {"id": 1, "connect": {"token": token(sub="u")}}, {"id": 2, "rpc": {"method": "m"}}
    assert client.say(*frame) == []
    assert client.session.busy
    first, second = client.join()
    assert (first["id"], second["id"]) == (1, 2)
    assert not client.session.busy


def test_token_subscribes_its_channels() -> None:
    """`channels` of a token are subscribed by the server, without permission checks."""
    client = Client()
    client.say({"id": 1, "connect": {"token": token(sub="u", channels=["closed:a"])}})
    (reply,) = client.join(top(3))
    assert reply["connect"]["subs"] == {"closed:a": {}}
    assert client.say({"id": 2, "subscribe": {"channel": "closed:a"}}) == error(
        ErrorCode.ALREADY_SUBSCRIBED
    )


def test_token_with_unknown_namespace_fails() -> None:
    """Unknown namespace in a token's channels: error 102 on connect."""
    client = Client()
    answer = client.say({"id": 1, "connect": {"token": token(channels=["what:a"])}})
    assert answer == error(ErrorCode.UNKNOWN_CHANNEL, 1)


def test_wishes_are_subscribed_where_allowed() -> None:
    """Requested `subs` become server-side subscriptions; those not allowed are passed over."""
    client = Client()
    wishes = {"recover:a": {"recover": True, "offset": 1, "epoch": "e"}, "closed:a": {}}
    client.say({"id": 1, "connect": {"token": token(sub="u"), "subs": wishes}})
    (reply,) = client.join(top(3, since=1))
    (result,) = reply["connect"]["subs"].values()
    assert result["recovered"]
    assert [item["offset"] for item in result["publications"]] == [2, 3]


def test_wish_for_unknown_namespace_is_a_bad_request() -> None:
    """Unknown namespace in the request's `subs`: 3501."""
    client = Client()
    client.say({"id": 1, "connect": {"token": token(sub="u"), "subs": {"what:a": {}}}})
    assert client.closed == 3501


def test_connect_with_too_many_channels_is_closed() -> None:
    """The limit holds for what the server subscribes, too: 3505."""
    client = Client(channels_max=1)
    client.say({"id": 1, "connect": {"token": token(channels=["open:a", "open:b"])}})
    assert client.closed == 3505


# --- time


def test_stale_client_is_closed() -> None:
    """Who does not connect in time: 3502; also who was refused and stays."""
    client = Client(stale_close_delay_s=10)
    client.say({"id": 1, "connect": {"token": token(exp=NOW_S - 1)}})
    client.wait(9.9)
    assert client.closed is None
    assert client.session.deadline() == 110
    client.wait(0.1)
    assert client.closed == 3502


def test_server_pings_and_the_client_answers() -> None:
    """An empty reply every interval; an empty command back."""
    client = Client(ping_interval_s=25, pong_timeout_s=8).connected()
    for _ in range(3):
        assert client.wait(25) == [{}]
        assert client.say({}) == []
        assert client.wait(8) == []
        client.now -= 8
    assert client.closed is None


def test_missing_pong_closes() -> None:
    """No pong within the timeout: 3012."""
    client = Client(ping_interval_s=25, pong_timeout_s=8).connected()
    client.wait(25)
    client.wait(7.9)
    assert client.closed is None
    client.wait(0.1)
    assert client.closed == 3012


def test_pong_without_ping_is_a_bad_request() -> None:
    """Each ping allows one pong: 3501."""
    client = Client().connected()
    client.wait(25)
    client.say({})
    assert client.closed is None
    client.say({})
    assert client.closed == 3501


def test_first_ping_is_in_the_second_half_of_the_interval() -> None:
    """Clients that came together are not pinged together."""
    for spread, first in [(0.0, 12.5), (1.0, 25.0)]:
        access = Access(Settings(client=ClientSettings(insecure=True)))
        session = Session("id", access, JSON, now=0, spread=spread)
        session.receive(b'{"id":1,"connect":{}}', 0)
        (ask,) = session.take_asks()
        assert isinstance(ask, AskJoin)
        session.joined(ask, [], 0)
        assert session.deadline() == first


def test_connection_expires_with_its_token() -> None:
    """`expires` and `ttl` say when; 25 s later it is closed with 3005."""
    client = Client(ping_interval_s=1000)
    client.say({"id": 1, "connect": {"token": token(sub="u", exp=NOW_S + 60)}})
    (reply,) = client.join()
    assert (reply["connect"]["expires"], reply["connect"]["ttl"]) == (True, 60)
    client.wait(84)
    assert client.closed is None
    client.wait(1)
    assert client.closed == 3005


def test_refresh_prolongs() -> None:
    """A new token of the same user gives new time; one without `exp` gives all of it."""
    client = Client(ping_interval_s=1000).connected(exp=NOW_S + 60)
    fresh = token(sub="u", exp=NOW_S + 90)
    (reply,) = client.say({"id": 2, "refresh": {"token": fresh}})
    assert reply == {"id": 2, "refresh": {"client": "id", "expires": True, "ttl": 90}}
    client.wait(100)
    assert client.closed is None
    (reply,) = client.say({"id": 3, "refresh": {"token": token(sub="u")}})
    assert reply == {"id": 3, "refresh": {"client": "id"}}
    assert client.session.deadline() > client.now + 800


@pytest.mark.parametrize(
    ("fresh", "code"),
    [
        ("", 3501),
        ("x", 3500),
        (token(sub="other"), 3500),
        (token(sub="u", exp=NOW_S - 1), 3005),
        (token(sub="u", channels=["open:a"]), 3010),
    ],
)
def test_refresh_with_the_wrong_token_closes(fresh: str, code: int) -> None:
    """Each way in which it is wrong has its code."""
    client = Client().connected()
    client.say({"id": 2, "refresh": {"token": fresh}})
    assert client.closed == code


def test_sub_refresh_has_nothing_to_refresh() -> None:
    """Not subscribed: 103; no token: 107; no subscription expires by a token: 3501."""
    client = Client().connected()
    client.subscribed("open:a", top(0))
    assert client.say({"id": 2, "sub_refresh": {"channel": "open:b", "token": "t"}}) == error(
        ErrorCode.PERMISSION_DENIED
    )
    assert client.say({"id": 2, "sub_refresh": {"channel": "open:a"}}) == error(
        ErrorCode.BAD_REQUEST
    )
    client.say({"id": 2, "sub_refresh": {"channel": "open:a", "token": "t"}})
    assert client.closed == 3500


# --- subscribe


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "x" * 256}, ErrorCode.BAD_REQUEST),
        ({"channel": "what:a"}, ErrorCode.UNKNOWN_CHANNEL),
        ({"channel": "closed:a"}, ErrorCode.PERMISSION_DENIED),
        ({"channel": "$open:a"}, ErrorCode.PERMISSION_DENIED),
        ({"channel": "open:a", "token": "t"}, ErrorCode.PERMISSION_DENIED),
        ({"channel": "open:a", "tf": {"key": "a"}}, ErrorCode.BAD_REQUEST),
    ],
)
def test_subscribe_is_refused(request_: dict[str, Any], code: ErrorCode) -> None:
    """Each reason has its error, and the connection goes on."""
    client = Client().connected()
    assert client.say({"id": 2, "subscribe": request_}) == error(code)
    assert client.closed is None
    assert client.session.subscriptions == {}


@pytest.mark.parametrize(
    "request_", [{}, *({"channel": name, "delta": "x"} for name in ("open:a", "what:a", "open:b"))]
)
def test_malformed_subscribe_closes(request_: dict[str, Any]) -> None:
    """An empty channel, or an unknown delta type, whatever else: 3501."""
    client = Client(channels_max=1).connected()
    client.subscribed("open:b", top(0))
    client.say({"id": 2, "subscribe": request_})
    assert client.closed == 3501


def test_subscribing_twice_is_an_error() -> None:
    """Error 105."""
    client = Client().connected()
    client.subscribed("open:a", top(0))
    assert client.say({"id": 2, "subscribe": {"channel": "open:a"}}) == error(
        ErrorCode.ALREADY_SUBSCRIBED
    )


def test_subscriptions_are_limited() -> None:
    """Error 106; an ended one makes room."""
    client = Client(channels_max=1).connected()
    client.subscribed("open:a", top(0))
    for other in ("open:b", "what:a"):
        assert client.say({"id": 2, "subscribe": {"channel": other}}) == error(
            ErrorCode.LIMIT_EXCEEDED
        )
    client.say({"id": 3, "unsubscribe": {"channel": "open:a"}})
    client.session.answer(client.ask(AskLeave), UnsubscribeResult(), client.now)
    client.heard()
    client.subscribed("open:b", top(0))


def test_names_are_limited() -> None:
    """Error 107 past the setting, for every command that names a channel."""
    client = Client(channel_length_max=6).connected()
    client.subscribed("open:a", top(0))
    for method in ("subscribe", "publish", "history", "presence", "presence_stats"):
        data = {"data": 1} if method == "publish" else {}
        command = {"id": 2, method: {"channel": "open:ab", **data}}
        assert client.say(command) == error(ErrorCode.BAD_REQUEST)
    assert client.closed is None


def test_failed_join_leaves_nothing() -> None:
    """After an error the client may subscribe again."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": "open:a"}})
    client.session.failed(client.ask(AskJoin), ErrorCode.INTERNAL_SERVER_ERROR, client.now)
    assert client.heard() == error(ErrorCode.INTERNAL_SERVER_ERROR)
    client.subscribed("open:a", top(0))


def test_plain_subscription_has_no_position() -> None:
    """Without history, or without a wish for it, the result says nothing of positions."""
    client = Client().connected()
    wishes = {"positioned": True, "recoverable": True, "recover": True}
    result = client.subscribed("plain:a", History(0, "", []), **wishes)
    assert result == {"was_recovering": True}
    assert client.subscribed("open:a", top(5)) == {}


def test_positioned_and_recoverable_are_granted_with_permission() -> None:
    """Both give the position; recoverable implies positioned."""
    position = {"offset": 5, "epoch": "e", "positioned": True}
    client = Client().connected()
    assert client.subscribed("open:a", top(5), positioned=True) == position
    both = client.subscribed("open:b", top(5), recoverable=True)
    assert both == {**position, "recoverable": True}
    assert client.subscribed("recover:a", top(5)) == both


def test_positions_need_permission_to_read_history() -> None:
    """Wishes without the permission are not granted."""
    client = Client()
    client.say({"id": 1, "connect": {"token": token(sub="u", channels=["closed:a"])}})
    (reply,) = client.join(top(5))
    assert reply["connect"]["subs"]["closed:a"] == {}


def test_positions_may_be_allowed_to_those_who_may_not_read_history() -> None:
    """By settings of their own, one for each."""
    client = Client().connected()
    position = {"positioned": True, "offset": 5, "epoch": "e"}
    both = {"positioned": True, "recoverable": True}
    assert client.subscribed("wish:a", top(5), **both) == position
    assert client.subscribed("wish:b", top(5)) == {}
    assert client.subscribed("back:a", top(5), **both) == {**position, "recoverable": True}
    assert client.subscribed("back:b", top(5), positioned=True) == {}


# --- recovery


def recovering(offset: int, epoch: str, channel: str = "recover:a", **more: Any) -> Subscription:
    """Make a subscription that asks to recover."""
    ask = StreamPosition(offset, epoch)
    options = NAMESPACES[channel.partition(":")[0]]
    return Subscription(channel, options, b"{}", recover=ask, recoverable=True, **more)


@pytest.mark.parametrize(
    ("offset", "epoch", "expected"),
    [
        (5, "e", None),
        (5, "", None),
        (3, "f", None),
        (3, "e", Read(3, 10, reverse=False)),
        (3, "", Read(3, 10, reverse=False)),
        (7, "e", Read(7, 10, reverse=False)),
        (0, "", Read(0, 10, reverse=False)),
    ],
)
def test_history_is_read_only_where_it_can_help(
    offset: int, epoch: str, expected: Read | None
) -> None:
    """A client at the top, or one of another epoch, costs no read."""
    assert recovering(offset, epoch).read(5, "e", 10) == expected


def test_too_much_missed_is_not_read() -> None:
    """More than the cap cannot be recovered."""
    assert recovering(3, "e").read(14, "e", 10) is None
    assert recovering(3, "e").read(13, "e", 10) == Read(3, 10, reverse=False)


def test_missed_publications_are_recovered() -> None:
    """All that was missed, and the offset that was asked for: the client counts on from it."""
    client = Client().connected()
    wish = {"recover": True, "offset": 3, "epoch": "e"}
    result = client.subscribed("recover:a", top(5, since=3), **wish)
    assert result == {
        "recoverable": True,
        "positioned": True,
        "recovered": True,
        "was_recovering": True,
        "offset": 3,
        "epoch": "e",
        "publications": [{"offset": 4, "data": 4}, {"offset": 5, "data": 5}],
    }


@pytest.mark.parametrize(
    "history",
    [
        top(5, since=4),
        top(5, epoch="f", since=3),
        History(9, "e", top(5, since=3).publications),
        top(5),
        top(2),
    ],
    ids=["first gone", "other epoch", "more than the cap", "all gone", "went back"],
)
def test_what_is_not_all_there_is_not_recovered(history: History) -> None:
    """Then there are no publications, and the position is the top."""
    client = Client().connected()
    result = client.subscribed("recover:a", history, recover=True, offset=3, epoch="e")
    assert "recovered" not in result
    assert result["was_recovering"]
    assert (result["offset"], result["epoch"]) == (history.offset, history.epoch)
    assert "publications" not in result or history.publications == []


def test_nothing_missed_is_recovered() -> None:
    """At the top: recovered, with no publications."""
    client = Client().connected()
    result = client.subscribed("recover:a", top(5), recover=True, offset=5, epoch="e")
    assert result["recovered"]
    assert "publications" not in result


def test_recovery_from_nothing_gives_everything() -> None:
    """Offset 0 and no epoch: all there is, if nothing was dropped."""
    client = Client().connected()
    result = client.subscribed("recover:a", top(2, since=0), recover=True)
    assert result["recovered"]
    assert len(result["publications"]) == 2


def test_client_may_refuse_to_start_with_a_gap() -> None:
    """Flag bit 2: error 112 in place of `recovered: false`."""
    client = Client().connected()
    wish = {"channel": "recover:a", "recover": True, "offset": 1, "epoch": "e", "flag": 3}
    client.say({"id": 2, "subscribe": wish})
    assert client.join(top(5, since=3)) == error(ErrorCode.UNRECOVERABLE_POSITION)
    assert client.session.subscriptions == {}


def test_whether_it_was_recovering_is_what_the_client_asked() -> None:
    """Also where there is nothing to recover from; or what the server asks in its place.

    That is only where the subscription is recoverable.
    """
    client = Client().connected()
    assert client.subscribed("open:a", top(1), recover=True) == {"was_recovering": True}
    assert "was_recovering" not in client.subscribed("recover:a", top(1))
    assert client.subscribed("latest:a", top(3, since=2)) == {
        "recoverable": True,
        "positioned": True,
        "recovered": True,
        "was_recovering": True,
        "epoch": "e",
        "publications": [{"offset": 3, "data": 3}],
    }


def test_latest_comes_with_the_connection() -> None:
    """The server asks for subscriptions that it makes itself, too."""
    client = Client()
    client.say({"id": 1, "connect": {"token": token(sub="u", channels=["latest:a"])}})
    (reply,) = client.join(top(3, since=2))
    assert reply["connect"]["subs"]["latest:a"]["publications"] == [{"offset": 3, "data": 3}]


def test_cache_mode_may_refuse_to_start_without_the_latest() -> None:
    """Flag bit 2: error 112, where there is nothing."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": "cache:a", "recover": True, "flag": 2}})
    assert client.join(top(0)) == error(ErrorCode.UNRECOVERABLE_POSITION)


def test_cache_mode_reads_the_latest() -> None:
    """Whatever the client has, it wants the latest, unless it has that."""
    assert recovering(0, "", "cache:a").read(5, "e", 10) == Read(None, 1, reverse=True)
    assert recovering(4, "e", "cache:a").read(5, "e", 10) == Read(None, 1, reverse=True)
    assert recovering(5, "e", "cache:a").read(5, "e", 10) is None


@pytest.mark.parametrize(
    ("wish", "history", "recovered", "count"),
    [
        ({}, top(5, since=4), True, 1),
        ({"offset": 2, "epoch": "old"}, top(5, since=4), True, 1),
        ({"offset": 5, "epoch": "e"}, top(5), True, 0),
        ({"offset": 5, "epoch": "old"}, top(5), False, 0),
        ({}, top(5), False, 0),
        ({}, top(0), False, 0),
        ({"epoch": "e"}, top(0), False, 0),
    ],
)
def test_cache_mode_gives_the_latest(
    wish: dict[str, Any], history: History, recovered: bool, count: int
) -> None:
    """Recovered where the client will have the latest publication, on which it counts on."""
    client = Client().connected()
    result = client.subscribed("cache:a", history, recover=True, **wish)
    assert result.get("recovered", False) is recovered
    assert len(result.get("publications", [])) == count
    assert result.get("offset", 0) == (wish.get("offset", 0) if recovered else history.offset)


# --- the race between reply and live publications


def start_recovering(client: Client) -> Subscription:
    """Begin a recovery from offset 3, and return the subscription before its reply."""
    wish = {"channel": "recover:a", "recover": True, "offset": 3, "epoch": "e"}
    client.say({"id": 2, "subscribe": wish})
    return client.session.subscriptions["recover:a"]


def test_live_publications_come_after_the_reply_without_repeats() -> None:
    """What comes while the history is read is held, and follows on what was recovered."""
    client = Client().connected()
    subscription = start_recovering(client)
    for early in (run(4, 5), run(6, 6), run(7, 8)):
        assert subscription.offer(early) is None
    reply, *pushes = client.join(top(6, since=3))
    assert [item["offset"] for item in reply["subscribe"]["publications"]] == [4, 5, 6]
    assert offsets(pushes) == [7, 8]
    assert subscription.offer(run(8, 9)) == run(9, 9)


def test_history_ahead_of_the_feed_repeats_nothing() -> None:
    """What the reply had already is dropped when the feed brings it."""
    client = Client().connected()
    subscription = start_recovering(client)
    client.join(top(6, since=3))
    assert subscription.offer(run(5, 6)) is None
    assert subscription.offer(run(6, 8)) == run(7, 8)


def test_hole_between_history_and_feed_closes() -> None:
    """A hole in the merge: 3010, and the client comes back to recover."""
    client = Client().connected()
    subscription = start_recovering(client)
    subscription.offer(run(8, 8))
    client.join(top(6, since=3))
    assert client.closed == 3010


def test_loss_while_joining_closes() -> None:
    """The hub lost publications before the reply was made: 3010."""
    client = Client().connected()
    start_recovering(client).lose()
    client.join(top(6, since=3))
    assert client.closed == 3010


def test_held_publications_are_limited() -> None:
    """More than the limit while the history is read: 3010, nothing kept."""
    client = Client().connected()
    subscription = start_recovering(client)
    subscription.offer((4, [b"x" * HELD_BYTES_MAX, b"x"]))
    client.join(top(3))
    assert client.closed == 3010


def test_joins_come_after_the_reply_and_publications() -> None:
    """On the wire: reply, publications, join."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": "open:a", "join_leave": True}})
    subscription = client.session.subscriptions["open:a"]
    assert subscription.pushes_joins
    assert subscription.offer_join(Join(Raw(b'{"user":"u","client":"c"}'))) is None
    subscription.offer(run(1, 1))
    reply, publication, join = client.join(top(0))
    assert "subscribe" in reply
    assert "pub" in publication["push"]
    assert join["push"]["join"] == {"info": {"user": "u", "client": "c"}}


@given(
    st.integers(0, 6),
    st.integers(0, 6),
    st.lists(st.integers(1, 3), max_size=6),
    st.integers(0, 6),
)
def test_no_gap_and_no_repeat_whenever_the_history_is_read(
    asked: int, behind: int, sizes: list[int], read_after: int
) -> None:
    """However feed and history interleave, the client gets each offset once, in order."""
    registered_at = asked + behind
    runs, last = [], registered_at
    for size in sizes:
        runs.append(run(last + 1, last + size))
        last += size
    # The history is read when some of the runs, not all yet seen by the hub, are committed.
    committed = [registered_at, *(first + len(bodies) - 1 for first, bodies in runs)]
    history = top(committed[min(read_after, len(runs))], since=asked)
    for replied_after in range(len(runs) + 1):
        client = Client().connected()
        client.say(
            {"id": 2, "subscribe": {"channel": "recover:a", "recover": True, "offset": asked}}
        )
        subscription = client.session.subscriptions["recover:a"]
        for early in runs[:replied_after]:
            assert subscription.offer(early) is None
        reply, *pushes = client.join(history)
        got = [item["offset"] for item in reply["subscribe"].get("publications", [])]
        got += offsets(pushes)
        for late in runs[replied_after:]:
            if (rest := subscription.offer(late)) is not None:
                got += range(rest[0], rest[0] + len(rest[1]))
        assert got == list(range(asked + 1, max(last, history.offset) + 1))


# --- the other commands


def test_unsubscribe_answers_when_others_see_it_gone() -> None:
    """The reply waits for the leave; nothing is pushed to the caller."""
    client = Client().connected()
    client.subscribed("open:a", top(0))
    assert client.say({"id": 3, "unsubscribe": {"channel": "open:a"}}) == []
    client.session.answer(client.ask(AskLeave), UnsubscribeResult(), client.now)
    assert client.heard() == [{"id": 3, "unsubscribe": {}}]
    assert client.say({"id": 4, "unsubscribe": {"channel": "open:a"}}) == [
        {"id": 4, "unsubscribe": {}}
    ]


def test_publish_is_signed_with_the_client() -> None:
    """The publication carries who published it; the reply comes after the commit."""
    client = Client().connected(info={"name": "Mary"})
    assert client.say({"id": 2, "publish": {"channel": "open:a", "data": {"x": 1}}}) == []
    ask = client.ask(AskPublish)
    assert (ask.channel, ask.data) == ("open:a", b'{"x": 1}')
    assert ask.meta.info == {"user": "u", "client": "id", "conn_info": {"name": "Mary"}}
    client.session.answer(ask, PublishResult(), client.now)
    assert client.heard() == [{"id": 2, "publish": {}}]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "closed:a", "data": 1}, ErrorCode.PERMISSION_DENIED),
        ({"channel": "what:a", "data": 1}, ErrorCode.UNKNOWN_CHANNEL),
        ({"channel": "open:a"}, ErrorCode.BAD_REQUEST),
        ({"channel": "closed:a"}, ErrorCode.BAD_REQUEST),
    ],
)
def test_publish_is_refused(request_: dict[str, Any], code: ErrorCode) -> None:
    """Each reason has its error."""
    client = Client().connected()
    assert client.say({"id": 2, "publish": request_}) == error(code)


def test_publishes_overlap_up_to_a_limit() -> None:
    """Several may be under way, and answered in any order; the one too many waits."""
    client = Client().connected()
    frame = [
        {"id": number, "publish": {"channel": "open:a", "data": number}}
        for number in range(2, PUBLISHES_MAX + 3)
    ]
    client.say(*frame)
    asks = client.session.take_asks()
    assert [ask.id for ask in asks] == list(range(2, PUBLISHES_MAX + 2))
    assert client.session.busy
    client.session.failed(asks[-1], ErrorCode.TOO_MANY_REQUESTS, client.now)
    assert client.heard() == error(ErrorCode.TOO_MANY_REQUESTS, asks[-1].id)
    assert client.ask(AskPublish).id == PUBLISHES_MAX + 2
    assert not client.session.busy


@pytest.mark.parametrize(
    ("request_", "since", "limit", "reverse"),
    [
        ({}, None, 0, False),
        ({"limit": 5}, None, 5, False),
        ({"limit": -1}, None, 300, False),
        ({"limit": 1000}, None, 300, False),
        ({"limit": 2**31 - 1}, None, 300, False),
        ({"limit": 5, "since": {}}, 0, 5, False),
        ({"limit": 5, "since": {"offset": 7}, "reverse": True}, 7, 5, True),
    ],
)
def test_history_is_asked_for(
    request_: dict[str, Any], since: int | None, limit: int, reverse: bool
) -> None:
    """Limit 0 is the position alone, below 0 as much as may be; more is cut down."""
    client = Client().connected()
    client.say({"id": 2, "history": {"channel": "open:a", **request_}})
    ask = client.ask(AskHistory)
    assert (ask.since, ask.limit, ask.reverse) == (since, limit, reverse)


def test_history_result_has_position_and_publications() -> None:
    """Publications with their offsets; the epoch asked for must be the stream's."""
    client = Client().connected()
    since = {"offset": 1, "epoch": "e"}
    client.say({"id": 2, "history": {"channel": "open:a", "limit": 9, "since": since}})
    ask = client.ask(AskHistory)
    client.session.answer(ask, ask.result(top(2, since=1)), client.now)
    assert client.heard() == [
        {
            "id": 2,
            "history": {"publications": [{"offset": 2, "data": 2}], "epoch": "e", "offset": 2},
        }
    ]
    with pytest.raises(Exception, match=r"112|UNRECOVERABLE"):
        ask.result(top(2, epoch="f"))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "plain:a"}, ErrorCode.NOT_AVAILABLE),
        ({"channel": "closed:a"}, ErrorCode.PERMISSION_DENIED),
        ({"channel": "what:a"}, ErrorCode.UNKNOWN_CHANNEL),
        ({"channel": "open:a", "since": {}, "reverse": True}, ErrorCode.BAD_REQUEST),
    ],
)
def test_history_is_refused(request_: dict[str, Any], code: ErrorCode) -> None:
    """No history comes before no permission."""
    client = Client().connected()
    assert client.say({"id": 2, "history": request_}) == error(code)


@pytest.mark.parametrize("method", ["presence", "presence_stats"])
def test_presence_is_refused(method: str) -> None:
    """No presence comes before no permission."""
    client = Client().connected()
    for channel, code in [
        ("plain:a", ErrorCode.NOT_AVAILABLE),
        ("closed:a", ErrorCode.PERMISSION_DENIED),
        ("what:a", ErrorCode.UNKNOWN_CHANNEL),
    ]:
        assert client.say({"id": 2, method: {"channel": channel}}) == error(code)


def test_presence_is_answered() -> None:
    """Who is there, and how many, in the order of the commands."""
    client = Client().connected()
    client.say(
        {"id": 2, "presence": {"channel": "open:a"}},
        {"id": 3, "presence_stats": {"channel": "open:a"}},
    )
    result = PresenceResult({"x": Raw(b'{"user":"u","client":"x"}')})
    client.session.answer(client.ask(AskPresence), result, client.now)
    assert client.heard() == [
        {"id": 2, "presence": {"presence": {"x": {"user": "u", "client": "x"}}}}
    ]
    assert client.ask(AskStats).id == 3


@pytest.mark.parametrize("method", ["publish", "unsubscribe", "history", "presence"])
def test_empty_channel_is_a_bad_request(method: str) -> None:
    """A command without its channel: 3501."""
    client = Client().connected()
    client.say({"id": 2, method: {}})
    assert client.closed == 3501


def test_there_is_no_rpc_no_send_and_no_ping() -> None:
    """Nothing handles rpc: 108. Nothing takes send: 3508. Clients do not ping: 3501."""
    client = Client().connected()
    assert client.say({"id": 2, "rpc": {"method": "m"}}) == error(ErrorCode.NOT_AVAILABLE)
    client.say({"send": {"data": 1}})
    assert client.closed == 3508
    client = Client().connected()
    client.say({"id": 2, "ping": {}})
    assert client.closed == 3501


# --- ends


def test_lost_position_ends_a_subscription() -> None:
    """A client-side one: unsubscribe 2500, and the client subscribes again by itself."""
    client = Client().connected()
    client.subscribed("recover:a", top(5))
    subscription = client.session.subscriptions["recover:a"]
    assert client.session.drop(subscription, UnsubscribeCode.INSUFFICIENT_STATE)
    (push,) = client.heard()
    assert push["push"]["unsubscribe"] == {"code": 2500, "reason": "insufficient state"}
    assert client.closed is None
    assert not client.session.drop(subscription, UnsubscribeCode.INSUFFICIENT_STATE)
    assert client.heard() == []


def test_lost_position_of_a_server_side_subscription_closes() -> None:
    """A server-side one: 3010, as it lasts as long as the connection."""
    client = Client().connected(channels=["recover:a"])
    subscription = client.session.subscriptions["recover:a"]
    assert not client.session.drop(subscription, UnsubscribeCode.INSUFFICIENT_STATE)
    assert client.closed == 3010


def test_closed_session_is_silent() -> None:
    """After a close nothing is asked, answered or due; the first reason stays."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": "open:a"}})
    ask = client.ask(AskJoin)
    client.session.shut(DisconnectCode.SHUTDOWN)
    client.session.shut(DisconnectCode.SLOW)
    client.session.joined(ask, [top(0)], client.now)
    assert client.say({"id": 3, "rpc": {}}) == []
    assert client.wait(1000) == []
    assert client.session.take_asks() == []
    assert client.closed == 3001


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"{}", b'{"id":3,"rpc":{}}'])))
def test_no_frames_raise(frames: list[bytes]) -> None:
    """Whatever comes, the session answers or closes."""
    client = Client().connected()
    for frame in frames:
        client.session.receive(frame, client.now)
    assert client.closed in (None, 3501, 3508)


# --- one way


def test_one_way_client_connects_and_never_pongs() -> None:
    """The first message is a bare connect push with a session id; pings need no answer."""
    client = Client(one_way=True, place=Place(session="secret"))
    wishes = {"open:a": Subscribe()}
    client.session.connect(Connect(token=token(sub="u"), subs=wishes), client.now)
    (push,) = client.join(top(0))
    assert push == {
        "connect": {"client": "id", "subs": {"open:a": {}}, "ping": 25, "session": "secret"}
    }
    assert client.wait(25) == [{}]
    assert client.wait(24) == []
    assert client.closed is None


def test_one_way_client_is_told_errors_as_closes() -> None:
    """Expired token: 3005. A channel it cannot have: 3004. No grace without a refresh."""
    client = Client(one_way=True)
    client.session.connect(Connect(token=token(exp=NOW_S - 1)), client.now)
    assert client.closed == 3005
    client = Client(one_way=True)
    client.session.connect(Connect(token=token(channels=["what:a"])), client.now)
    assert client.closed == 3004
    client = Client(one_way=True)
    client.session.connect(Connect(token=token(exp=NOW_S + 5)), client.now)
    client.join()
    client.wait(5)
    assert client.closed == 3005
