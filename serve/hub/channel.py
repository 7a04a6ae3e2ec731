"""One channel of this edge: its publications in order, and who gets them. Sans-I/O."""

from collections.abc import Sequence
from typing import Final

from actors.settings.tree import ChannelSettings
from actors.store.interface import History
from serve.hub.live import Live
from serve.protocol.shape import Run
from serve.protocol.wire import Wire
from serve.session.connection import Connection
from serve.session.subscription import Subscription

HELD_MAX: Final = 10_000
"""Publications held while the history is read. More: all go, and the history is read again."""


class Order:
    """Put what the feed says of one channel in order: no repeat, no gap, nothing reordered.

    What cannot follow on the top is held until `heal` has filled the gap from the history.
    Publications without offsets are passed on as they come (held as well, while others are).

    Args:
        numbered: The channel keeps a history. Its position is not known before the first `heal`.
    """

    def __init__(self, *, numbered: bool) -> None:
        self.top = 0
        """The last offset passed on."""
        self.epoch = ""
        self.known = not numbered
        self.doubts = 0
        """How often it was told to `suspect` the feed."""
        self._numbered = numbered
        self._runs: list[tuple[int, list[bytes]]] = []
        self._held: list[tuple[int, str, list[bytes]]] | None = [] if numbered else None
        self._held_count = 0
        self._overflowed = False

    def waits(self) -> bool:
        """Tell whether the history must be read, from the top on, and given to `heal`."""
        return self._held is not None

    def offer(self, first: int, epoch: str, bodies: list[bytes]) -> None:
        """Take publications from the feed; the offset of the first, 0: they have none."""
        if self._held is not None:
            self._hold(self._held, first, epoch, bodies)
        elif not first or not self._numbered:
            self._pass_on(first, bodies)
        elif epoch == self.epoch and first <= self.top + 1:
            fresh = bodies[self.top + 1 - first :]
            if fresh:
                self._pass_on(self.top + 1, fresh)
                self.top += len(fresh)
        else:
            held: list[tuple[int, str, list[bytes]]] = []
            self._held = held
            self._held_count = 0
            self._hold(held, first, epoch, bodies)

    def suspect(self) -> None:
        """Know that the feed may have lost something: hold all until `heal`."""
        self.doubts += 1
        if self._numbered and self._held is None:
            self._held = []
            self._held_count = 0

    def heal(self, history: History, *, sure: bool = True) -> bool:
        """Go on with what the history had after the top; False: some of it was gone for good.

        Afterwards `waits` may still hold: there is more to be read.

        Args:
            history: What was read.
            sure: There were no `doubts` since the read began: the feed has lost nothing that was
                committed after it.
        """
        whole, reached = True, True
        if not self.known:
            self.known = True
            self.top, self.epoch = history.offset, history.epoch
        elif history.epoch != self.epoch:
            whole = False
            self._begin_again(history)
        else:
            whole = self._append(history)
            reached = self.top >= history.offset
        if reached and sure and not self._overflowed:
            self._release()
        self._overflowed = False
        return whole

    def skip(self) -> None:
        """Give up on a gap that the history does not explain: go on with what was held."""
        for first, epoch, _ in self._held or ():
            if first:
                self.top, self.epoch = first - 1, epoch
                break
        self._release()

    def take(self) -> Sequence[Run]:
        """Return, once, what is in order, oldest first."""
        runs, self._runs = self._runs, []
        return runs

    def _append(self, history: History) -> bool:
        if not history.publications:
            whole = history.offset == self.top
            self.top = history.offset
            return whole
        first = history.publications[0][0]
        whole = first == self.top + 1
        self._pass_on(first, [body for _, body in history.publications])
        self.top = history.publications[-1][0]
        return whole

    def _begin_again(self, history: History) -> None:
        """Follow a new epoch: whoever needs no continuity still gets what is held of it."""
        self.epoch = history.epoch
        held = [first - 1 for first, epoch, _ in self._held or () if first and epoch == self.epoch]
        self.top = min([history.offset, *held])

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for first, epoch, bodies in held:
            # Of another epoch than the history's: it was over before the history was read.
            if not first or epoch == self.epoch or self._held is not None:
                self.offer(first, epoch, bodies)

    def _pass_on(self, first: int, bodies: list[bytes]) -> None:
        if self._runs:
            start, last = self._runs[-1]
            follows = start + len(last) == first if start else not first
            if follows:
                last += bodies
                return
        self._runs.append((first, bodies))

    def _hold(
        self, held: list[tuple[int, str, list[bytes]]], first: int, epoch: str, bodies: list[bytes]
    ) -> None:
        self._held_count += len(bodies)
        if self._held_count > HELD_MAX:
            held.clear()
            self._held_count = 0
            self._overflowed = True
        else:
            held.append((first, epoch, bodies))


class Channel:
    """A channel that clients of this edge are subscribed to.

    Attributes:
        live: Subscriptions that get every publication as it comes.
        joining: Subscriptions that have not got their reply, or whose position is ahead of the
            feed: each decides by itself what it needs.
        watchers: Those who are told who comes and goes.
    """

    def __init__(self, name: str, options: ChannelSettings) -> None:
        self.name = name
        self.options = options
        self.order = Order(numbered=options.has_history)
        self.live = Live()
        self.joining: dict[Subscription, Connection] = {}
        self.watchers: dict[Subscription, Connection] = {}

    def add(self, subscription: Subscription, connection: Connection) -> None:
        """Let a subscription hold what comes until its reply is made."""
        self.joining[subscription] = connection
        if subscription.pushes_joins:
            self.watchers[subscription] = connection

    def serve(self, subscription: Subscription, connection: Connection) -> None:
        """Serve a subscription that has started, from its position on."""
        if self.order.top >= subscription.position:
            self.joining.pop(subscription, None)
            self.live.add(subscription, connection)

    def remove(self, subscription: Subscription, connection: Connection) -> None:
        """Forget a subscription."""
        self.joining.pop(subscription, None)
        self.watchers.pop(subscription, None)
        self.live.remove(subscription, connection)

    def members(self) -> list[tuple[Subscription, Connection]]:
        """Return all subscriptions."""
        return [*self.joining.items(), *self.live.members()]

    def messages(self, wire: Wire, runs: Sequence[Run]) -> list[bytes]:
        """Return the pushes of publications, in order, as a wire has them."""
        encode = wire.codec.publications
        if len(runs) == 1:
            return encode(self.name, *runs[0])
        return [message for first, bodies in runs for message in encode(self.name, first, bodies)]

    def must_be_whole(self) -> bool:
        """Tell whether any subscription may not miss anything."""
        return any(subscription.positioned for subscription, _ in self.members())

    def __len__(self) -> int:
        return len(self.joining) + len(self.live)

    def lose(self) -> None:
        """End, or spoil, the subscriptions that may not miss anything, as something is missing."""
        for subscription, connection in self.members():
            if subscription.positioned:
                subscription.lose()
                if subscription.started:
                    connection.lose(subscription)
