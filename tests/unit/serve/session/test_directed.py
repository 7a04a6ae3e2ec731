"""What the server API does to a client: a session without its socket."""

import json
from typing import Any

from msgspec import Raw

from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import History
from serve.auth.access import Access
from serve.directives.directive import (
    DisconnectClients,
    RefreshClients,
    SubscribeClients,
    ToClients,
    UnsubscribeClients,
    decode,
    encode,
)
from serve.protocol.json_codec import JSON
from serve.protocol.messages import Close, ErrorCode, StreamPosition, UnsubscribeResult
from serve.session.asks import AskGrant, AskJoin
from serve.session.directed import LATER_MAX, DirectedSession
from serve.session.session import State
from serve.session.subscription import Subscription

WALL_S = 1_800_000_000.0
SETTINGS = Settings(
    client=ClientSettings(insecure=True, channels_max=3),
    namespaces={
        "plain": ChannelSettings(presence=True),
        "kept": ChannelSettings(history_size=10, history_ttl_s=60),
    },
)
UNSUBSCRIBED = {"code": 2000, "reason": "server unsubscribe"}


class Client:
    """A session that is connected, and what a test does with it."""

    def __init__(self, *, connected: bool = True) -> None:
        self.now = 100.0
        self.session = DirectedSession(
            "id", Access(SETTINGS, wall=lambda: WALL_S), JSON, now=self.now
        )
        if connected:
            self.say({"id": 1, "connect": {}})
            self.join()
            self.heard()

    def say(self, command: dict[str, Any]) -> None:
        """Send a command."""
        self.session.receive(json.dumps(command).encode(), self.now)

    def heard(self) -> list[Any]:
        """Return what the session says, decoded."""
        return [json.loads(message) for message in self.session.take_messages()]

    def direct(self, directive: ToClients) -> Subscription | None:
        """Let a directive come, as it does: encoded."""
        found = decode(encode(directive))
        assert found == directive
        return self.session.direct(directive, self.now, WALL_S)

    def join(self, history: History | None = None) -> AskJoin:
        """Answer what is asked for with a history for each subscription."""
        (ask,) = self.session.take_asks()
        assert isinstance(ask, AskJoin)
        histories = [history or History(0, "", [])] * len(ask.subscriptions)
        self.session.joined(ask, histories, self.now)
        return ask


def test_grant_is_told_by_a_push() -> None:
    """Position, data, and what others see of the client; nothing waits for it."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a", info=Raw(b'{"i":1}'), data=Raw(b"[2]")))
    assert client.heard() == []
    client.say({"id": 2, "unsubscribe": {"channel": "plain:none"}})
    assert client.heard() == [{"id": 2, "unsubscribe": {}}]

    ask = client.join()
    assert isinstance(ask, AskGrant)
    told = {"channel": "plain:a", "subscribe": {"data": [2]}}
    assert client.heard() == [{"push": told}]
    info = json.loads(ask.subscriptions[0].info)
    assert info == {"user": "", "client": "id", "chan_info": {"i": 1}}


def test_grant_with_a_position_recovers() -> None:
    """What was missed comes after the push, and before what was held meanwhile."""
    client = Client()
    client.direct(SubscribeClients(channel="kept:a", since=StreamPosition(1, "e")))
    (ask,) = client.session.take_asks()
    assert isinstance(ask, AskGrant)
    ask.subscriptions[0].offer((4, [b'{"data":4}']))
    kept = History(3, "e", [(2, b'{"data":2}'), (3, b'{"data":3}')])
    client.session.joined(ask, [kept], client.now)

    told, *rest = [message["push"] for message in client.heard()]
    assert told["subscribe"] == {
        "recoverable": True, "positioned": True, "offset": 1, "epoch": "e"
    }  # fmt: skip
    assert [push["pub"] for push in rest] == [
        {"offset": 2, "data": 2},
        {"offset": 3, "data": 3},
        {"offset": 4, "data": 4},
    ]


def test_grant_that_cannot_recover_starts_at_the_top() -> None:
    """The position in the push is the channel's own."""
    client = Client()
    client.direct(SubscribeClients(channel="kept:a", since=StreamPosition(1, "over")))
    client.join(History(7, "e", []))
    (told,) = client.heard()
    assert told["push"]["subscribe"]["offset"] == 7


