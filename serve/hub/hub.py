"""The subscriptions of one edge: takes what the feed says, and gives it to the clients."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from msgspec import Raw

from actors.errors import MessageError, UnavailableError
from actors.message import Ack, Meta
from actors.partition import partition_of
from actors.settings.tree import Settings
from actors.store.interface import EdgeStore, FeedRecord, History
from actors.transform.load import compile_pattern
from serve.auth.access import Access
from serve.auth.jwks import KeyReader
from serve.authorise.ruling import Rule, no_rule
from serve.directives.directive import ToClients
from serve.hub.audience import Audience
from serve.hub.beginning import Beginning
from serve.hub.channel import Channel
from serve.hub.healer import Healer
from serve.hub.position_check import PositionCheck
from serve.hub.presence import PresenceKeeper
from serve.protocol.messages import DisconnectCode, DisconnectError, Join, Leave
from serve.protocol.shape import Run
from serve.protocol.wire import Wire
from serve.session.approach import UNKNOWN, Approach
from serve.session.asks import AskPublish
from serve.session.connection import Connection, Sink
from serve.session.directed import DirectedSession
from serve.session.place import Place
from serve.session.subscription import Subscription

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S: Final = 10.0
"""How long `close` waits for clients and tasks."""


class Hub:
    """Everything that clients of this edge are subscribed to.

    Subscribers of a channel with history get its publications in the order of their offsets, each
    once, and without a gap, or else are told so (unsubscribe 2500, disconnect 3010). Subscribers
    of other channels get what the feed hands on, in its order.

    All methods are for the event loop's thread.
    """

    def __init__(
        self,
        settings: Settings,
        store: EdgeStore,
        publish: Callable[[str, bytes, Meta], Awaitable[Ack]],
        *,
        rule: Rule = no_rule,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        spread: Callable[[], float] = random.random,
        version: str = "",
        node: str = "",
    ) -> None:
        """Prepare.

        Args:
            settings: The whole tree.
            store: Where histories and presence are. Closed by whoever made it.
            publish: Takes channel, data (JSON text) and meta; returns after the commit.
            rule: Asks the functions that the settings name.
            clock: Monotonic seconds.
            wall: Seconds since the epoch, for tokens.
            spread: Random numbers from 0 to 1, which keep pings apart.
            version: Of the server, as told to clients.
            node: The name of this edge, as told to clients that must name it.

        Raises:
            SettingsError: A public key cannot be used.
        """
        self.settings = settings
        self.access = Access(settings, wall, clock)
        self.read_keys = KeyReader().read
        self.rule = rule
        self.store = store
        self._publish = publish
        self._clock = clock
        self._wall = wall
        self._spread = spread
        self._version = version
        self._node = node
        self._channels: dict[str, Channel] = {}
        self._connections: dict[Connection, dict[Subscription, None]] = {}
        self._audience = Audience()
        self._presence = PresenceKeeper(store, settings.client)
        self._healer = Healer(store, self._wanted, lambda channel: self._flush((channel,)))
        self._positions = PositionCheck(
            store, settings.client.position_check_s, self._channels.values, self._suspect
        )
        self._beginning = Beginning(store, settings.client, self._healer, self._suspect)
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._closing = False
        self._delivered = self._delivered_bytes = self._slow = 0

    # --- life

    async def start(self) -> None:
        """Begin to renew the clients' presence, and to check positions."""
        self._presence.start()
        self._positions.start()

    async def close(self) -> None:
        """Close every client (3001), and wait until all are gone and forgotten, some seconds."""
        self._closing = True
        for connection in list(self._connections):
            connection.shut(DisconnectCode.SHUTDOWN)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                if self._connections:
                    self._empty.clear()
                    await self._empty.wait()
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            log.warning("clients not gone in time", extra={"clients": len(self._connections)})
        rest = list(self._tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._positions.close()
        await self._healer.close()
        await self._presence.close()

    @property
    def full(self) -> bool:
        """Whether one more client must be refused (status 503)."""
        return self._closing or len(self._connections) >= self.settings.client.connections_max

    def connect(
        self,
        sink: Sink,
        wire: Wire,
        *,
        one_way: bool = False,
        emulated: bool = False,
        approach: Approach = UNKNOWN,
    ) -> Connection:
        """Take a new client.

        Call `receive` (one way: `connect`) of the connection with what comes from it, and `lost`
        when it is gone. A client that is `emulated` sends by requests that name its session.
        """
        secret = str(uuid.uuid4()) if one_way or emulated else ""
        place = Place(self._version, secret, self._node if emulated else "")
        session = DirectedSession(
            str(uuid.uuid4()),
            self.access,
            wire.codec,
            now=self._clock(),
            spread=self._spread(),
            one_way=one_way,
            place=place,
            approach=approach,
        )
        connection = Connection(self, session, wire, sink, self._clock)
        self._connections[connection] = {}
        return connection

    def numbers(self) -> dict[str, float]:
        """Return how many there are of everything; what was delivered counts from the start."""
        connected = [c.session for c in self._connections if c.session.close is None]
        return {
            "num_clients": len(connected),
            "num_users": len({session.user for session in connected}),
            "num_channels": len(self._channels),
            "num_subs": sum(map(len, self._channels.values())),
            "delivered": self._delivered,
            "delivered_bytes": self._delivered_bytes,
            "slow": self._slow,
        }

    def channels(self, pattern: str) -> dict[str, int]:
        """Return channel -> subscribers here, for names that fit the pattern; empty: all."""
        fits = compile_pattern(pattern or "*")
        return {name: len(channel) for name, channel in self._channels.items() if fits(name)}

    def direct(self, directive: ToClients) -> None:
        """Carry out what the server API wants of clients, for those here. Does not raise."""
        self._audience.carry_out(directive, self._wall())

    # --- the feed

    def deliver(self, records: Sequence[FeedRecord]) -> None:
        """Give what one read of the feed returned to whoever is subscribed. Does not raise."""
        touched: dict[Channel, None] = {}
        for record in records:
            end = 0
            for group in record.groups:
                start, end = end, end + group.count
                channel = self._channels.get(group.channel)
                if channel is not None:
                    channel.order.offer(group.first, group.epoch, record.bodies[start:end])
                    touched[channel] = None
            if record.joins:
                self._flush(touched)
                touched.clear()
                self._deliver_joins(record.joins)
        self._flush(touched)

    def feed_gap(self, partition: int) -> None:
        """Know that feed records of a partition were missed: its channels heal from history."""
        partitions = self.settings.queue.partitions
        for channel in self._channels.values():
            if partition_of(channel.name, partitions) == partition:
                self._suspect(channel)

    def _wanted(self, channel: Channel) -> bool:
        return self._channels.get(channel.name) is channel

    def _suspect(self, channel: Channel) -> None:
        channel.order.suspect()
        self._healer.look(channel)

    def _flush(self, channels: Iterable[Channel]) -> None:
        """Send what is in order. A client's blocks, of several channels, go in one write."""
        blocks: dict[Connection, list[bytes]] = {}
        for channel in channels:
            runs = channel.order.take()
            if runs:
                self._send(channel, runs, blocks)
            self._healer.look(channel)
        for connection, parts in blocks.items():
            if len(parts) == 1:
                connection.write(parts[0])
            elif connection.wire.stream:
                connection.write(b"".join(parts))
            else:
                for part in parts:
                    connection.write(part)

    def _send(
        self, channel: Channel, runs: Sequence[Run], blocks: dict[Connection, list[bytes]]
    ) -> None:
        for wire, members, shaped in channel.live.take(runs):
            count = sum(len(bodies) for _, bodies in shaped)
            if not count:
                continue
            frames = wire.pack(channel.messages(wire, shaped))
            size = sum(map(len, frames))
            for connection in members.values():
                parts = blocks.get(connection)
                if parts is None:
                    blocks[connection] = list(frames)
                else:
                    parts += frames
            self._delivered += count * len(members)
            self._delivered_bytes += size * len(members)
        if channel.joining:
            self._send_joining(channel, runs)

    def _send_joining(self, channel: Channel, runs: Sequence[Run]) -> None:
        for subscription, connection in tuple(channel.joining.items()):
            fresh = [rest for run in runs if (rest := subscription.offer(run)) is not None]
            shaped = subscription.shape.shaped(fresh)
            if shaped:
                for block in connection.wire.pack(channel.messages(connection.wire, shaped)):
                    connection.write(block)
            if subscription.started and subscription in channel.joining:
                channel.serve(subscription, connection)

    def _deliver_joins(self, joins: Sequence[tuple[str, str, bytes]]) -> None:
        for name, kind, info in joins:
            channel = self._channels.get(name)
            if channel is None or not channel.watchers:
                continue
            push = Join(Raw(info)) if kind == "join" else Leave(Raw(info))
            for subscription, connection in tuple(channel.watchers.items()):
                now = subscription.offer_join(push)
                if now is not None:
                    connection.write(connection.wire.frame(connection.wire.codec.push(name, now)))

    # --- what connections need (see `serve.session.connection.Surroundings`)

    async def join(self, connection: Connection, subscription: Subscription) -> History:
        """Register a subscription; return what it starts with, when it is in the presence.

        Raises:
            CommandError: It wants to recover or nothing, and cannot. Nobody has seen it.
            UnavailableError: The client is gone, or the store away; it is to be dropped.
        """
        mine = self._connections.get(connection)
        if mine is None or connection.session.close is not None:
            raise UnavailableError("the client is gone")
        mine[subscription] = None
        channel = self._channels.get(subscription.channel)
        if channel is None:
            channel = Channel(subscription.channel, subscription.options)
            self._channels[channel.name] = channel
        channel.add(subscription, connection)
        self._healer.look(channel)
        history = await self._beginning.read(channel, subscription)
        subscription.check(history)
        if subscription not in mine:
            raise UnavailableError("the client has gone meanwhile")
        await self._presence.enter(subscription)
        return history

    def entered(self, connection: Connection) -> None:
        """Let directives find a client: its user id is settled.

        Raises:
            DisconnectError: The user has too many connections to this edge.
        """
        if connection not in self._connections:
            return
        most = self.settings.client.user_connections_max
        if most and self._audience.count(connection.session.user) >= most:
            raise DisconnectError(DisconnectCode.CONNECTION_LIMIT)
        self._audience.enter(connection)

    def serve(self, connection: Connection, subscription: Subscription) -> None:
        """Serve a subscription whose reply is made."""
        channel = self._channels.get(subscription.channel)
        if channel is not None and subscription in channel.joining:
            channel.serve(subscription, connection)

    async def leave(self, connection: Connection, subscription: Subscription) -> None:
        """Forget a subscription; return when it is out of the presence."""
        self._forget(connection, subscription)
        self._connections.get(connection, {}).pop(subscription, None)
        await self._presence.leave((subscription,))

    def drop(self, connection: Connection, subscription: Subscription) -> None:
        """Forget a subscription at once; it is taken out of the presence soon."""
        self._forget(connection, subscription)
        self._connections.get(connection, {}).pop(subscription, None)
        self._leave_soon((subscription,))

    async def publish(self, ask: AskPublish) -> None:
        """Publish, and wait for the commit.

        Raises:
            MessageError: It was refused, at once or on its way.
            UnavailableError: See the function given to the hub.
        """
        ack = await self._publish(ask.channel, ask.data, ask.meta)
        if ack.error:
            raise MessageError(ack.error)

    def ended(self, connection: Connection) -> None:
        """Forget all subscriptions of a connection."""
        mine = self._connections.get(connection, {})
        gone = list(mine)
        mine.clear()
        for subscription in gone:
            self._forget(connection, subscription)
        self._leave_soon(gone)

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)
        self._audience.leave(connection)
        if not self._connections:
            self._empty.set()

    def slow(self) -> None:
        """Count a client that was too slow."""
        self._slow += 1

    def _forget(self, connection: Connection, subscription: Subscription) -> None:
        channel = self._channels.get(subscription.channel)
        if channel is not None:
            channel.remove(subscription, connection)
            if not len(channel):
                del self._channels[channel.name]

    def _leave_soon(self, subscriptions: Sequence[Subscription]) -> None:
        present = [subscription for subscription in subscriptions if subscription in self._presence]
        if present:
            self.own(self._presence.leave(present))

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, and await it in `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
