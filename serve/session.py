"""One client without its socket: frames and a clock in; messages, asks and a close out.

Sans-I/O. Commands take effect in the order received: while one waits for its answer from the
store, those after it wait as well, except that several publishes may be under way at once.

After each call, the caller takes `take_messages` (to be sent first), `take_asks` (each to be
answered by `joined`, `answer` or `failed`), and looks at `close`.
"""

import enum
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from actors.store import History as StoredHistory
from serve.asks import Ask, AskJoin, AskLeave, AskPresence, AskPublish, AskStats
from serve.auth import Access, Claims
from serve.client import Client
from serve.place import NOWHERE, Place
from serve.protocol import (
    Close,
    Command,
    CommandBody,
    CommandError,
    Connect,
    ConnectResult,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    History,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    RefreshResult,
    Result,
    Rpc,
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
    UnsubscribeCode,
    Unsubscribed,
    UnsubscribeResult,
    one_way_close,
)
from serve.pulse import Pulse
from serve.subscription import Subscription
from serve.wire import Codec

PUBLISHES_MAX: Final = 64
"""Publishes of one client that may be under way; the next one waits."""


class State(enum.Enum):
    """How far a session is."""

    NEW = enum.auto()
    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    FAILED = enum.auto()
    """Connect was refused: no further command is taken."""


