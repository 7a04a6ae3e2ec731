"""Sessions that functions prolong: what is asked when a time is up, and what follows."""

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
from serve.authorise import RefreshRequest, RpcRequest, SubRefreshRequest
from serve.authorise.ruling import Prolonged, Ruling
from serve.directives.directive import RefreshClients
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import (
    Close,
    Connect,
    ErrorCode,
    OwnError,
    RpcResult,
    UnsubscribeResult,
)
from serve.session.approach import Approach
from serve.session.asks import AskJoin, AskLeave, AskRefresh, AskRuling
from serve.session.directed import DirectedSession
from tests.session_client import SessionClient

SECRET = "a secret that is long enough for HS256"
NOW_S = 1_800_000_000.0
NAMESPACES = {
    "open": ChannelSettings(allow_subscribe_for_client=True),
    "asks": ChannelSettings(authorise_subscribe=True),
}
ALL = ("connect", "subscribe", "rpc", "refresh", "sub_refresh")
ANN = Claims(user="ann", ttl_s=60, info={"n": 1}, meta={"rooms": [1]}, by_function=True)
DENIED = OwnError(103, "permission denied", temporary=False)
HOW: dict[str, Any] = {"client": "id", "user": "ann", "transport": "websocket"}
WHO: dict[str, Any] = {**HOW, "info": {"n": 1}, "meta": {"rooms": [1]}}


class Client(SessionClient[DirectedSession]):
    """A session with a clock; pings are out of the way."""

    def __init__(self, *functions: str, one_way: bool = False) -> None:
        given = {name: f"rules:{name}" for name in functions or ALL}
        settings = Settings(
            client=ClientSettings(ping_interval_s=10_000, allow_anonymous=True),
            auth=AuthSettings(token_secret=SecretStr(SECRET)),
            authorise=AuthoriseSettings.model_validate(given),
            namespaces=NAMESPACES if "subscribe" in given else {},
        )
        self.session = DirectedSession(
            "id",
            Access(settings, wall=lambda: NOW_S + self.now - 100),
            ONE_WAY_JSON if one_way else JSON,
            now=self.now,
            one_way=one_way,
            approach=Approach("websocket"),
        )

    def say(self, **command: Any) -> list[Any]:
        """Send a command; return what is answered at once."""
        self.session.receive(json.dumps(command).encode(), self.now)
        return self.heard()

    def join(self) -> list[Any]:
        """Answer the join that is asked for."""
        ask = self.ask(AskJoin)
        self.session.joined(ask, [History(0, "", [])] * len(ask.subscriptions), self.now)
        return self.heard()

    def connected(self, claims: Claims = ANN) -> "Client":
        """Connect as the function says."""
        self.say(id=1, connect={})
        self.session.ruled(self.ask(AskRuling), claims, self.now)
        self.join()
        return self

    def subscribed(self, ttl_s: float | None = 60) -> "Client":
        """Connect without an end, and subscribe as the function says."""
        self.connected(Claims(user="ann", info={"n": 1}, meta={"rooms": [1]}, by_function=True))
        self.say(id=2, subscribe={"channel": "asks:a"})
        grant = Grant(info="guest", ttl_s=ttl_s, by_function=True)
        self.session.ruled(self.ask(AskRuling), grant, self.now)
        self.join()
        return self

    def prolong(self, ruling: Ruling) -> list[Any]:
        """Answer the question that is asked; return what the client hears."""
        self.session.prolonged(self.ask(AskRefresh), ruling, self.now)
        return self.heard()

    def fail(self) -> None:
        """Let the function fail that is asked."""
        self.session.failed(self.ask(AskRefresh), ErrorCode.INTERNAL_SERVER_ERROR, self.now)

    def info_in(self, channel: str) -> Any:
        """Return what others see of the client in a channel."""
        return json.loads(self.session.subscriptions[channel].info)


def token(**claims: Any) -> str:
    return jwt.encode(claims, SECRET, algorithm="HS256")


# --- the connection


def test_function_is_asked_when_the_time_of_a_connection_is_up() -> None:
    """Not before, and once. Until it answers the connection goes on."""
    client = Client().connected()
    client.wait(59.9)
    assert client.session.take_asks() == []
    client.wait(0.1)
    assert client.ask(AskRefresh).request == RefreshRequest(**WHO)
    client.wait(1_000)
    assert client.session.take_asks() == []
    assert client.closed is None


def test_connection_goes_on_until_its_new_time() -> None:
    """The client hears nothing of it; then the function is asked again."""
    client = Client().connected()
    client.wait(60)
    assert client.prolong(Prolonged({"ttl_s": 30})) == []
    assert client.session.deadline() == client.now + 30
    client.wait(30)
    client.ask(AskRefresh)
    assert client.closed is None


