"""What expires, what prolongs it, and what tokens give, by way of a session."""

import json
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from actors.settings.client import ClientSettings
from actors.settings.tree import AuthSettings, ChannelSettings, Settings, TokenSettings
from actors.store.interface import History
from serve.auth.access import Access
from serve.auth.tokens import Grant, make_token
from serve.protocol.json_codec import JSON, ONE_WAY_JSON
from serve.protocol.messages import ErrorCode, UnsubscribeResult
from serve.session.asks import AskJoin, AskKeys, AskLeave
from serve.session.session import Session
from tests.session_client import SessionClient
from tests.signing import jwk, key, key_set

SECRET = "a secret that is long enough for HS256"
NOW_S = 1_800_000_000.0
NAMESPACES = {
    "open": ChannelSettings(allow_subscribe_for_client=True),
    "closed": ChannelSettings(history_size=10, history_ttl_s=60, join_leave=True),
    "limited": ChannelSettings(allow_user_limited_channels=True),
}
EMPTY = History(0, "e", [])


class Client(SessionClient[Session]):
    """A session with a clock; pings are out of the way."""

    def __init__(
        self, *, one_way: bool = False, tokens: TokenSettings | None = None, **limits: Any
    ) -> None:
        auth = AuthSettings(token_secret=SecretStr(SECRET), tokens=tokens or TokenSettings())
        settings = Settings(
            client=ClientSettings(ping_interval_s=10_000, **limits),
            auth=auth,
            namespaces=NAMESPACES,
        )
        self.session = Session(
            "id",
            # The walls' clock goes with ours.
            Access(settings, wall=lambda: NOW_S + self.now - 100, clock=lambda: self.now),
            ONE_WAY_JSON if one_way else JSON,
            now=self.now,
            one_way=one_way,
        )

    def say(self, command_id: int, **command: Any) -> Any:
        """Send a command; return the answer, once joins and leaves are done."""
        self.session.receive(json.dumps({"id": command_id, **command}).encode(), self.now)
        for ask in self.session.take_asks():
            if isinstance(ask, AskJoin):
                histories = [History(3, "e", [(3, b'{"data":3}')])] * len(ask.subscriptions)
                self.session.joined(ask, histories, self.now)
            else:
                assert isinstance(ask, AskLeave)
                self.session.answer(ask, UnsubscribeResult(), self.now)
        heard = self.heard()
        return heard[0] if heard else None

    def connected(self, **claims: Any) -> "Client":
        """Connect as `u`."""
        assert "connect" in self.say(1, connect={"token": token(sub="u", **claims)})
        return self

    def subscribe(self, channel: str, **claims: Any) -> Any:
        """Subscribe with a token for the channel; return the reply."""
        return self.say(2, subscribe={"channel": channel, "token": token_for(channel, **claims)})

    def sub_refresh(self, channel: str, fresh: str) -> Any:
        """Refresh a subscription; return the reply."""
        return self.say(3, sub_refresh={"channel": channel, "token": fresh})


def token(secret: str = SECRET, **claims: Any) -> str:
    """Sign claims."""
    return jwt.encode(claims, secret, algorithm="HS256")


def token_for(channel: str, user: str = "u", **claims: Any) -> str:
    """Make a subscription token."""
    return token(sub=user, channel=channel, **claims)


def error_of(reply: Any) -> int:
    code: int = reply["error"]["code"]
    return code


# --- subscribing with a token


def test_token_decides_alone() -> None:
    """No other permission is needed; `expires`, `ttl` and `data` come with the reply."""
    client = Client().connected()
    reply = client.subscribe("closed:a", exp=NOW_S + 60, data={"d": 1}, info={"i": 1})
    assert reply == {"id": 2, "subscribe": {"expires": True, "ttl": 60, "data": {"d": 1}}}
    assert json.loads(client.session.subscriptions["closed:a"].info)["chan_info"] == {"i": 1}
    assert client.subscribe("closed:b") == {"id": 2, "subscribe": {}}
    assert client.subscribe("$closed:c") == {"id": 2, "subscribe": {}}


