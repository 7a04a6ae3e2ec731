"""Sessions in which functions decide: what is asked, what follows, and in which order."""

import json
from typing import Any

import jwt
import pytest
from msgspec import Raw
from pydantic import SecretStr

from actors.settings.authorise import AuthoriseSettings
from actors.settings.client import ClientSettings
from actors.settings.tree import AuthSettings, ChannelSettings, Settings
from actors.store.interface import History
from serve.auth.access import Access
from serve.auth.tokens import Claims, Grant
from serve.authorise import ConnectRequest, PublishRequest, RpcRequest, SubscribeRequest
from serve.authorise.ruling import Publishable, Ruling
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import (
    Close,
    Connect,
    ErrorCode,
    OwnError,
    PublishResult,
    RpcResult,
    Subscribe,
)
from serve.session.approach import Approach
from serve.session.asks import AskJoin, AskPublish, AskRuling
from serve.session.authorised import AuthorisedSession
from serve.session.session import State
from tests.session_client import SessionClient

SECRET = "a secret that is long enough for HS256"
NOW_S = 1_800_000_000.0
OPEN = ChannelSettings(allow_subscribe_for_client=True, allow_publish_for_client=True)
ASKS = OPEN.model_copy(
    update={
        "authorise_subscribe": True,
        "authorise_publish": True,
        "allow_user_limited_channels": True,
    }
)
FUNCTIONS = {name: f"rules:{name}" for name in ("connect", "subscribe", "publish", "rpc")}
ANN = Claims(user="ann", info={"n": 1}, meta={"rooms": [1]}, by_function=True)
EMPTY = History(0, "", [])
DENIED = OwnError(403, 'say "please"', temporary=False)


class Client(SessionClient[AuthorisedSession]):
    """A session, and what a test does with it."""

    def __init__(
        self,
        *,
        one_way: bool = False,
        functions: dict[str, str] = FUNCTIONS,
        **limits: Any,
    ) -> None:
        settings = Settings(
            client=ClientSettings(**limits),
            auth=AuthSettings(token_secret=SecretStr(SECRET)),
            authorise=AuthoriseSettings.model_validate(functions),
            namespaces={"open": OPEN, "asks": ASKS} if "publish" in functions else {"open": OPEN},
        )
        self.session = AuthorisedSession(
            "id",
            Access(settings, wall=lambda: NOW_S),
            ONE_WAY_JSON if one_way else JSON,
            now=self.now,
            one_way=one_way,
            approach=Approach("websocket", {"cookie": "a=b"}),
        )

    def say(self, *commands: dict[str, Any]) -> list[Any]:
        """Send commands in one frame; return what is answered at once."""
        self.session.receive("\n".join(map(json.dumps, commands)).encode(), self.now)
        return self.heard()

    def rule(self, ruling: Ruling) -> list[Any]:
        """Answer the question that is asked; return what the client hears."""
        self.session.ruled(self.ask(AskRuling), ruling, self.now)
        return self.heard()

    def join(self, *histories: History) -> list[Any]:
        """Answer the join that is asked for."""
        self.session.joined(self.ask(AskJoin), histories, self.now)
        return self.heard()

    def connected(self, claims: Claims = ANN) -> "Client":
        """Connect as the function says."""
        assert self.say({"id": 1, "connect": {}}) == []
        self.rule(claims)
        (reply,) = self.join(*[EMPTY] * len(claims.channels))
        assert "connect" in reply
        return self


def error(code: ErrorCode, command_id: int = 2) -> list[Any]:
    return [json.loads(JSON.error(command_id, code))]


def token(**claims: Any) -> str:
    return jwt.encode(claims, SECRET, algorithm="HS256")


# --- connect


def test_function_sees_how_a_client_came() -> None:
    """Headers of the request and of the command apart, names in lower case."""
    client = Client()
    wish = {"headers": {"X-Session": "s"}, "data": {"a": 1}, "name": "js", "version": "5"}
    assert client.say({"id": 1, "connect": wish}) == []
    assert client.ask(AskRuling).request == ConnectRequest(
        client="id",
        headers={"cookie": "a=b"},
        sent_headers={"x-session": "s"},
        data={"a": 1},
        name="js",
        version="5",
        transport="websocket",
    )