def test_grant_is_passed_over_where_it_cannot_be() -> None:
    """Subscribed already, full, expired, or a namespace that this edge does not know."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a"))
    client.direct(SubscribeClients(channel="plain:a"))
    client.direct(SubscribeClients(channel="nowhere:a"))
    client.direct(SubscribeClients(channel="plain:late", expire_at_s=WALL_S - 1))
    client.direct(SubscribeClients(channel="plain:b"))
    client.direct(SubscribeClients(channel="plain:c"))
    client.direct(SubscribeClients(channel="plain:d"))
    assert list(client.session.subscriptions) == ["plain:a", "plain:b", "plain:c"]
    assert len(client.session.take_asks()) == 3


def test_grant_overrides_settings_of_the_channel() -> None:
    """What is not named holds as the settings have it."""
    client = Client()
    override = {"force_recovery": True, "presence": False}
    client.direct(SubscribeClients(channel="kept:a", override=override))
    subscription = client.session.subscriptions["kept:a"]
    assert subscription.recoverable
    assert not subscription.options.presence
    assert subscription.options.history_size == 10


def test_grant_that_fails_is_not_told() -> None:
    """The store was away: the client never had it, and its own commands go on."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a"))
    (grant,) = client.session.take_asks()
    client.say({"id": 2, "subscribe": {"channel": "plain:b"}})
    client.session.failed(grant, ErrorCode.INTERNAL_SERVER_ERROR, client.now)
    assert client.heard() == []
    assert list(client.session.subscriptions) == ["plain:b"]
    client.join()
    assert client.heard() == [{"id": 2, "subscribe": {}}]


def test_grant_for_a_time_ends_the_connection() -> None:
    """With code 3006 after a grace time, as nobody can prolong it; not where it has ended."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a", expire_at_s=WALL_S + 1))
    client.join()
    end = client.now + 1 + 25
    client.session.tick(end - 0.1)
    assert client.session.deadline() <= end
    assert client.session.close is None
    client.session.tick(end)
    assert client.session.close == Close(3006, "subscription expired")

    other = Client()
    other.direct(SubscribeClients(channel="plain:a", expire_at_s=WALL_S + 1))
    other.join()
    assert other.direct(UnsubscribeClients(channel="plain:a")) is not None
    other.session.tick(end)
    assert other.session.close is None


def test_unsubscribe_is_told_and_returned() -> None:
    """The caller forgets what is returned; a second time there is nothing."""
    client = Client()
    client.say({"id": 2, "subscribe": {"channel": "plain:a"}})
    client.join()
    client.heard()
    ended = client.direct(UnsubscribeClients(channel="plain:a"))
    assert ended is not None
    assert client.heard() == [{"push": {"channel": "plain:a", "unsubscribe": UNSUBSCRIBED}}]
    assert client.direct(UnsubscribeClients(channel="plain:a")) is None
    assert client.heard() == []


def test_unsubscribe_waits_for_the_reply() -> None:
    """A client ignores news of a channel that it does not have: its reply comes first."""
    client = Client()
    client.say({"id": 2, "subscribe": {"channel": "plain:a"}})
    assert client.direct(UnsubscribeClients(channel="plain:a")) is None
    client.join()
    assert client.heard() == [
        {"id": 2, "subscribe": {}},
        {"push": {"channel": "plain:a", "unsubscribe": UNSUBSCRIBED}},
    ]
    assert client.session.subscriptions == {}


def test_unsubscribe_means_the_subscription_of_its_moment() -> None:
    """What the client itself ends, and makes anew, while a grant is under way, is another."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a"))
    client.direct(UnsubscribeClients(channel="plain:a"))
    client.say({"id": 2, "unsubscribe": {"channel": "plain:a"}})
    client.say({"id": 3, "subscribe": {"channel": "plain:a"}})
    grant, leave = client.session.take_asks()
    assert isinstance(grant, AskGrant)
    client.session.answer(leave, UnsubscribeResult(), client.now)
    client.session.joined(grant, [History(0, "", [])], client.now)
    client.join()
    assert client.heard() == [{"id": 2, "unsubscribe": {}}, {"id": 3, "subscribe": {}}]
    assert "plain:a" in client.session.subscriptions


