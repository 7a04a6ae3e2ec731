"""The shell between a session, which does no I/O, and the edge: hub, store, socket and clock."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from msgspec import Raw

from actors.errors import MessageError, QueueFullError, UnavailableError
from actors.store.interface import EdgeStore, History
from serve.auth.keys import KeySet
from serve.authorise.ruling import Rule
from serve.directives.directive import ToClients
from serve.protocol.messages import (
    Close,
    CommandError,
    Connect,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    PresenceResult,
    PresenceStatsResult,
    PublishResult,
    Result,
    UnsubscribeCode,
    UnsubscribeResult,
)
from serve.protocol.wire import Wire
from serve.session.asks import (
    Ask,
    AskHistory,
    AskJoin,
    AskKeys,
    AskLeave,
    AskPresence,
    AskPublish,
    AskRefresh,
    AskRuling,
    AskStats,
)
from serve.session.directed import DirectedSession
from serve.session.subscription import Subscription

log = logging.getLogger(__name__)


class Sink(Protocol):
    """The way to one client. Nothing here blocks, and only `close` may raise.

    Whoever makes a sink calls `Connection.lost` once, when the client cannot be reached any more;
    that must come within seconds of `close`.
    """

    def write(self, block: bytes) -> None:
        """Send bytes that the wire has framed; after `close`, do nothing.

        A client that does not keep up is given to `Connection.slow`.
        """
        ...

    def close(self, close: Close) -> None:
        """End the connection, after what was written.

        Raises:
            Exception: Code or reason cannot be sent. Nothing was done, and another close comes.
        """
        ...

    def pause(self) -> None:
        """Read no more from the client for now."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...


class Surroundings(Protocol):
    """What a connection needs of the hub."""

    store: EdgeStore
    rule: Rule

    async def join(self, connection: "Connection", subscription: Subscription) -> History:
        """Register a subscription, and read what it starts with."""
        ...

    def entered(self, connection: "Connection") -> None:
        """Know who the client is: its user id is settled."""
        ...

    def serve(self, connection: "Connection", subscription: Subscription) -> None:
        """Serve a subscription whose reply is made."""
        ...

    async def leave(self, connection: "Connection", subscription: Subscription) -> None:
        """Forget a subscription; return when nobody sees it any more."""
        ...

    def drop(self, connection: "Connection", subscription: Subscription) -> None:
        """Forget a subscription at once; others see it go soon."""
        ...

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, and await it before the hub is closed."""
        ...

    async def publish(self, ask: AskPublish) -> None:
        """Publish, and wait for the commit."""
        ...

    async def read_keys(self, keys: KeySet) -> None:
        """Read the keys of tokens, or note in the set that they cannot be read."""
        ...

    def ended(self, connection: "Connection") -> None:
        """Forget all subscriptions: the session is closed."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Forget the connection: its client is gone."""
        ...

    def slow(self) -> None:
        """Count a client that was too slow."""
        ...