def test_function_says_who_a_client_is() -> None:
    """User, info and meta for later questions, data for the client, subscriptions by the server."""
    client = Client()
    client.say({"id": 1, "connect": {}})
    grant = Grant(info="i", data=Raw(b"5"), by_function=True)
    claims = Claims(
        user="ann", info=1, meta=2, channels={"open:a": grant}, data=Raw(b'"hi"'), by_function=True
    )
    assert client.rule(claims) == []
    (reply,) = client.join(EMPTY)
    assert reply["connect"]["data"] == "hi"
    assert reply["connect"]["subs"] == {"open:a": {"data": 5}}
    info = json.loads(client.session.subscriptions["open:a"].info)
    assert info == {"user": "ann", "client": "id", "conn_info": 1, "chan_info": "i"}
    client.say({"id": 2, "rpc": {"method": "m"}})
    assert client.ask(AskRuling).request == RpcRequest(
        client="id", user="ann", info=1, meta=2, transport="websocket", method="m"
    )


def test_token_is_judged_alone() -> None:
    """The function is asked only about clients without one, and never about a bad one."""
    client = Client()
    client.say({"id": 1, "connect": {"token": token(sub="bob")}})
    assert client.join() != []
    assert client.session.user == "bob"
    client = Client()
    client.say({"id": 1, "connect": {"token": "bad"}})
    assert client.closed == 3500


def test_without_a_function_a_client_needs_a_token() -> None:
    """As before."""
    client = Client(functions={})
    client.say({"id": 1, "connect": {}})
    assert client.closed == 3501


def test_anonymous_clients_are_asked_about_too() -> None:
    """Settings that would let them in do not count: the function decides."""
    client = Client(allow_anonymous=True, insecure=True)
    assert client.say({"id": 1, "connect": {}}) == []
    client.ask(AskRuling)


def test_refused_client_hears_why() -> None:
    """An error of the user's own, after which nothing more is taken."""
    client = Client()
    client.say({"id": 1, "connect": {}})
    own = {"code": 403, "message": 'say "please"'}
    assert client.rule(DENIED) == [{"id": 1, "error": own}]
    assert client.session.state is State.FAILED
    client.say({"id": 2, "rpc": {}})
    assert client.closed == 3501


def test_function_may_end_the_connection() -> None:
    """With a code of the user's own."""
    client = Client()
    client.say({"id": 1, "connect": {}})
    assert client.rule(Close(4501, "log in first")) == []
    assert client.session.close == Close(4501, "log in first")


def test_failed_function_lets_the_client_try_again() -> None:
    """Error 100, temporary."""
    client = Client()
    client.say({"id": 1, "connect": {}})
    client.session.failed(client.ask(AskRuling), ErrorCode.INTERNAL_SERVER_ERROR, client.now)
    (reply,) = client.heard()
    assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
    assert client.session.state is State.FAILED


@pytest.mark.parametrize(
    ("ruling", "code"),
    [
        (ErrorCode.INTERNAL_SERVER_ERROR, 3004),
        (ErrorCode.TOO_MANY_REQUESTS, 3013),
        (OwnError(103, "no", temporary=False), 3507),
        (DENIED, 3004),
        (Close(4501, "x"), 4501),
    ],
)
def test_one_way_client_is_told_by_a_close(ruling: Ruling, code: int) -> None:
    """It knows no errors."""
    client = Client(one_way=True)
    client.session.connect(Connect(), client.now)
    client.rule(ruling)
    assert client.closed == code


def test_wishes_in_the_connect_request_are_not_asked_about() -> None:
    """Only what the settings alone allow is had so."""
    client = Client(one_way=True)
    wishes = {"open:a": Subscribe(), "asks:a": Subscribe(), "asks:#ann": Subscribe()}
    client.session.connect(Connect(subs=wishes), client.now)
    client.rule(ANN)
    (reply,) = client.join(EMPTY, EMPTY)
    assert set(reply["connect"]["subs"]) == {"open:a", "asks:#ann"}


