"""Whom a directive means: by user, client, session and whitelist, among a hub's connections."""

import asyncio

import pytest
from msgspec import Raw
from pydantic import SecretStr

from actors.settings.tree import AuthSettings
from actors.store.memory.store import MemoryStore
from serve.auth.tokens import make_token
from serve.directives.directive import (
    DisconnectClients,
    RefreshClients,
    SubscribeClients,
    UnsubscribeClients,
)
from serve.hub.hub import Hub
from serve.protocol.messages import Close, Connect
from tests.hub_client import ONE_WAY, SETTINGS, Client, refuse, settled

SECRET = "s" * 32
KEYED = SETTINGS.model_copy(update={"auth": AuthSettings(token_secret=SecretStr(SECRET))})


@pytest.fixture
async def hub() -> Hub:
    """A hub without a feed, which knows tokens."""
    return Hub(KEYED, MemoryStore(), refuse)


def token(user: str) -> str:
    """Make a token."""
    return make_token(SECRET, user, now_s=0)


async def connected(hub: Hub, user: str) -> Client:
    """Return a client of a user."""
    client = Client(hub)
    client.say({"id": 1, "connect": {"token": token(user)}})
    await client.until(lambda: bool(client.replies()))
    return client


async def test_all_clients_of_a_user_are_meant_and_no_others(hub: Hub) -> None:
    """Not those of another user, and not anonymous ones."""
    first, second, bob, nobody = [await connected(hub, user) for user in ("ann", "ann", "bob", "")]
    hub.direct(SubscribeClients(user="ann", channel="plain:a"))
    await settled()
    assert [len(c.pushes("subscribe")) for c in (first, second, bob, nobody)] == [1, 1, 0, 0]
    assert hub.channels("plain:*") == {"plain:a": 2}


async def test_one_of_a_users_clients_is_meant_by_its_id(hub: Hub) -> None:
    """The user must fit as well: a client's id alone, with another's name, means nobody."""
    first, second = await connected(hub, "ann"), await connected(hub, "ann")
    hub.direct(DisconnectClients(user="bob", client=first.connection.session.client, code=3503))
    hub.direct(DisconnectClients(user="ann", client=first.connection.session.client, code=3503))
    assert first.closed == Close(3503, "")
    assert second.closed is None


async def test_a_session_means_who_has_it(hub: Hub) -> None:
    """A client that was told none is not meant by any; an id is no session."""
    plain, one_way = await connected(hub, "ann"), Client(hub, ONE_WAY)
    one_way.connection.connect(Connect(token=token("ann")))
    await settled()
    place = one_way.connection.session.place
    for name in (plain.connection.session.client, one_way.connection.session.client, place.session):
        hub.direct(DisconnectClients(user="ann", session=name, code=3503))
    assert plain.closed is None
    assert one_way.closed == Close(3503, "")


async def test_whitelist_spares_clients(hub: Hub) -> None:
    """By their ids."""
    first, second = await connected(hub, "ann"), await connected(hub, "ann")
    spared = [second.connection.session.client]
    hub.direct(DisconnectClients(user="ann", code=4000, reason="go", whitelist=spared))
    assert (first.closed, second.closed) == (Close(4000, "go"), None)


async def test_connections_of_one_user_are_limited() -> None:
    """The next one is closed with 3504; one that is gone makes room; others feel nothing."""
    limits = KEYED.client.model_copy(update={"user_connections_max": 2})
    hub = Hub(KEYED.model_copy(update={"client": limits}), MemoryStore(), refuse)
    first, second, bob = [await connected(hub, user) for user in ("ann", "ann", "bob")]
    third = Client(hub)
    third.say({"id": 1, "connect": {"token": token("ann")}})
    await third.until(lambda: third.closed is not None)
    assert third.closed == Close(3504, "connection limit")
    assert third.replies() == []
    assert (first.closed, second.closed, bob.closed) == (None, None, None)
    for nobody in [await connected(hub, "") for _ in range(3)]:
        assert nobody.closed is None
    first.connection.lost()
    assert (await connected(hub, "ann")).closed is None


async def test_who_has_not_connected_or_is_gone_is_not_meant(hub: Hub) -> None:
    """Nothing is kept of a client that has left."""
    strange, gone = Client(hub), await connected(hub, "")
    gone.connection.lost()
    hub.direct(DisconnectClients(code=3503))
    assert strange.closed is None
    assert hub._audience._of_user == {}


async def test_revoked_subscription_is_forgotten(hub: Hub) -> None:
    """It gets nothing more, and leaves the presence; the channel goes with its last one."""
    client = await connected(hub, "ann")
    hub.direct(SubscribeClients(user="ann", channel="seen:a"))
    await settled()
    assert await hub.store.presence("seen:a")
    hub.direct(UnsubscribeClients(user="ann", channel="seen:a"))
    await settled()
    assert client.pushes("unsubscribe") == [{"code": 2000, "reason": "server unsubscribe"}]
    assert hub.channels("") == {}
    assert not await hub.store.presence("seen:a")


class SlowToForget(MemoryStore):
    """A store in which nobody leaves before the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def leave(self, channel: str, client: str, info: bytes, *, announce: bool) -> None:
        """Leave, in the end."""
        await self.gate.wait()
        await super().leave(channel, client, info, announce=announce)


async def test_client_that_is_subscribed_anew_at_once_is_present() -> None:
    """Its leave may be slower than what comes after it."""
    store = SlowToForget()
    hub = Hub(KEYED, store, refuse)
    client = await connected(hub, "ann")
    hub.direct(SubscribeClients(user="ann", channel="seen:a"))
    await settled()
    hub.direct(UnsubscribeClients(user="ann", channel="seen:a"))
    hub.direct(SubscribeClients(user="ann", channel="seen:a"))
    await settled()
    store.gate.set()
    await settled()
    assert [len(client.pushes(kind)) for kind in ("subscribe", "unsubscribe")] == [2, 1]
    assert list(await store.presence("seen:a")) == [client.connection.session.client]
    client.connection.lost()
    await settled()
    assert not await store.presence("seen:a")


async def test_unsubscribe_during_a_grant_leaves_nothing(hub: Hub) -> None:
    """Whichever of the two is first done."""
    client = await connected(hub, "ann")
    hub.direct(SubscribeClients(user="ann", channel="seen:a"))
    hub.direct(UnsubscribeClients(user="ann", channel="seen:a"))
    await settled()
    assert client.connection.session.subscriptions == {}
    assert hub.channels("") == {}
    assert not await hub.store.presence("seen:a")


async def test_directive_that_fails_ends_only_the_client(hub: Hub) -> None:
    """Raised further it would end the edge, and every other one that has such a client."""
    ann, bob = await connected(hub, "ann"), await connected(hub, "bob")
    hub.direct(RefreshClients(user="ann", info=Raw(b"{")))
    assert ann.closed == Close(3004, "internal server error")
    assert bob.closed is None