def test_token_decides_before_all_else() -> None:
    """A bad one is refused (103) where none would be needed; a user's list does not matter."""
    client = Client().connected()
    wrong = token("another secret that is long enough", sub="u", channel="open:a")
    reply = client.say(2, subscribe={"channel": "open:a", "token": wrong})
    assert error_of(reply) == ErrorCode.PERMISSION_DENIED
    assert "subscribe" in client.subscribe("limited:a#other")


@pytest.mark.parametrize("channel", ["$open:a", "closed:a", "limited:a#v,w", "limited:a"])
def test_what_needs_a_token(channel: str) -> None:
    """`$` channels, those that are not open, and those of other users: 103."""
    reply = Client().connected().say(2, subscribe={"channel": channel})
    assert error_of(reply) == ErrorCode.PERMISSION_DENIED


@pytest.mark.parametrize("channel", ["open:a", "limited:a#v,u"])
def test_what_needs_no_token(channel: str) -> None:
    """Open channels, and those limited to users who are listed."""
    assert "subscribe" in Client().connected().say(2, subscribe={"channel": channel})


def test_expired_subscription_token_may_be_replaced() -> None:
    """Error 109, after which clients bring a new one."""
    client = Client().connected()
    assert error_of(client.subscribe("open:a", exp=NOW_S)) == ErrorCode.TOKEN_EXPIRED
    assert "subscribe" in client.subscribe("open:a", exp=NOW_S + 1)


@pytest.mark.parametrize("wrong", [token_for("open:b"), token_for("open:a", user="v")])
def test_token_for_another_closes(wrong: str) -> None:
    """Another channel or user: 3500."""
    client = Client().connected()
    client.say(2, subscribe={"channel": "open:a", "token": wrong})
    assert client.closed == 3500


def test_connection_token_is_not_for_subscribing() -> None:
    """It names no channel: 103, as for any token that is not valid."""
    client = Client().connected()
    reply = client.say(2, subscribe={"channel": "open:a", "token": token(sub="u")})
    assert error_of(reply) == ErrorCode.PERMISSION_DENIED
    assert client.closed is None


def test_token_may_override_settings() -> None:
    """For this subscription alone."""
    client = Client().connected()
    override = {"force_recovery": {"value": True}, "force_push_join_leave": {"value": True}}
    reply = client.subscribe("closed:a", override=override)
    assert reply["subscribe"] == {
        "recoverable": True,
        "positioned": True,
        "epoch": "e",
        "offset": 3,
    }
    assert client.session.subscriptions["closed:a"].pushes_joins
    assert client.subscribe("closed:b") == {"id": 2, "subscribe": {}}


# --- what the server subscribes at connect


def test_connection_token_brings_subscriptions() -> None:
    """With info, data and settings of their own; positions in the request recover them."""
    client = Client()
    subs = {
        "closed:a": {
            "info": 7,
            "data": {"d": 1},
            "override": {"force_recovery": {"value": True}},
        }
    }
    made = token(sub="u", channels=["closed:a", "open:b"], subs=subs)
    position = {"closed:a": {"recover": True, "offset": 2, "epoch": "e"}}
    reply = client.say(1, connect={"token": made, "subs": position})
    assert reply["connect"]["subs"] == {
        "closed:a": {
            "recoverable": True,
            "epoch": "e",
            "publications": [{"data": 3, "offset": 3}],
            "recovered": True,
            "offset": 2,
            "positioned": True,
            "data": {"d": 1},
            "was_recovering": True,
        },
        "open:b": {},
    }
    assert json.loads(client.session.subscriptions["closed:a"].info)["chan_info"] == 7