def test_unknown_channel_of_the_function_is_an_error() -> None:
    """102, as with a token."""
    client = Client()
    client.say({"id": 1, "connect": {}})
    ruling = Claims(channels={"none:a": Grant()}, by_function=True)
    assert client.rule(ruling) == error(ErrorCode.UNKNOWN_CHANNEL, 1)


def test_client_connects_anew_when_its_time_is_up() -> None:
    """It is not told when, as it could do nothing about it; so there is no grace, either."""
    client = Client(ping_interval_s=1000)
    client.say({"id": 1, "connect": {}})
    client.rule(Claims(user="ann", ttl_s=60, by_function=True))
    (reply,) = client.join()
    assert {"expires", "ttl"}.isdisjoint(reply["connect"])
    assert client.session.deadline() == client.now + 60
    client.wait(60)
    assert client.closed == 3005


def test_client_of_a_function_does_not_refresh() -> None:
    """3501: the server does."""
    client = Client().connected()
    client.say({"id": 2, "refresh": {"token": token(sub="ann")}})
    assert client.closed == 3501


def test_stale_client_is_closed_while_its_function_runs() -> None:
    """The answer that comes then changes nothing."""
    client = Client()
    client.say({"id": 1, "connect": {}})
    ask = client.ask(AskRuling)
    client.wait(10)
    assert client.closed == 3502
    client.session.ruled(ask, ANN, client.now)
    assert client.heard() == []
    assert client.session.take_asks() == []


# --- subscribe


def test_function_decides_who_subscribes() -> None:
    """It sees who, where and with which data; gives info and data, and what holds otherwise."""
    client = Client().connected()
    assert client.say({"id": 2, "subscribe": {"channel": "asks:a", "data": [1]}}) == []
    ask = client.ask(AskRuling)
    assert ask.request == SubscribeRequest(
        client="id",
        user="ann",
        info={"n": 1},
        meta={"rooms": [1]},
        transport="websocket",
        channel="asks:a",
        data=[1],
    )
    grant = Grant(info="i", data=Raw(b"5"), override={"presence": True}, by_function=True)
    client.session.ruled(ask, grant, client.now)
    assert client.join(EMPTY) == [{"id": 2, "subscribe": {"data": 5}}]
    subscription = client.session.subscriptions["asks:a"]
    assert subscription.options.presence
    assert json.loads(subscription.info)["chan_info"] == "i"


def test_what_a_function_gets_is_a_copy() -> None:
    """Whatever it does to it, later questions have what the connect function gave."""
    client = Client().connected()
    client.say({"id": 2, "rpc": {}})
    ask = client.ask(AskRuling)
    assert isinstance(ask.request, RpcRequest)
    ask.request.meta["rooms"].append(2)
    client.session.ruled(ask, RpcResult(), client.now)
    client.say({"id": 3, "rpc": {}})
    assert client.ask(AskRuling).request.meta == {"rooms": [1]}  # type: ignore[union-attr] # of rpc


