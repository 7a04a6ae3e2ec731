"""One edge: its parts, how they are joined, and the order in which they start and end."""

import asyncio
import contextlib
import importlib.metadata
import secrets
import time
from typing import Any, Final

from actors.metrics import Numbers, Reporter
from actors.settings.tree import Settings
from actors.store.interface import EdgeStore, FeedRecord, StatsWriter
from serve.api.calls import ApiCalls
from serve.api.clients import ClientCalls
from serve.api.intake import Intake
from serve.authorise.call import Authoriser
from serve.demo import routes as demo
from serve.directives.directive import AskChannels, Directive
from serve.directives.follower import DirectiveFollower
from serve.directives.survey import Survey
from serve.edge.app import edge_app
from serve.edge.health import Health
from serve.edge.listener import Listener
from serve.hub.feed import FeedFollower
from serve.hub.hub import Hub
from serve.transports import asgi
from serve.transports.forwarding import Emulation
from serve.transports.websocket import websocket_protocol

_MEASURE_S: Final = 1.0
_DIRECTIVES_WITHIN_S: Final = 1.0
_RESULTS_WITHIN_S: Final = 18.0
"""How long those who publish may wait for results while the edge closes, whatever
`edge.publish_timeout_s` is: then they are told that there are none yet. Serve gives an edge 30 s
(`serve/app.py`), and the listener waits up to 10 s for what is still under way."""
_TOTALS: Final = frozenset({"delivered", "delivered_bytes", "slow", "api_publishes", "api_refused"})
"""What counts from the start, among the numbers of hub and intake."""


class Edge:
    """Everything that one edge does, on the event loop that starts it. Knows nothing of Ray.

    Attributes:
        uid: Its name among the edges.
        app: The ASGI app, for any other way in (Ray Serve's own).
    """

    def __init__(self, settings: Settings, store: EdgeStore, writer: StatsWriter) -> None:
        """Join the parts; nothing is started.

        Args:
            settings: With the secrets in `auth`.
            store: Closed with the edge.
            writer: Where its numbers go.

        Raises:
            SettingsError: A public key, or a function of the user's, cannot be used.
        """
        partitions = range(settings.queue.partitions)
        version = _version()
        self.uid = secrets.token_hex(8)
        self._store = store
        self._numbers = Numbers("edge")
        self._numbers.note("version", version)
        self._totals: dict[str, float] = {}
        self._end_to_end = self._numbers.latency("end_to_end")
        self._reporter = Reporter(writer, f"edge:{self.uid}", self._numbers)
        self._intake = Intake(
            store,
            settings.queue,
            knows=lambda channel: settings.channel_settings(channel) is not None,
            timeout_s=settings.edge.publish_timeout_s,
        )
        self._authoriser = Authoriser(settings.authorise, settings.code, self._numbers)
        rule = self._authoriser.rule
        self._hub = Hub(
            settings, store, self._intake.publish, rule=rule, version=version, node=self.uid
        )
        self._emulation = Emulation(store.boxes, self.uid)
        self._follower = FeedFollower(store, partitions, self._on_records, self._hub.feed_gap)
        self._survey = Survey(store, self.uid, self._hub.channels)
        self._directives = DirectiveFollower(store.control, self._on_directive)
        self._health = Health(self._intake, self._follower, partitions)
        clients = ClientCalls(settings, store, self._survey.channels, rule)
        calls = ApiCalls(settings, store, self._intake, clients)
        routes = asgi.routes(self._hub, self._emulation)
        if settings.demo:
            routes += demo.router(self._intake.publish, store, settings).routes
        self.app = edge_app(settings, store, calls, self._health, routes)
        self._listener = Listener(
            self.app, settings.edge.listen, websocket_protocol=websocket_protocol(self._hub)
        )
        self._started_at_s = time.monotonic()
        self._measuring: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Return `host:port` where it listens."""
        return self._listener.address

    async def start(self) -> None:
        """Start all parts, and return when connections are taken.

        Waits for Valkey a second at most: while it is away the edge says so to those who ask.

        Raises:
            SettingsError: The `listen` address cannot be used. Nothing is left running.
        """
        await self._hub.start()
        self._follower.start()
        self._emulation.start()
        self._directives.start()
        self._reporter.start()
        self._measuring = asyncio.get_running_loop().create_task(self._measure(), name="measure")
        try:
            with contextlib.suppress(TimeoutError):
                # What is told to clients from their first moment on should reach them.
                await asyncio.wait_for(self._directives.ready(), _DIRECTIVES_WITHIN_S)
            await self._listener.start()
        except BaseException:
            await self.close()
            raise

    def check(self) -> None:
        """Make sure that all parts live, unless it is closing. Valkey may be away.

        Raises:
            Exception: What ended one of them. It does not come back by itself.
        """
        if self._closing is not None:
            return
        self._listener.check()
        self._follower.check()
        self._emulation.check()
        self._directives.check()
        if self._measuring is not None and self._measuring.done():
            self._measuring.result()

    async def close(self) -> None:
        """Send the clients away (3001), finish what was accepted, then stop. May be called again.

        Publishes under way still get their results: the feed is followed to the end.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._intake.drain()
        # First: clients that are sent away come back at once, and not to this edge.
        self._listener.refuse()
        async with asyncio.TaskGroup() as ending:
            ending.create_task(self._hub.close())
            ending.create_task(self._intake.close(within_s=_RESULTS_WITHIN_S))
        await self._listener.close()
        # Clients and requests, which wait for functions, are gone.
        await self._authoriser.close()
        await self._emulation.close()
        await self._health.close()
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)
        try:
            await asyncio.gather(self._follower.close(), self._directives.close())
        finally:
            await self._survey.close()
            # In a thread: it waits for the last write.
            await asyncio.to_thread(self._reporter.stop)
            await self._store.close()

    def _on_directive(self, directive: Directive) -> None:
        if isinstance(directive, AskChannels):
            self._survey.take(directive)
        else:
            self._hub.direct(directive)

    def _on_records(self, records: list[FeedRecord]) -> None:
        for record in records:
            if record.acks:
                self._intake.resolve(record.acks)
        self._hub.deliver(records)
        self._count(records)

    def _count(self, records: list[FeedRecord]) -> None:
        now = time.time()
        self._numbers.count("records", len(records))
        for record in records:
            if record.bodies:
                self._numbers.count("publications", len(record.bodies))
                self._end_to_end.record(now - record.queued_at_s, len(record.bodies))

    def snapshot(self) -> dict[str, Any]:
        """Return the edge's numbers as they are now."""
        self._take_numbers()
        return self._numbers.snapshot()

    def _take_numbers(self) -> None:
        gauges = {**self._hub.numbers(), **self._intake.numbers(), **self._authoriser.numbers()}
        for name, value in gauges.items():
            if name in _TOTALS:
                self._numbers.count(name, int(value - self._totals.get(name, 0)))
                self._totals[name] = value
            else:
                self._numbers.gauge(name, value)
        self._numbers.gauge("uptime_s", time.monotonic() - self._started_at_s)

    async def _measure(self) -> None:
        """Take the numbers on the event loop, where what they count lives."""
        while True:
            self._take_numbers()
            await asyncio.sleep(_MEASURE_S)


def _version() -> str:
    try:
        return importlib.metadata.version("raywire")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