def test_connection_may_go_on_for_ever() -> None:
    """And then nobody is asked any more."""
    client = Client().connected()
    client.wait(60)
    client.prolong(Prolonged({"ttl_s": None}))
    client.wait(9_000)
    assert client.session.take_asks() == []
    assert client.closed is None


def test_new_info_and_meta_count_from_then_on() -> None:
    """For later questions, and for what others see of the client."""
    client = Client().connected()
    client.say(id=2, subscribe={"channel": "open:a"})
    client.join()
    client.wait(60)
    client.prolong(Prolonged({"ttl_s": 30, "info": {"n": 2}, "meta": None}))
    assert client.info_in("open:a")["conn_info"] == {"n": 2}
    client.say(id=3, rpc={"method": "m"})
    asked = RpcRequest(info={"n": 2}, meta=None, method="m", **HOW)
    assert client.ask(AskRuling).request == asked


@pytest.mark.parametrize("ruling", [DENIED, ErrorCode.EXPIRED])
def test_connection_that_is_not_prolonged_has_expired(ruling: Ruling) -> None:
    """3005: the client comes again."""
    client = Client().connected()
    client.wait(60)
    client.prolong(ruling)
    assert client.closed == 3005


def test_function_may_end_the_connection_in_its_own_words() -> None:
    """As anywhere."""
    client = Client().connected()
    client.wait(60)
    client.prolong(Close(4500, "go"))
    assert client.session.close == Close(4500, "go")


def test_failed_function_is_asked_again_in_a_minute() -> None:
    """What is wrong with it may pass, so nobody is thrown out for it. Centrifugo does so, too."""
    client = Client().connected()
    client.wait(60)
    client.fail()
    client.wait(59.9)
    assert client.session.take_asks() == []
    client.wait(0.1)
    client.fail()
    assert client.closed is None


@pytest.mark.parametrize("one_way", [False, True])
def test_connections_by_token_are_asked_about_too(one_way: bool) -> None:
    """As Centrifugo's: the client is not told when its token ends, and there is no grace."""
    client = Client("refresh", one_way=one_way)
    made = token(sub="ann", exp=NOW_S + 60, info={"n": 1}, meta={"rooms": [1]})
    if one_way:
        client.session.connect(Connect(made), client.now)
    else:
        client.say(id=1, connect={"token": made})
    (reply,) = client.join()
    assert {"expires", "ttl"}.isdisjoint(reply["connect"])
    client.wait(60)
    assert client.ask(AskRefresh).request == RefreshRequest(**WHO)


def test_client_that_refreshes_itself_is_closed() -> None:
    """3501: it was not told to."""
    client = Client("refresh")
    client.say(id=1, connect={"token": token(sub="ann", exp=NOW_S + 60)})
    client.join()
    client.say(id=2, refresh={"token": token(sub="ann")})
    assert client.closed == 3501


def test_time_that_the_server_api_has_set_is_asked_about() -> None:
    """Without grace, as the client can do nothing about it."""
    client = Client().connected()
    client.session.direct(RefreshClients(expire_at_s=NOW_S + 10), client.now, NOW_S)
    client.wait(10)
    client.ask(AskRefresh)


def test_newer_word_of_the_server_api_counts() -> None:
    """The function was asked about what is no more: its answer and its failure change nothing."""
    for answer in ("deny", "fail"):
        client = Client().connected()
        client.wait(60)
        ask = client.ask(AskRefresh)
        client.session.direct(RefreshClients(expire_at_s=NOW_S + 500), client.now, NOW_S)
        if answer == "deny":
            client.session.prolonged(ask, DENIED, client.now)
        else:
            client.session.failed(ask, ErrorCode.INTERNAL_SERVER_ERROR, client.now)
        assert client.closed is None
        assert client.session.deadline() == client.now + 500


def test_without_the_function_a_connection_ends_with_its_time() -> None:
    """As before."""
    client = Client("connect", "sub_refresh").connected()
    client.wait(60)
    assert client.closed == 3005


def test_commands_do_not_wait_for_it() -> None:
    """Nor does it wait for them."""
    client = Client().connected()
    client.say(id=2, rpc={})
    call = client.ask(AskRuling)
    client.wait(60)
    ask = client.ask(AskRefresh)
    client.session.ruled(call, RpcResult(Raw(b"1")), client.now)
    assert client.heard() == [{"id": 2, "rpc": {"data": 1}}]
    client.session.prolonged(ask, Prolonged({"ttl_s": 30}), client.now)
    assert client.say(id=3, unsubscribe={"channel": "open:x"}) == [{"id": 3, "unsubscribe": {}}]