@pytest.mark.parametrize(
    "channel", ["open:a", "asks:#ann", "asks:b#bob,ann"], ids=["other", "own", "limited"]
)
def test_what_needs_no_question_is_not_asked(channel: str) -> None:
    """Namespaces that ask nothing; channels limited to users, of whom this is one."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": channel}})
    client.join(EMPTY)


def test_subscription_token_comes_first() -> None:
    """A valid one is enough; a bad one is not made good by the function."""
    client = Client().connected()
    good = token(sub="ann", channel="asks:a")
    client.say({"id": 2, "subscribe": {"channel": "asks:a", "token": good}})
    client.join(EMPTY)
    bad = {"channel": "asks:b", "token": "bad"}
    assert client.say({"id": 3, "subscribe": bad}) == error(ErrorCode.PERMISSION_DENIED, 3)


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("$asks:a", ErrorCode.PERMISSION_DENIED),
        ("asks:#bob", ErrorCode.PERMISSION_DENIED),
        ("none:a", ErrorCode.UNKNOWN_CHANNEL),
        ("asks:" + "a" * 255, ErrorCode.BAD_REQUEST),
        ("open:had", ErrorCode.ALREADY_SUBSCRIBED),
    ],
)
def test_what_cannot_be_is_refused_without_asking(channel: str, code: ErrorCode) -> None:
    """Neither are channels for a token only, or for others."""
    client = Client().connected()
    client.say({"id": 9, "subscribe": {"channel": "open:had"}})
    client.join(EMPTY)
    assert client.say({"id": 2, "subscribe": {"channel": channel}}) == error(code)
    assert client.session.take_asks() == []


def test_refused_subscription_is_not_there() -> None:
    """And may be asked for again."""
    client = Client().connected()
    for _ in range(2):
        client.say({"id": 2, "subscribe": {"channel": "asks:a"}})
        (reply,) = client.rule(DENIED)
        assert reply["error"]["code"] == 403
    assert not client.session.subscriptions


def test_channel_that_came_meanwhile_is_not_had_twice() -> None:
    """The server API may subscribe a client while its function runs."""
    client = Client(channels_max=1).connected()
    client.say({"id": 2, "subscribe": {"channel": "asks:a"}})
    ask = client.ask(AskRuling)
    client.session.subscriptions["asks:a"] = client.session._client.granted(
        Subscribe("asks:a"), Grant()
    )
    client.session.ruled(ask, Grant(by_function=True), client.now)
    assert client.heard() == error(ErrorCode.ALREADY_SUBSCRIBED)


def test_wrong_request_is_refused_unasked() -> None:
    """A `delta` that is unknown is not of the protocol."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": "asks:a", "delta": "x"}})
    assert client.session.take_asks() == []
    assert client.closed == 3501


def test_subscription_by_a_function_cannot_be_refreshed() -> None:
    """By no token: its time is for the function to say."""
    client = Client().connected()
    client.say({"id": 2, "subscribe": {"channel": "asks:a"}})
    client.rule(Grant(by_function=True))
    client.join(EMPTY)
    client.say({"id": 3, "sub_refresh": {"channel": "asks:a", "token": "t"}})
    assert client.closed == 3501


def test_subscription_is_made_anew_when_its_time_is_up() -> None:
    """The client is not told when, and comes back by itself after 2501."""
    client = Client(ping_interval_s=1000).connected()
    client.say({"id": 2, "subscribe": {"channel": "asks:a"}})
    client.rule(Grant(ttl_s=60, by_function=True))
    assert client.join(EMPTY) == [{"id": 2, "subscribe": {}}]
    (push,) = client.wait(60)
    assert push["push"]["unsubscribe"]["code"] == 2501
    client.say({"id": 3, "subscribe": {"channel": "asks:a"}})
    client.ask(AskRuling)


# --- publish


def test_function_alone_decides_who_publishes() -> None:
    """Also where the settings would allow it, or would not."""
    client = Client(insecure=True).connected()
    assert client.say({"id": 2, "publish": {"channel": "asks:a", "data": {"t": 1}}}) == []
    ask = client.ask(AskRuling)
    assert isinstance(ask.request, PublishRequest)
    assert (ask.request.channel, ask.request.data) == ("asks:a", {"t": 1})
    client.session.ruled(ask, Publishable(None), client.now)
    publish = client.ask(AskPublish)
    assert (publish.channel, publish.data) == ("asks:a", b'{"t": 1}')
    assert publish.meta.info == {"user": "ann", "client": "id", "conn_info": {"n": 1}}
    client.session.answer(publish, PublishResult(), client.now)
    assert client.heard() == [{"id": 2, "publish": {}}]


def test_function_may_change_what_is_published() -> None:
    """The publisher is told nothing of it."""
    client = Client().connected()
    client.say({"id": 2, "publish": {"channel": "asks:a", "data": 1}})
    client.rule(Publishable(b'"other"'))
    assert client.ask(AskPublish).data == b'"other"'