class Connection:
    """A client that is there: its session, and the tasks that work for it.

    All methods are for the event loop's thread. What the session says is written before the
    method that made it say so returns.
    """

    def __init__(
        self,
        hub: Surroundings,
        session: DirectedSession,
        wire: Wire,
        sink: Sink,
        clock: Callable[[], float],
    ) -> None:
        self.session = session
        self.wire = wire
        self.write = sink.write
        self._hub = hub
        self._sink = sink
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        self._ended = False
        self._lost = False
        self._arm()

    def receive(self, frame: bytes) -> None:
        """Take a frame from the client."""
        with self._guarded():
            self.session.receive(frame, self._clock())
        self._settle()

    def connect(self, request: Connect) -> None:
        """Take the request of a one-way client."""
        with self._guarded():
            self.session.connect(request, self._clock())
        self._settle()

    def shut(self, code: DisconnectCode | Close) -> None:
        """Close, from the server's side."""
        self.session.shut(code)
        self._settle()

    def slow(self) -> None:
        """Close, as the client does not keep up."""
        if self.session.close is None:
            self._hub.slow()
            self.shut(DisconnectCode.SLOW)

    def lose(self, subscription: Subscription) -> None:
        """End a subscription that has missed something."""
        if self.session.drop(subscription, UnsubscribeCode.INSUFFICIENT_STATE):
            self._hub.drop(self, subscription)
        self._settle()

    def direct(self, directive: ToClients, wall_s: float) -> None:
        """Carry out what the server API wants of this client; see `DirectedSession.direct`."""
        ended: Subscription | None = None
        with self._guarded():
            ended = self.session.direct(directive, self._clock(), wall_s)
        if ended is not None:
            self._hub.drop(self, ended)
        self._settle()

    def lost(self) -> None:
        """Know that the client is gone."""
        if not self._lost:
            self._lost = True
            self.session.shut(DisconnectCode.CONNECTION_CLOSED)
            self._settle()
            self._hub.lost(self)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Close the client where its session fails in a way that nobody has foreseen."""
        try:
            yield
        except Exception:
            # Ours to mend, but only this client's to suffer: it may come back. Raised further, it
            # would end what serves all clients, even every edge that has such a client.
            log.exception("session failed")
            self.session.shut(DisconnectCode.INTERNAL_SERVER_ERROR)

    def _settle(self) -> None:
        """Do what the session has asked for, in order: send, ask, close, wake up again."""
        messages = self.session.take_messages()
        if messages:
            for block in self.wire.pack(messages):
                self.write(block)
        for ask in self.session.take_asks():
            self._hub.own(self._answer(ask))
        if self.session.close is not None:
            self._end(self.session.close)
            return
        self._arm()
        if self.session.busy is not self._paused:
            self._paused = not self._paused
            (self._sink.pause if self._paused else self._sink.resume)()

    def _end(self, close: Close) -> None:
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._hub.ended(self)
        try:
            self._sink.close(close)
        except Exception:
            # A code or reason that its transport cannot send. The client is to go all the same.
            log.exception("client not closed as asked")
            failed = DisconnectCode.INTERNAL_SERVER_ERROR
            self._sink.close(Close(failed.value, failed.reason))

    def _arm(self) -> None:
        deadline = self.session.deadline()
        if self._timer is not None:
            if self._timer_at <= deadline:
                return  # It will wake up early, find nothing due, and be set again.
            self._timer.cancel()
        self._timer_at = deadline
        wait_s = max(0.0, deadline - self._clock())
        self._timer = self._loop.call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        with self._guarded():
            self.session.tick(self._clock())
            self._drop_expired()
        self._settle()

    def _drop_expired(self) -> None:
        for subscription in self.session.take_dropped():
            self._hub.drop(self, subscription)

    async def _answer(self, ask: Ask) -> None:
        with self._guarded():
            code = await self._refusal(ask)
            if code is not None:
                self.session.failed(ask, code, self._clock())
        self._settle()

    async def _refusal(self, ask: Ask) -> ErrorCode | None:
        """Do what is asked; return why it cannot be done."""
        try:
            await self._do(ask)
        except CommandError as error:
            return error.code
        except DisconnectError as error:
            self.session.shut(error.code)
        except QueueFullError:
            return ErrorCode.TOO_MANY_REQUESTS
        except UnavailableError as error:
            log.warning("command not answered", extra={"why": str(error)})
            return ErrorCode.INTERNAL_SERVER_ERROR
        except MessageError:
            return ErrorCode.BAD_REQUEST
        return None

    async def _do(self, ask: Ask) -> None:
        if isinstance(ask, AskJoin):
            await self._join(ask)
        elif isinstance(ask, AskKeys):
            await self._hub.read_keys(ask.keys)
            self.session.keys_read(ask, self._clock())
        elif isinstance(ask, AskRuling):
            self.session.ruled(ask, await self._hub.rule(ask.request), self._clock())
        elif isinstance(ask, AskRefresh):
            self.session.prolonged(ask, await self._hub.rule(ask.request), self._clock())
            self._drop_expired()
        else:
            self.session.answer(ask, await self._result(ask), self._clock())

    async def _result(self, ask: Ask) -> Result:
        store = self._hub.store
        if isinstance(ask, AskPublish):
            await self._hub.publish(ask)
            return PublishResult()
        if isinstance(ask, AskHistory):
            return ask.result(
                await store.history(
                    ask.channel,
                    since=ask.since,
                    limit=ask.limit,
                    reverse=ask.reverse,
                    meta_ttl_s=ask.meta_ttl_s,
                )
            )
        if isinstance(ask, AskPresence):
            clients = await store.presence(ask.channel)
            return PresenceResult({client: Raw(info) for client, info in clients.items()})
        if isinstance(ask, AskLeave):
            await self._hub.leave(self, ask.subscription)
            return UnsubscribeResult()
        if isinstance(ask, AskStats):
            return PresenceStatsResult(*await store.presence_stats(ask.channel))
        raise TypeError(f"no result for {ask}")

    async def _join(self, ask: AskJoin) -> None:
        if ask.connecting:
            self._hub.entered(self)
        found = await asyncio.gather(
            *(self._hub.join(self, subscription) for subscription in ask.subscriptions),
            return_exceptions=True,
        )
        histories = [history for history in found if not isinstance(history, BaseException)]
        try:
            for error in found:
                if isinstance(error, BaseException):
                    raise error
            # No await from here on: what comes after the reply must not overtake it.
            self.session.joined(ask, histories, self._clock())
            self._settle()
        finally:
            self._serve(ask)

    def _serve(self, ask: AskJoin) -> None:
        for subscription in ask.subscriptions:
            kept = self.session.subscriptions.get(subscription.channel) is subscription
            if kept and subscription.started and not self._ended:
                self._hub.serve(self, subscription)
            else:
                self._hub.drop(self, subscription)
