"""One client's subscription to one channel: what it starts with, and the race at its start.

Sans-I/O. From its registration on, the hub offers a subscription every publication of the
channel, in order. Until the reply is made it holds them; then it passes on, without a gap or a
repeat, what comes after the position that the reply gave, or, where it gave none, all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.settings.tree import ChannelSettings
from actors.store.interface import History
from serve.auth.tokens import Grant
from serve.protocol.json_codec import publication
from serve.protocol.messages import (
    CommandError,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    Join,
    Leave,
    StreamPosition,
    SubscribeResult,
)
from serve.protocol.shape import STORED, Deltas, Filtered, Run, Shape

HELD_BYTES_MAX = 2**20
"""Publications held while the reply is made; more: the subscription is lost (code 3010)."""
HELD_JOINS_MAX = 1_000
"""Joins and leaves held while the reply is made; more are not told."""


@dataclass(frozen=True, slots=True)
class Read:
    """What must be read of a channel's history (arguments of `EdgeStore.history`)."""

    since: int | None
    limit: int
    reverse: bool


class Subscription:
    """What a client has of a channel.

    Args:
        channel: The channel.
        options: Its settings.
        info: The client as others see it: `ClientInfo` as JSON.
        grant: What its token gives; None: it has none.
        server_side: The server made it; it ends only with the connection.
        recover: From where the client asks for what it missed; None: it does not.
        positioned: The client must not miss anything unknowingly.
        recoverable: The client may recover later; implies `positioned`.
        pushes_joins: Tell it who comes and goes.
        must_recover: Refuse (error 112) rather than start with a gap.
        shape: How its publications look; deltas only where it is positioned.
    """

    def __init__(
        self,
        channel: str,
        options: ChannelSettings,
        info: bytes,
        grant: Grant | None = None,
        *,
        server_side: bool = False,
        recover: StreamPosition | None = None,
        positioned: bool = False,
        recoverable: bool = False,
        pushes_joins: bool = False,
        must_recover: bool = False,
        shape: Shape = STORED,
    ) -> None:
        self.channel = channel
        self.options = options
        self.info = info
        self.grant = grant if grant is not None else Grant()
        self.server_side = server_side
        self.recoverable = recoverable and options.has_history
        self.positioned = (positioned or recoverable) and options.has_history
        self.pushes_joins = pushes_joins
        self.shape = shape if self.positioned or not isinstance(shape, Deltas) else STORED
        self.started = False
        self.position = 0
        """After `start`: the last offset that the client was given; 0: it is not positioned."""
        self._was_recovering = recover is not None
        self._recover = recover if self.recoverable else None
        self._must_recover = must_recover
        self._runs: list[Run] = []
        self._joins: list[Join | Leave] = []
        self._held_bytes = 0
        self._broken = False

    def read(self, top: int, epoch: str, limit: int) -> Read | None:
        """Return what must be read of the history before `start`, if the channel is at `top`."""
        ask = self._recover
        if ask is None:
            return None
        if self.options.force_recovery_mode == "cache":
            most = limit if isinstance(self.shape, Filtered) else 1
            at_top = (ask.offset, ask.epoch) == (top, epoch)
            return None if at_top else Read(None, most, reverse=True)
        hopeless = (ask.epoch and ask.epoch != epoch) or top - ask.offset > limit
        if hopeless or ask.offset == top:
            return None
        return Read(ask.offset, limit, reverse=False)

    def start(self, history: History) -> SubscribeResult:
        """Make the reply of what was read; where nothing had to be, of the position alone.

        Raises:
            CommandError: The client wanted to recover or nothing, and cannot.
            DisconnectError: What came meanwhile does not follow on the history.
        """
        self.check(history)
        result = SubscribeResult(
            recoverable=self.recoverable,
            positioned=self.positioned,
            was_recovering=self._was_recovering,
            delta=isinstance(self.shape, Deltas),
        )
        result.data = self.grant.data
        if self.positioned:
            result.offset, result.epoch = history.offset, history.epoch
        if self._recover is not None:
            self._start_recovering(self._recover, history, result)
        # One without positions takes what comes: after a loss, offsets may begin again below.
        self.position = history.offset if self.positioned else 0
        self.started = True
        if self._broken:
            raise DisconnectError(DisconnectCode.INSUFFICIENT_STATE)
        return result

    def check(self, history: History) -> None:
        """Make sure that `start` will not refuse what was read.

        Raises:
            CommandError: The client wanted to recover or nothing, and cannot.
        """
        if self._must_recover and self._recover is not None:
            whole, _ = self._missed(self._recover, history)
            if not whole:
                raise CommandError(ErrorCode.UNRECOVERABLE_POSITION)

    def _start_recovering(
        self, ask: StreamPosition, history: History, result: SubscribeResult
    ) -> None:
        result.recovered, missed = self._missed(ask, history)
        if result.recovered:
            result.publications = [publication(offset, body) for offset, (body,) in missed]
            # The client goes forward from here with each of the publications.
            result.offset = ask.offset

    def _missed(self, ask: StreamPosition, history: History) -> tuple[bool, Sequence[Run]]:
        """Return whether the client can recover, and what it missed, in its shape."""
        cache = self.options.force_recovery_mode == "cache"
        if cache and (ask.offset, ask.epoch) == (history.offset, history.epoch):
            # It has the latest, though the history may have been read, as the feed was behind.
            return history.offset > 0, []
        missed = self.shape.shaped([(offset, [body]) for offset, body in history.publications])
        if cache:
            # The newest comes first. https://centrifugal.dev/docs/server/cache_recovery
            return bool(missed) and history.publications[0][0] == history.offset, missed[:1]
        return recovered(ask, history), missed

    def offer(self, run: Run) -> Run | None:
        """Take publications that follow on those offered before; return what to send now.

        They are as they were offered: `shape` is for the caller.
        """
        if not self.started:
            self._hold(run)
            return None
        first, bodies = run
        if not first or not self.positioned:
            return run
        repeats = max(0, self.position + 1 - first)
        if repeats >= len(bodies):
            return None
        self.position = first + len(bodies) - 1
        return first + repeats, bodies[repeats:]

    def offer_join(self, push: Join | Leave) -> Join | Leave | None:
        """Take news of who comes or goes; return what to send now."""
        if self.started:
            return push
        if len(self._joins) < HELD_JOINS_MAX:
            self._joins.append(push)
        return None

    def held(self) -> tuple[Sequence[Run], list[Join | Leave]]:
        """Return, once, what was held and comes after the reply, in its shape.

        Raises:
            DisconnectError: It does not follow on the position of the reply.
        """
        runs, self._runs = self._runs, []
        joins, self._joins = self._joins, []
        fresh: list[Run] = []
        for run in runs:
            if self.positioned and run[0] > self.position + 1:
                raise DisconnectError(DisconnectCode.INSUFFICIENT_STATE)
            rest = self.offer(run)
            if rest is not None:
                fresh.append(rest)
        return self.shape.shaped(fresh), joins

    def lose(self) -> None:
        """Know, before `start`, that publications are missing: a positioned one cannot start."""
        self._broken = self.positioned

    def _hold(self, run: Run) -> None:
        self._held_bytes += sum(map(len, run[1]))
        if self._held_bytes > HELD_BYTES_MAX:
            self._broken = True
            self._runs.clear()
        elif not self._broken:
            self._runs.append(run)


def recovered(ask: StreamPosition, history: History) -> bool:
    """Tell whether `history` holds all that came after a position, up to the top.

    https://centrifugal.dev/docs/server/history_and_recovery
    """
    if ask.epoch and ask.epoch != history.epoch:
        return False
    if not history.publications:
        return ask.offset == history.offset
    first, last = history.publications[0][0], history.publications[-1][0]
    return first == ask.offset + 1 and last == history.offset