def test_every_user_has_a_personal_channel() -> None:
    """Where it is on; a wish for a position counts for it, and anonymous users have none."""
    on = {"enabled": True, "namespace": "limited"}
    client = Client(subscribe_to_user_personal_channel=on)
    reply = client.say(1, connect={"token": token(sub="u", channels=["open:a"])})
    assert set(reply["connect"]["subs"]) == {"open:a", "limited:#u"}
    nobody = Client(subscribe_to_user_personal_channel=on)
    assert "subs" not in nobody.say(1, connect={"token": token()})["connect"]


# --- the connection


def test_connection_lasts_as_long_as_it_is_refreshed() -> None:
    """25 s after its time it is closed with 3005; until then a new token saves it."""
    client = Client().connected(exp=NOW_S + 60)
    client.wait(84)
    reply = client.say(2, refresh={"token": token(sub="u", exp=NOW_S + 90, info=1)})
    assert reply == {"id": 2, "refresh": {"client": "id", "expires": True, "ttl": 6}}
    client.wait(30.9)
    assert client.closed is None
    client.wait(0.1)
    assert client.closed == 3005


def test_grace_is_a_setting() -> None:
    """Zero means zero."""
    client = Client(expired_close_delay_s=0).connected(exp=NOW_S + 60)
    client.wait(60)
    assert client.closed == 3005


def test_client_that_cannot_refresh_has_no_grace() -> None:
    """One way: it is closed when its time is up."""
    client = Client(one_way=True)
    client.say(1, connect={"token": token(sub="u", exp=NOW_S + 60)})
    client.wait(59.9)
    assert client.closed is None
    client.wait(0.1)
    assert client.closed == 3005


def test_connection_may_last_longer_than_its_token() -> None:
    """`expire_at` counts; 0: it never ends."""
    client = Client().connected(exp=NOW_S + 60, expire_at=0)
    client.wait(5000)
    assert client.closed is None


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"subs": {"open:a": {}, "open:c": {}}}, 3010),
        ({"channels": ["open:a", "open:b"]}, 3010),
        ({}, 3010),
        ({"sub": "v", "channels": ["open:a"]}, 3500),
        ({"channel": "open:a"}, 3500),
        ({"channels": ["open:a"], "exp": NOW_S}, 3005),
        ({"channels": ["open:a"], "expire_at": NOW_S}, 3005),
        ({"channels": ["open:a"], "info": 1}, None),
        ({"subs": {"open:a": {"info": 1}}}, None),
    ],
)
def test_refreshed_token_must_go_with_the_connection(
    claims: dict[str, Any], code: int | None
) -> None:
    """Another user: 3500; expired: 3005; other channels: 3010, so that the client comes again."""
    client = Client().connected(channels=["open:a"])
    client.say(2, refresh={"token": token(**{"sub": "u", **claims})})
    assert client.closed == code


def test_refreshed_token_is_about_channels_that_the_client_has() -> None:
    """Not about what the last token said: 3010 only where something would be other."""
    client = Client().connected(channels=["open:a"])
    client.say(2, subscribe={"channel": "open:b"})
    both = token(sub="u", channels=["open:a", "open:b"])
    assert "refresh" in client.say(3, refresh={"token": both})
    client.say(4, unsubscribe={"channel": "open:b"})
    assert "refresh" in client.say(5, refresh={"token": token(sub="u", channels=["open:a"])})
    client.say(6, refresh={"token": both})
    assert client.closed == 3010


def test_refreshed_token_says_who_the_client_is() -> None:
    """Others see it at once, in channels that the client has; what is not said stays as it was."""
    client = Client().connected(subs={"open:a": {"info": 1}}, info="old", meta={"m": 1})
    client.subscribe("open:b", info=2)
    override = {"force_recovery": {"value": True}}
    fresh = {"open:a": {"info": 9, "override": override}, "open:b": {}}
    client.say(3, refresh={"token": token(sub="u", info="new", subs=fresh)})
    client.say(4, refresh={"token": token(sub="u", subs=fresh)})
    a, b = (client.session.subscriptions[f"open:{name}"] for name in "ab")
    assert [json.loads(s.info) for s in (a, b)] == [
        {"user": "u", "client": "id", "conn_info": "new", "chan_info": info} for info in (1, 2)
    ]
    # As in Centrifugo: what it says of channels counts from the next connection on.
    assert not a.recoverable
    assert client.session._client.claims.meta == {"m": 1}