def test_unsubscribe_overtakes_a_grant_under_way() -> None:
    """It ends right after it began."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a"))
    client.direct(UnsubscribeClients(channel="plain:a"))
    client.join()
    assert [next(iter(m["push"].keys() - {"channel"})) for m in client.heard()] == [
        "subscribe",
        "unsubscribe",
    ]


def test_disconnect_closes_with_its_code() -> None:
    """Any code and reason, also while the client still connects."""
    for connected in (True, False):
        client = Client(connected=connected)
        client.direct(DisconnectClients(code=4001, reason="go"))
        assert client.session.close == Close(4001, "go")


def test_directives_wait_for_the_reply_to_connect() -> None:
    """They are carried out right after it, in their order, as far as may wait."""
    client = Client(connected=False)
    client.say({"id": 1, "connect": {}})
    assert client.session.state is State.CONNECTING
    client.direct(RefreshClients(expire_at_s=WALL_S + 9))
    client.direct(SubscribeClients(channel="plain:a"))
    for _ in range(LATER_MAX):
        client.direct(SubscribeClients(channel="plain:b"))
    assert client.heard() == []
    client.join()
    reply, refresh = client.heard()
    assert "connect" in reply
    assert refresh == {"push": {"refresh": {"expires": True, "ttl": 9}}}
    assert set(client.session.subscriptions) == {"plain:a", "plain:b"}


def test_what_waits_for_connect_keeps_its_order() -> None:
    """A subscription that was given and taken again, meanwhile, is not there afterwards."""
    client = Client(connected=False)
    client.say({"id": 1, "connect": {}})
    client.direct(SubscribeClients(channel="plain:a"))
    client.direct(UnsubscribeClients(channel="plain:a"))
    client.join()
    client.join()
    assert [key for m in client.heard()[1:] for key in m["push"] if key != "channel"] == [
        "subscribe",
        "unsubscribe",
    ]
    assert client.session.subscriptions == {}


def test_refresh_prolongs_or_ends() -> None:
    """A time that is over ends the connection (3005); none means for ever."""
    client = Client()
    client.direct(RefreshClients(expire_at_s=WALL_S + 1))
    client.direct(RefreshClients())
    assert client.heard() == [
        {"push": {"refresh": {"expires": True, "ttl": 1}}},
        {"push": {"refresh": {}}},
    ]
    for directive in (RefreshClients(expired=True), RefreshClients(expire_at_s=WALL_S - 1)):
        other = Client()
        other.direct(directive)
        assert other.session.close == Close(3005, "connection expired")


def test_refreshed_info_is_seen_at_once() -> None:
    """In channels that the client has already, where its `chan_info` stays, and in later ones."""
    client = Client()
    client.direct(SubscribeClients(channel="plain:a", info=Raw(b"1")))
    client.join()
    for directive in (RefreshClients(info=Raw(b'{"name":"x"}')), RefreshClients()):
        client.direct(directive)
    client.direct(SubscribeClients(channel="plain:b"))
    a, b = (json.loads(client.session.subscriptions[f"plain:{name}"].info) for name in "ab")
    assert (a["conn_info"], a["chan_info"]) == ({"name": "x"}, 1)
    assert b == {"user": "", "client": "id", "conn_info": {"name": "x"}}


def test_closed_session_takes_no_directive() -> None:
    """What comes too late changes nothing."""
    client = Client()
    client.session.shut(Close(3000, "gone"))
    client.direct(SubscribeClients(channel="plain:a"))
    client.direct(DisconnectClients(code=4001))
    assert client.session.close == Close(3000, "gone")
    assert client.session.take_asks() == []


def test_record_of_another_version_is_nothing() -> None:
    """A directive that this version does not know is passed over."""
    assert decode(b'{"do":"dance"}') is None
    assert decode(b"\xff") is None
