"""One client without its socket: frames and a clock in; messages, asks and a close out.

Sans-I/O. Commands take effect in the order received: while one waits for its answer from the
store, those after it wait as well, except that several publishes may be under way at once.

After each call, the caller takes `take_messages` (to be sent first), `take_asks` (each to be
answered by `joined`, `answer` or `failed`), and looks at `close`.
"""

import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from actors.store.interface import History as StoredHistory
from serve.auth.access import Access
from serve.auth.keys import KeysWantedError
from serve.auth.tokens import Claims
from serve.protocol.messages import (
    Close,
    Command,
    CommandBody,
    CommandError,
    Connect,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    Failure,
    History,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    Result,
    SubRefresh,
    Subscribe,
    SubscribeResult,
    Unsubscribe,
    UnsubscribeCode,
    Unsubscribed,
    UnsubscribeResult,
    one_way_close,
)
from serve.protocol.wire import Codec
from serve.session.asks import Ask, AskJoin, AskKeys, AskLeave, AskPresence, AskPublish, AskStats
from serve.session.client import Client
from serve.session.place import NOWHERE, Place
from serve.session.pulse import Pulse
from serve.session.renewal import Renewal
from serve.session.subscription import Subscription

PUBLISHES_MAX: Final = 64
"""Publishes of one client that may be under way; the next one waits."""
_CLOSE_INSTEAD: Final = {UnsubscribeCode.SUBSCRIPTION_EXPIRED: DisconnectCode.SUBSCRIPTION_EXPIRED}


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
        self._dropped: list[Subscription] = []
        self._backlog: deque[Command] = deque()
        self._waiting: Ask | None = None
        self._publishing = 0
        self._pulse = Pulse(self._limits, now=now, spread=spread, answers=not one_way)
        self._renewal = Renewal(access, self._pulse)
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
        """Do what is due at `now`: a ping, or an end of who or what is stale, silent or expired."""
        try:
            self._expire(now)
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
            self._renewal.stop()

    def drop(self, subscription: Subscription, code: UnsubscribeCode) -> bool:
        """End one subscription from the server's side, with a push; False: it is not here.

        One that the server made, or that has not been answered yet, cannot be ended so: the
        session is closed.
        """
        if self.subscriptions.get(subscription.channel) is not subscription:
            return False
        if subscription.server_side or not subscription.started:
            self.shut(_CLOSE_INSTEAD.get(code, DisconnectCode.INSUFFICIENT_STATE))
            return False
        self._end(subscription, code)
        return True

    def _end(self, subscription: Subscription, code: UnsubscribeCode) -> None:
        del self.subscriptions[subscription.channel]
        self._renewal.forget(subscription)
        body = Unsubscribed(code.value, code.reason)
        self._messages.append(self._codec.push(subscription.channel, body))

    def _expire(self, now: float) -> None:
        for subscription in self._renewal.expired(now):
            self._over(subscription)

    def _over(self, subscription: Subscription) -> None:
        if self.drop(subscription, UnsubscribeCode.SUBSCRIPTION_EXPIRED):
            self._dropped.append(subscription)

    # --- out

    def take_messages(self) -> list[bytes]:
        """Return, once, what is to be sent, in order."""
        messages, self._messages = self._messages, []
        return messages

    def take_asks(self) -> list[Ask]:
        """Return, once, what the session needs."""
        asks, self._asks = self._asks, []
        return asks

    def take_dropped(self) -> list[Subscription]:
        """Return, once, the subscriptions that have ended because their time is up."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def deadline(self) -> float:
        """Return when `tick` has something to do; infinite where it never has."""
        return min(self._pulse.deadline(), self._renewal.deadline())

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

    def keys_read(self, ask: AskKeys, now: float) -> None:
        """Know that keys were read, or could not be: the command that waits is taken again."""
        self._now = now
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
            except KeysWantedError as error:
                # Tokens are judged before anything is changed, so it can be taken again.
                self._backlog.appendleft(command)
                self._wait(AskKeys(command.id, error.keys))

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

    def _error(self, command_id: int, body: CommandBody | None, code: Failure) -> None:
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
                self._renewal.forget(subscription)
        body = Connect() if isinstance(ask, AskJoin) and ask.connecting else None
        self._error(ask.id, body, code)

    # --- connect and refresh

    def _connect(self, command_id: int, request: Connect) -> None:
        self._enter(command_id, request, self._access.claims(request.token))

    def _enter(self, command_id: int, request: Connect, claims: Claims) -> None:
        self._client = Client(self.client, claims, self._access)
        self.state = State.CONNECTING
        found = self._client.server_side(request.subs)
        if len(found) > self._limits.channels_max:
            raise DisconnectError(DisconnectCode.CHANNEL_LIMIT)
        self.subscriptions.update(found)
        self._wait(AskJoin(command_id, tuple(found.values()), connecting=True))

    def _start(self, ask: AskJoin, histories: Sequence[StoredHistory]) -> None:
        pairs = list(zip(ask.subscriptions, histories, strict=True))
        results = {s.channel: self._started(s, history) for s, history in pairs}
        if not ask.connecting:
            self._reply(ask.id, results[ask.subscriptions[0].channel])
        else:
            self.state = State.CONNECTED
            promptly = not self._client.refreshes
            self._pulse.connected(self._client.claims.ttl_s, self._now, promptly=promptly)
            result = self._client.connected(self.place, results, pongs=not self._one_way)
            self._reply(ask.id, result)
        for subscription in ask.subscriptions:
            self._send_held(subscription)

    def _started(self, subscription: Subscription, history: StoredHistory) -> SubscribeResult:
        result = subscription.start(history)
        result.expires, result.ttl = self._renewal.begin(subscription, self._now)
        return result

    def _send_held(self, subscription: Subscription) -> None:
        runs, joins = subscription.held()
        for first, bodies in runs:
            self._messages += self._codec.publications(subscription.channel, first, bodies)
        self._messages += [self._codec.push(subscription.channel, push) for push in joins]

    def _refresh(self, command_id: int, request: Refresh) -> None:
        version, mine = self.place.version, self.subscriptions
        result = self._renewal.refresh(self._client, request, mine, self._now, version=version)
        self._reply(command_id, result)

    def _sub_refresh(self, command_id: int, request: SubRefresh) -> None:
        result = self._renewal.sub_refresh(self._client, request, self.subscriptions, self._now)
        self._reply(command_id, result)

    # --- channels

    def _subscribe(self, command_id: int, request: Subscribe) -> None:
        options = self._client.room_for(request, self.subscriptions)
        self._begin(command_id, self._client.subscribe(request, options))

    def _begin(self, command_id: int, subscription: Subscription) -> None:
        self.subscriptions[subscription.channel] = subscription
        self._wait(AskJoin(command_id, (subscription,), connecting=False))

    def _unsubscribe(self, command_id: int, request: Unsubscribe) -> None:
        if not request.channel:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        subscription = self.subscriptions.pop(request.channel, None)
        if subscription is None:
            self._reply(command_id, UnsubscribeResult())
        else:
            self._renewal.forget(subscription)
            self._wait(AskLeave(command_id, subscription))

    def _publish(self, command_id: int, request: Publish) -> None:
        self._client.check_publish(request, subscribed=request.channel in self.subscriptions)
        self._send_off(command_id, request)

    def _send_off(self, command_id: int, request: Publish) -> None:
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