# --- subscriptions


def test_subscription_lasts_as_long_as_it_is_refreshed() -> None:
    """25 s after its time the client is told (2501) and comes again by itself."""
    client = Client().connected()
    client.subscribe("open:a", exp=NOW_S + 60)
    client.wait(84)
    reply = client.sub_refresh("open:a", token_for("open:a", exp=NOW_S + 90, info=2))
    assert reply == {"id": 3, "sub_refresh": {"expires": True, "ttl": 6}}
    subscription = client.session.subscriptions["open:a"]
    assert json.loads(subscription.info)["chan_info"] == 2
    assert client.session.deadline() == client.now + 31
    assert client.wait(30.9) == []
    assert client.wait(0.1) == [
        {
            "push": {
                "channel": "open:a",
                "unsubscribe": {"code": 2501, "reason": "subscription expired"},
            }
        }
    ]
    assert client.session.take_dropped() == [subscription]
    assert client.session.subscriptions == {}
    assert client.closed is None


def test_subscription_may_be_made_endless() -> None:
    """By a new token without an end."""
    client = Client().connected()
    client.subscribe("open:a", exp=NOW_S + 60)
    assert client.sub_refresh("open:a", token_for("open:a")) == {"id": 3, "sub_refresh": {}}
    assert client.wait(5000) == []


def test_what_has_ended_does_not_expire() -> None:
    """Unsubscribed, and perhaps subscribed again without an end."""
    client = Client().connected()
    client.subscribe("open:a", exp=NOW_S + 60)
    client.say(4, unsubscribe={"channel": "open:a"})
    assert client.session.deadline() > client.now + 85
    client.subscribe("open:a")
    assert client.wait(5000) == []
    assert "open:a" in client.session.subscriptions


def test_grace_of_subscriptions_is_a_setting() -> None:
    """Zero means zero."""
    client = Client(expired_sub_close_delay_s=0).connected()
    client.subscribe("open:a", exp=NOW_S + 60)
    (push,) = client.wait(60)
    assert push["push"]["unsubscribe"]["code"] == 2501


def test_server_side_subscription_that_expires_closes() -> None:
    """The client cannot make it anew by itself: 3006."""
    client = Client().connected(channels=["open:a"])
    subscription = client.session.subscriptions["open:a"]
    subscription.grant = Grant(ttl_s=60)
    client.session._renewal.begin(subscription, client.now)
    client.wait(84.9)
    assert client.closed is None
    client.wait(0.1)
    assert client.closed == 3006


@pytest.mark.parametrize(
    ("fresh", "code"),
    [
        ("", ErrorCode.BAD_REQUEST),
        (token_for("open:a", exp=NOW_S), ErrorCode.TOKEN_EXPIRED),
        (token_for("open:a", nbf=NOW_S + 1), ErrorCode.TOKEN_EXPIRED),
        (token_for("open:a", expire_at=NOW_S), ErrorCode.EXPIRED),
    ],
)
def test_token_that_prolongs_nothing(fresh: str, code: ErrorCode) -> None:
    """An expired token is an error (109), and the subscription still ends when it would have.

    Centrifugo takes it, and the subscription never expires: we do not.
    """
    client = Client().connected()
    client.subscribe("open:a", exp=NOW_S + 60)
    assert error_of(client.sub_refresh("open:a", fresh)) == code
    (push,) = client.wait(85)
    assert push["push"]["unsubscribe"]["code"] == 2501


@pytest.mark.parametrize(
    "fresh", ["x", token(sub="u"), token_for("open:b"), token_for("open:a", user="v")]
)
def test_sub_refresh_with_a_bad_token_closes(fresh: str) -> None:
    """Not valid, or for another: 3500."""
    client = Client().connected()
    client.subscribe("open:a", exp=NOW_S + 60)
    client.sub_refresh("open:a", fresh)
    assert client.closed == 3500