class Session:
    """What one client may do, and what it is told.

    Args:
        client: Its id.
        access: Who may do what.
        codec: Its codec.
        now: The caller's clock, in seconds.
        spread: 0 to 1: where in the second half of the interval the first ping is.
        one_way: It only connects; everything else comes from the server.
        place: What the client is told of the server.
    """

    def __init__(
        self,
        client: str,
        access: Access,
        codec: Codec,
        *,
        now: float,
        spread: float = 1.0,
        one_way: bool = False,
        place: Place = NOWHERE,
    ) -> None:
        self.client = client
        self.place = place
        self.state = State.NEW
        self.close: Close | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self._access = access
        self._limits = access.client
        self._codec = codec
        self._one_way = one_way
        self._client = Client(client, Claims(), access)
        self._now = now
        self._messages: list[bytes] = []
        self._asks: list[Ask] = []
        self._backlog: deque[Command] = deque()
        self._waiting: Ask | None = None
        self._publishing = 0
        self._pulse = Pulse(self._limits, now=now, spread=spread, answers=not one_way)
        self._commands: dict[type[Any], Callable[[int, Any], None]] = {
            Connect: self._connect,
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            Publish: self._publish,
            History: self._history,
            Presence: self._presence,
            PresenceStats: self._presence_stats,
            Refresh: self._refresh,
            SubRefresh: self._sub_refresh,
            Rpc: self._rpc,
            Send: self._refuse_send,
        }

    # --- in

    def receive(self, frame: bytes, now: float) -> None:
        """Take a frame. What breaks the protocol closes the session; nothing is raised."""
        self._now = now
        if self.close is not None:
            return
        try:
            for command in self._codec.decode(frame):
                if command.body is None:
                    self._pulse.pong()
                else:
                    self._backlog.append(command)
        except DisconnectError as error:
            self.shut(error.code)
        self._work()

    def connect(self, request: Connect, now: float) -> None:
        """Take the request of a one-way client."""
        self._now = now
        self._backlog.append(Command(0, request))
        self._work()

    def tick(self, now: float) -> None:
        """Do what is due at `now`: a ping, or a close of who is stale, silent or expired."""
        try:
            if self._pulse.tick(now):
                self._messages.append(self._codec.ping)
        except DisconnectError as error:
            self.shut(error.code)

    def shut(self, code: DisconnectCode | Close) -> None:
        """Close; the first reason stays. What is said already is still to be sent."""
        if self.close is None:
            self.close = code if isinstance(code, Close) else Close(code.value, code.reason)
            self._backlog.clear()
            self._asks.clear()
            self._pulse.stop()

    def drop(self, subscription: Subscription, code: UnsubscribeCode) -> bool:
        """End one subscription from the server's side, with a push; False: it is not here.

        One that has not been answered yet cannot be ended so: the session is closed.
        """
        if self.subscriptions.get(subscription.channel) is not subscription:
            return False
        if subscription.server_side or not subscription.started:
            self.shut(DisconnectCode.INSUFFICIENT_STATE)
            return False
        del self.subscriptions[subscription.channel]
        body = Unsubscribed(code.value, code.reason)
        self._messages.append(self._codec.push(subscription.channel, body))
        return True

    # --- out

    def take_messages(self) -> list[bytes]:
        """Return, once, what is to be sent, in order."""
        messages, self._messages = self._messages, []
        return messages

    def take_asks(self) -> list[Ask]:
        """Return, once, what the session needs."""
        asks, self._asks = self._asks, []
        return asks

    def deadline(self) -> float:
        """Return when `tick` has something to do; infinite where it never has."""
        return self._pulse.deadline()

    @property
    def user(self) -> str:
        """The client's user id; empty: anonymous, or not connected yet."""
        return self._client.claims.user

    @property
    def busy(self) -> bool:
        """Whether commands wait: the caller should read no more frames for now."""
        return bool(self._backlog)

    # --- answers

    def joined(self, ask: AskJoin, histories: Sequence[StoredHistory], now: float) -> None:
        """Answer a join: one history for each of its subscriptions."""
        self._now = now
        if self.close is not None:
            return
        try:
            self._start(ask, histories)
        except CommandError as error:
            self._fail(ask, error.code)
        except DisconnectError as error:
            self.shut(error.code)
        self._go_on(ask)

    def answer(self, ask: Ask, result: Result, now: float) -> None:
        """Answer anything else with its result."""
        self._now = now
        self._reply(ask.id, result)
        self._go_on(ask)

    def failed(self, ask: Ask, code: ErrorCode, now: float) -> None:
        """Answer anything with an error."""
        self._now = now
        self._fail(ask, code)
        self._go_on(ask)

    # --- the line of commands

    def _work(self) -> None:
        while self._backlog and self._waiting is None and self.close is None:
            if self._publishing >= PUBLISHES_MAX and isinstance(self._backlog[0].body, Publish):
                return
            command = self._backlog.popleft()
            try:
                self._take(command)
            except CommandError as error:
                self._error(command.id, command.body, error.code)
            except DisconnectError as error:
                self.shut(error.code)

    def _take(self, command: Command) -> None:
        take = self._commands.get(type(command.body))
        wanted = State.NEW if isinstance(command.body, Connect) else State.CONNECTED
        if take is None or self.state is not wanted:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        take(command.id, command.body)

    def _wait(self, ask: Ask) -> None:
        self._asks.append(ask)
        self._waiting = ask

    def _go_on(self, ask: Ask) -> None:
        if isinstance(ask, AskPublish):
            self._publishing -= 1
        else:
            self._waiting = None
        self._work()

    def _reply(self, command_id: int, result: Result) -> None:
        if self.close is None:
            self._messages.append(self._codec.reply(command_id, result))

    def _error(self, command_id: int, body: CommandBody | None, code: ErrorCode) -> None:
        if isinstance(body, Connect):
            self.state = State.FAILED
        if self.close is not None:
            return
        if self._one_way:
            self.shut(one_way_close(code))
        else:
            self._messages.append(self._codec.error(command_id, code))

    def _fail(self, ask: Ask, code: ErrorCode) -> None:
        if isinstance(ask, AskJoin):
            for subscription in ask.subscriptions:
                self.subscriptions.pop(subscription.channel, None)
        body = Connect() if isinstance(ask, AskJoin) and ask.connecting else None
        self._error(ask.id, body, code)

    # --- connect and refresh

    def _connect(self, command_id: int, request: Connect) -> None:
        claims = self._access.claims(request.token)
        self._client = Client(self.client, claims, self._access)
        self.state = State.CONNECTING
        found = self._client.server_side(request.subs)
        if len(found) > self._limits.channels_max:
            raise DisconnectError(DisconnectCode.CHANNEL_LIMIT)
        self.subscriptions.update(found)
        self._wait(AskJoin(command_id, tuple(found.values()), connecting=True))

    def _start(self, ask: AskJoin, histories: Sequence[StoredHistory]) -> None:
        pairs = list(zip(ask.subscriptions, histories, strict=True))
        results = {s.channel: s.start(history) for s, history in pairs}
        if not ask.connecting:
            self._reply(ask.id, results[ask.subscriptions[0].channel])
        else:
            self.state = State.CONNECTED
            self._pulse.connected(self._now)
            expires, ttl = self._expire()
            result = ConnectResult(
                client=self.client,
                version=self.place.version,
                expires=expires,
                ttl=ttl,
                subs=results,
                ping=max(1, round(self._limits.ping_interval_s)),
                pong=not self._one_way,
                session=self.place.session,
                node=self.place.node,
            )
            self._reply(ask.id, result)
        for subscription in ask.subscriptions:
            self._send_held(subscription)

    def _send_held(self, subscription: Subscription) -> None:
        runs, joins = subscription.held()
        for first, bodies in runs:
            self._messages += self._codec.publications(subscription.channel, first, bodies)
        self._messages += [self._codec.push(subscription.channel, push) for push in joins]

    def _expire(self) -> tuple[bool, int]:
        ttl_s = self._client.claims.ttl_s
        self._pulse.expire(ttl_s, self._now)
        return (False, 0) if ttl_s is None else (True, max(1, math.ceil(ttl_s)))

    def _refresh(self, command_id: int, request: Refresh) -> None:
        if not request.token:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        try:
            claims = self._access.claims(request.token)
        except CommandError as error:
            raise DisconnectError(DisconnectCode.CONNECTION_EXPIRED) from error
        if claims.user != self.user:
            raise DisconnectError(DisconnectCode.INVALID_TOKEN)
        if set(claims.channels) != set(self._client.claims.channels):
            # Which channels the server subscribes is settled at connect: have it come again.
            raise DisconnectError(DisconnectCode.INSUFFICIENT_STATE)
        self._client.claims = claims
        expires, ttl = self._expire()
        self._reply(command_id, RefreshResult(self.client, self.place.version, expires, ttl))

    def _sub_refresh(self, command_id: int, request: SubRefresh) -> None:
        del command_id
        if request.channel not in self.subscriptions:
            raise CommandError(ErrorCode.PERMISSION_DENIED)
        if not request.token:
            raise CommandError(ErrorCode.BAD_REQUEST)
        # No subscription expires by a token of its own.
        raise DisconnectError(DisconnectCode.BAD_REQUEST)

    # --- channels, and what there is nothing for

    def _subscribe(self, command_id: int, request: Subscribe) -> None:
        options = self._access.options(request.channel)
        if request.channel in self.subscriptions:
            raise CommandError(ErrorCode.ALREADY_SUBSCRIBED)
        if len(self.subscriptions) >= self._limits.channels_max:
            raise CommandError(ErrorCode.LIMIT_EXCEEDED)
        subscription = self._client.subscribe(request, options)
        self.subscriptions[request.channel] = subscription
        self._wait(AskJoin(command_id, (subscription,), connecting=False))

    def _unsubscribe(self, command_id: int, request: Unsubscribe) -> None:
        if not request.channel:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        subscription = self.subscriptions.pop(request.channel, None)
        if subscription is None:
            self._reply(command_id, UnsubscribeResult())
        else:
            self._wait(AskLeave(command_id, subscription))

    def _publish(self, command_id: int, request: Publish) -> None:
        subscription = self.subscriptions.get(request.channel)
        self._asks.append(self._client.publish(command_id, request, subscription))
        self._publishing += 1

    def _history(self, command_id: int, request: History) -> None:
        subscribed = request.channel in self.subscriptions
        self._wait(self._client.history(command_id, request, subscribed=subscribed))

    def _presence(self, command_id: int, request: Presence) -> None:
        self._check_presence(request.channel)
        self._wait(AskPresence(command_id, request.channel))

    def _presence_stats(self, command_id: int, request: PresenceStats) -> None:
        self._check_presence(request.channel)
        self._wait(AskStats(command_id, request.channel))

    def _check_presence(self, channel: str) -> None:
        self._client.check_presence(channel, subscribed=channel in self.subscriptions)

    def _rpc(self, command_id: int, request: Rpc) -> None:
        del command_id, request
        raise CommandError(ErrorCode.NOT_AVAILABLE)

    def _refuse_send(self, command_id: int, request: Send) -> None:
        del command_id, request
        raise DisconnectError(DisconnectCode.NOT_AVAILABLE)
