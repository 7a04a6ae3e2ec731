"""Whatever happens to feed, history, server and edge: no client has a gap that it is not told of.

The hub and the follower of an edge, without sockets, on a real Valkey: clients come, go and recover
at any time, while feeds are trimmed, histories shrink and vanish, the server is emptied or does
not answer, and edges are replaced. Every publication that a client gets must be the next of its
epoch, unless it was told before that it is not.

The examples are the same in every run. `RAYWIRE_MODEL_EXAMPLES=2000` tries so many others, and
shortens what fails.
"""

import asyncio
import os
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actors.message import FIRST_ID, Ack, Meta
from actors.pacing import Backoff
from actors.partition import Keys, partition_of
from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, QueueSettings, Settings
from actors.store.interface import Claim, Commit, Group
from actors.store.redis.pipeline import RedisLedger
from serve.hub.feed import FeedFollower
from serve.hub.hub import Hub
from tests.integration.subscribers import Client, State, Store, Truth

pytestmark = pytest.mark.redis

EXAMPLES = os.environ.get("RAYWIRE_MODEL_EXAMPLES")
PARTITIONS = 2
SETTINGS = Settings(
    client=ClientSettings(insecure=True),
    queue=QueueSettings(partitions=PARTITIONS),
    namespaces={
        "kept": ChannelSettings(history_size=100, history_ttl_s=60, force_recovery=True),
    },
)
_NAMES = [[f"kept:{n}" for n in range(99) if partition_of(f"kept:{n}", 2) == p] for p in (0, 1)]
CHANNELS = [_NAMES[0][0], _NAMES[0][1], _NAMES[1][0]]
# Channels that nobody listens to: their records tell of gaps before them.
BELLS = [names[-1] for names in _NAMES]
CLIENTS = 9
KEYS = Keys()


async def refuse(channel: str, data: bytes, meta: Meta) -> Ack:
    """Publish nowhere."""
    raise AssertionError(channel, data, meta)