@pytest.mark.parametrize("fresh", ["", token_for("open:a")])
def test_sub_refresh_of_what_cannot_be_refreshed(fresh: str) -> None:
    """Not subscribed: 103. Subscribed by the server, or without a name: 3501."""
    for channel in ("open:a", ""):
        client = Client().connected(channels=["open:a"])
        assert error_of(client.sub_refresh("open:b", fresh)) == ErrorCode.PERMISSION_DENIED
        client.sub_refresh(channel, fresh)
        assert client.closed == 3501


def test_token_gives_an_end_to_what_had_none() -> None:
    """A subscription made without one takes a token, as in Centrifugo."""
    client = Client().connected()
    client.say(2, subscribe={"channel": "open:a"})
    reply = client.sub_refresh("open:a", token_for("open:a", exp=NOW_S + 60))
    assert reply == {"id": 3, "sub_refresh": {"expires": True, "ttl": 60}}
    (push,) = client.wait(85)
    assert push["push"]["unsubscribe"]["code"] == 2501


def test_closed_session_has_nothing_due() -> None:
    """Nothing expires after the end."""
    client = Client().connected(exp=NOW_S + 60)
    client.subscribe("open:a", exp=NOW_S + 60)
    client.say(9, connect={})
    assert client.closed == 3501
    assert client.session.deadline() == float("inf")


# --- keys that must be read first


def test_commands_wait_while_keys_are_read() -> None:
    """The one that needs them is taken again, and those behind it keep their order."""
    client = Client(tokens=TokenSettings(jwks_url="https://keys.example/set"))
    made = make_token(key("ES256"), "u", now_s=NOW_S, algorithm="ES256", kid="k1")
    commands = [
        {"id": 1, "connect": {"token": made}},
        {"id": 2, "subscribe": {"channel": "open:a"}},
    ]
    client.session.receive("\n".join(map(json.dumps, commands)).encode(), client.now)
    (ask,) = client.session.take_asks()
    assert isinstance(ask, AskKeys)
    assert client.heard() == []
    assert client.session.busy
    assert ask.keys.begin()
    ask.keys.take(key_set(jwk(key("ES256"), "k1", "ES256")))
    client.session.keys_read(ask, client.now)
    for command_id in (1, 2):
        (join,) = client.session.take_asks()
        assert isinstance(join, AskJoin)
        client.session.joined(join, [EMPTY] * len(join.subscriptions), client.now)
        (reply,) = client.heard()
        assert reply["id"] == command_id


def test_client_comes_back_while_keys_cannot_be_read() -> None:
    """Error 100 is temporary: the token may be good."""
    client = Client(tokens=TokenSettings(jwks_url="https://keys.example/set"))
    made = make_token(key("ES256"), "u", now_s=NOW_S, algorithm="ES256", kid="k1")
    client.session.receive(json.dumps({"id": 1, "connect": {"token": made}}).encode(), client.now)
    (ask,) = client.session.take_asks()
    assert isinstance(ask, AskKeys)
    ask.keys.fail("down")
    client.session.keys_read(ask, client.now)
    (reply,) = client.heard()
    assert reply["error"]["code"] == 100
    assert reply["error"]["temporary"]


def test_client_that_goes_while_keys_are_read() -> None:
    """Nothing happens when the keys are there."""
    client = Client(tokens=TokenSettings(jwks_url="https://keys.example/set"))
    made = make_token(key("ES256"), "u", now_s=NOW_S, algorithm="ES256", kid="k1")
    client.session.receive(json.dumps({"id": 1, "connect": {"token": made}}).encode(), client.now)
    (ask,) = client.session.take_asks()
    assert isinstance(ask, AskKeys)
    client.wait(10)
    assert client.closed == 3502
    client.session.keys_read(ask, client.now)
    assert client.session.take_asks() == []
    assert client.heard() == []