def test_answer_after_the_end_changes_nothing() -> None:
    """Of a client that went while its function ran."""
    client = Client().subscribed()
    client.wait(60)
    ask = client.ask(AskRefresh)
    client.session.shut(Close(3000, "gone"))
    client.session.prolonged(ask, Prolonged({"ttl_s": 30}), client.now)
    client.session.failed(ask, ErrorCode.INTERNAL_SERVER_ERROR, client.now)
    assert client.session.deadline() == float("inf")
    assert client.heard() == []


# --- subscriptions


def test_function_is_asked_when_the_time_of_a_subscription_is_up() -> None:
    """It sees which. Until it answers the subscription goes on; the client hears nothing."""
    client = Client().subscribed()
    client.wait(59.9)
    assert client.session.take_asks() == []
    assert client.wait(0.1) == []
    ask = client.ask(AskRefresh)
    assert ask.request == SubRefreshRequest(channel="asks:a", **WHO)
    assert client.wait(1_000) == []
    client.session.prolonged(ask, Prolonged({"ttl_s": 30, "info": "host"}), client.now)
    assert client.heard() == []
    assert client.info_in("asks:a")["chan_info"] == "host"
    client.wait(30)
    client.ask(AskRefresh)


def test_info_that_is_not_given_stays() -> None:
    """As it was, for the subscription and for its end."""
    client = Client().subscribed()
    client.wait(60)
    client.prolong(Prolonged({"ttl_s": None}))
    assert client.info_in("asks:a")["chan_info"] == "guest"
    assert client.wait(9_000) == []
    assert client.session.take_asks() == []


@pytest.mark.parametrize("ruling", [DENIED, ErrorCode.EXPIRED])
def test_subscription_that_is_not_prolonged_has_expired(ruling: Ruling) -> None:
    """2501: the client subscribes again. The caller hears of it, as of all that have expired."""
    client = Client().subscribed()
    subscription = client.session.subscriptions["asks:a"]
    client.wait(60)
    (push,) = client.prolong(ruling)
    assert push["push"]["unsubscribe"]["code"] == 2501
    assert client.session.take_dropped() == [subscription]
    assert client.session.subscriptions == {}
    assert client.closed is None


def test_failed_function_keeps_the_subscription_for_a_minute() -> None:
    """And is asked again."""
    client = Client().subscribed()
    client.wait(60)
    client.fail()
    assert client.session.deadline() == client.now + 60
    assert client.wait(60) == []
    client.ask(AskRefresh)


def test_subscriptions_of_the_connect_function_are_asked_about() -> None:
    """Those that the server makes; one that is not prolonged ends the connection: 3006."""
    grant = Grant(ttl_s=60, by_function=True)
    claims = Claims(user="ann", channels={"asks:a": grant}, by_function=True)
    client = Client().connected(claims)
    client.wait(60)
    client.prolong(Prolonged({"ttl_s": 30}))
    assert client.closed is None
    client.wait(30)
    client.prolong(DENIED)
    assert client.closed == 3006


def test_subscriptions_by_token_are_the_clients_to_refresh() -> None:
    """It is told when they expire, and nobody is asked."""
    client = Client().connected(Claims(user="ann", by_function=True))
    made = token(sub="ann", channel="asks:a", exp=NOW_S + 60)
    client.say(id=2, subscribe={"channel": "asks:a", "token": made})
    assert client.join() == [{"id": 2, "subscribe": {"expires": True, "ttl": 60}}]
    (push,) = client.wait(85)
    assert push["push"]["unsubscribe"]["code"] == 2501
    assert client.session.take_asks() == []


def test_answer_about_a_subscription_that_is_gone_changes_nothing() -> None:
    """Nor does it concern the one that came after it."""
    client = Client().subscribed()
    client.wait(60)
    ask = client.ask(AskRefresh)
    client.say(id=3, unsubscribe={"channel": "asks:a"})
    client.session.answer(client.ask(AskLeave), UnsubscribeResult(), client.now)
    client.say(id=4, subscribe={"channel": "asks:a"})
    client.session.ruled(client.ask(AskRuling), Grant(by_function=True), client.now)
    client.join()
    client.heard()
    client.session.prolonged(ask, DENIED, client.now)
    client.session.failed(ask, ErrorCode.INTERNAL_SERVER_ERROR, client.now)
    assert client.heard() == []
    assert "asks:a" in client.session.subscriptions
    client.wait(1_000)
    assert client.session.take_asks() == []


def test_without_the_function_a_subscription_ends_with_its_time() -> None:
    """As before."""
    client = Client("connect", "subscribe", "refresh").subscribed()
    (push,) = client.wait(60)
    assert push["push"]["unsubscribe"]["code"] == 2501