class Recoveries(RuleBasedStateMachine):
    """See the module."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        # The library's types know nothing of `decode_responses`.
        self.server: Any = redis.Redis.from_url(self.url, decode_responses=True)
        self.server.flushall()
        self.ledger = RedisLedger(self.url, KEYS)
        self.runner = asyncio.Runner()
        self.published = 0
        self.emptied = False
        self.truth = Truth()
        self.clients = [Client(CHANNELS[n % len(CHANNELS)], self.truth) for n in range(CLIENTS)]
        self.runner.run(self.start())
        for client in self.clients:
            self.bring(client)
        self.settle()

    async def start(self) -> None:
        """Start an edge."""
        self.store = Store(self.url, KEYS, partitions=PARTITIONS)
        self.hub = Hub(SETTINGS, self.store, refuse)
        self.follower = FeedFollower(
            self.store,
            range(PARTITIONS),
            self.hub.deliver,
            self.hub.feed_gap,
            backoff=Backoff(first_s=0, max_s=0),
        )
        self.follower.start()
        await self.follower.ready()

    async def end(self) -> None:
        """End the edge."""
        self.store.gate.set()
        await self.hub.close()
        await self.follower.close()
        await self.store.close()

    def settle(self) -> None:
        """Let the edge do all it can."""
        self.runner.run(self.store.settled())

    # --- what happens

    @rule(
        channel=st.sampled_from(CHANNELS),
        count=st.integers(1, 4),
        size=st.sampled_from([1, 3, 100, 100]),
    )
    def publish(self, channel: str, count: int, size: int) -> None:
        """Commit publications, and keep so many of the channel."""
        p = partition_of(channel, PARTITIONS)
        after = self.server.hget(KEYS.applied(p), str(p)) or FIRST_ID
        numbers = range(self.published + 1, self.published + count + 1)
        self.published += count
        upto = f"{self.published}-0"
        group = Group(
            channel=channel,
            bodies=[b'{"data":%d}' % n for n in numbers],
            ids=[(p, upto)] * count,
            history_size=size,
            history_ttl_s=60,
            meta_ttl_s=600,
            waits={index: (p, str(n)) for index, n in enumerate(numbers)},
        )
        (committed,) = self.ledger.commit([Commit(p, [Claim(p, after, upto)], [group], [], [])])
        assert committed.done
        for ack in sorted(committed.acks, key=lambda ack: ack.offset):
            self.truth.note(channel, ack.epoch, ack.offset, int(ack.token))

    @rule(times=st.integers(1, 3), limit=st.integers(1, 4))
    def follow(self, times: int, limit: int) -> None:
        """Let the edge read its feeds, so many times."""
        self.store.limit = limit
        for _ in range(times):
            self.store.reads.release()
        self.settle()

    @rule(
        channel=st.sampled_from(CHANNELS),
        harm=st.sampled_from(["feed", "feed", "history", "history", "meta", "all", "away", "edge"]),
        times=st.integers(0, 2),
    )
    def harm(self, channel: str, harm: str, times: int) -> None:
        """Do what may happen to an edge and a server."""
        p = partition_of(channel, PARTITIONS)
        match harm:
            case "feed":
                self.server.xtrim(KEYS.feed(p), maxlen=times, approximate=False)
            case "history":
                self.server.delete(KEYS.history(p, channel))
            case "meta":
                self.server.delete(KEYS.meta(p, channel))
            case "all":
                self.emptied = True
                self.server.flushall()
            case "away":
                self.store.away = times
            case _:
                self.replace_the_edge()

    @rule(
        channel=st.sampled_from(CHANNELS),
        count=st.integers(1, 4),
        size=st.sampled_from([1, 3, 100]),
        expires=st.sampled_from([False, False, True]),
        rings=st.booleans(),
    )
    def miss(self, channel: str, count: int, size: int, expires: bool, rings: bool) -> None:
        """Publish what the feed drops before the edge has read it, and perhaps the history, too."""
        p = partition_of(channel, PARTITIONS)
        self.publish(channel, count, size)
        self.server.xtrim(KEYS.feed(p), maxlen=0, approximate=False)
        if expires:
            self.server.delete(KEYS.history(p, channel))
        self.publish(BELLS[p] if rings else channel, 1, size)

    def replace_the_edge(self) -> None:
        """Close all clients, and start another edge."""
        self.runner.run(self.end())
        self.runner.run(self.start())
        assert all(client.state is State.AWAY for client in self.clients)

    @rule(opens=st.booleans())
    def hold_histories(self, opens: bool) -> None:
        """Hold back what reads of the history return, or let it go."""
        (self.store.gate.set if opens else self.store.gate.clear)()
        self.settle()

    @rule(who=st.integers(0, CLIENTS - 1))
    def come(self, who: int) -> None:
        """Connect, or subscribe again, from the last position on."""
        self.bring(self.clients[who])
        self.settle()

    def bring(self, client: Client) -> None:
        """Have a client ask for what it does not have."""
        if client.state is State.AWAY:
            self.runner.run(self.connected(client))
        elif client.state is State.TOLD:
            self.runner.run(self.subscribed(client))

    async def connected(self, client: Client) -> None:
        """Connect, on the loop."""
        client.come(self.hub)

    async def subscribed(self, client: Client) -> None:
        """Subscribe, on the loop."""
        client.subscribe()

    @precondition(lambda self: any(c.state is not State.AWAY for c in self.clients))
    @rule(who=st.integers(0, CLIENTS - 1))
    def go(self, who: int) -> None:
        """Lose a connection."""
        there = [client for client in self.clients if client.state is not State.AWAY]
        there[who % len(there)].go()
        self.settle()

    @rule(who=st.integers(0, CLIENTS - 1), count=st.integers(0, 3), follows=st.booleans())
    def blink(self, who: int, count: int, follows: bool) -> None:
        """Lose a connection, miss something, and be back before the edge has heard of it."""
        client = self.clients[who]
        client.go()
        if count:
            self.publish(client.channel, count, 100)
        if follows:
            self.follow(1, 1)
        self.come(who)

    # --- what must hold

    @invariant()
    def nobody_has_a_gap(self) -> None:
        """No client got what was not next."""
        assert [client.faults for client in self.clients] == [[]] * CLIENTS

    def teardown(self) -> None:
        """Let everything be well again: then everybody is at the top."""
        try:
            self.be_well()
        finally:
            self.runner.run(self.end())
            self.runner.close()
            self.ledger.close()
            self.server.close()

    def be_well(self) -> None:
        """Bring everybody back; at the latest with the next publication, nothing is missing."""
        self.store.gate.set()
        self.store.away = 0
        self.follow(times=3, limit=1000)
        self.ring(BELLS)
        # An emptied server counts records anew: one that it then lost may be noticed only with
        # the channel's next publication.
        if not self.emptied:
            self.check_tops()
        for client in self.clients:
            self.bring(client)
        self.settle()
        self.ring(CHANNELS)
        for client in self.clients:
            self.bring(client)
        self.settle()
        self.check_tops()
        assert [client.state for client in self.clients] == [State.LIVE] * CLIENTS

    def ring(self, channels: list[str]) -> None:
        """Publish to channels, and let the edge hear of it."""
        for channel in channels:
            self.publish(channel, 1, 100)
        self.follow(times=3, limit=1000)
        self.nobody_has_a_gap()

    def check_tops(self) -> None:
        """Whoever is subscribed has all of its epoch, and nothing is in a later one."""
        for client in self.clients:
            if client.state is State.LIVE:
                channel, (epoch, offset) = client.channel, client.position
                now = self.server.hget(KEYS.meta(partition_of(channel, PARTITIONS), channel), "e")
                assert offset == self.truth.top(channel, epoch)
                assert epoch == now or not self.truth.top(channel, now or "")


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_no_client_has_a_gap_that_it_is_not_told_of(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See the module."""
    monkeypatch.setattr("serve.hub.healer._BACKOFF", Backoff(first_s=0, max_s=0))
    Recoveries.url = valkey_url
    run_state_machine_as_test(
        Recoveries,
        settings=hypothesis_settings(
            max_examples=int(EXAMPLES or 100),
            stateful_step_count=40,
            derandomize=EXAMPLES is None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate, *((Phase.reuse, Phase.shrink) if EXAMPLES else ())],
            suppress_health_check=list(HealthCheck),
        ),
    )