def test_refused_publication_goes_nowhere() -> None:
    """The client hears why."""
    client = Client().connected()
    client.say({"id": 2, "publish": {"channel": "asks:a", "data": 1}})
    (reply,) = client.rule(DENIED)
    assert reply["error"]["code"] == 403
    assert client.session.take_asks() == []


def test_nothing_is_not_published() -> None:
    """107, without asking; the same where no function is asked."""
    client = Client().connected()
    for channel in ("asks:a", "open:a"):
        reply = client.say({"id": 2, "publish": {"channel": channel}})
        assert reply == error(ErrorCode.BAD_REQUEST)
    assert client.session.take_asks() == []


# --- rpc, and the order of commands


def test_function_answers_calls() -> None:
    """With data, or with none; an empty result keeps its key."""
    client = Client().connected()
    client.say({"id": 2, "rpc": {"method": "m", "data": 3}})
    ask = client.ask(AskRuling)
    assert isinstance(ask.request, RpcRequest)
    assert (ask.request.method, ask.request.data) == ("m", 3)
    client.session.ruled(ask, RpcResult(Raw(b'{"a":1}')), client.now)
    assert client.heard() == [{"id": 2, "rpc": {"data": {"a": 1}}}]
    client.say({"id": 3, "rpc": {}})
    assert client.rule(RpcResult()) == [{"id": 3, "rpc": {}}]


def test_without_a_function_calls_are_not_available() -> None:
    """108."""
    client = Client(functions={"connect": "rules:connect"}).connected()
    assert client.say({"id": 2, "rpc": {"method": "m"}}) == error(ErrorCode.NOT_AVAILABLE)


def test_unknown_method_is_for_the_function_to_tell() -> None:
    """104, in the words of the protocol."""
    client = Client().connected()
    client.say({"id": 2, "rpc": {"method": "none"}})
    assert client.rule(ErrorCode.METHOD_NOT_FOUND) == error(ErrorCode.METHOD_NOT_FOUND)


def test_commands_wait_for_what_is_being_decided() -> None:
    """They take effect in the order in which they came."""
    client = Client().connected()
    said = client.say(
        {"id": 2, "publish": {"channel": "asks:a", "data": 1}},
        {"id": 3, "publish": {"channel": "open:a", "data": 2}},
        {"id": 4, "rpc": {}},
        {"id": 5, "unsubscribe": {"channel": "open:b"}},
    )
    assert said == []
    assert client.session.busy
    client.session.ruled(client.ask(AskRuling), Publishable(None), client.now)
    first, second, call = client.session.take_asks()
    assert isinstance(first, AskPublish)
    assert isinstance(second, AskPublish)
    assert isinstance(call, AskRuling)
    assert (first.id, second.id, call.id) == (2, 3, 4)
    assert client.heard() == []
    client.session.ruled(call, RpcResult(), client.now)
    assert client.heard() == [{"id": 4, "rpc": {}}, {"id": 5, "unsubscribe": {}}]


def test_ping_may_be_answered_late_while_commands_wait() -> None:
    """The client's frames are not read then, so its answer cannot be."""
    client = Client(ping_interval_s=25, pong_timeout_s=8).connected()
    client.say({"id": 2, "rpc": {}}, {"id": 3, "rpc": {}})
    assert client.wait(25) == [{}]
    client.wait(8)
    client.wait(8)
    assert client.closed is None
    client.rule(RpcResult())
    assert not client.session.busy
    client.wait(7.9)
    assert client.closed is None
    client.wait(0.1)
    assert client.closed == 3012


def test_send_has_nobody_to_take_it() -> None:
    """3508."""
    client = Client().connected()
    client.say({"send": {"data": 1}})
    assert client.closed == 3508


def test_answer_after_the_end_changes_nothing() -> None:
    """Of a client that went while its function ran."""
    client = Client().connected()
    client.say({"id": 2, "publish": {"channel": "asks:a", "data": 1}}, {"id": 3, "rpc": {}})
    ask = client.ask(AskRuling)
    client.session.shut(Close(3000, "gone"))
    client.session.ruled(ask, Publishable(None), client.now)
    assert client.session.take_asks() == []
    assert client.heard() == []
