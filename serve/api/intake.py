"""The edge's way into the queue: what is published here, and the results that come back."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from actors.errors import (
    MessageError,
    NumberGapError,
    QueueFullError,
    RaywireError,
    UnavailableError,
)
from actors.message import Ack, Meta, check_channel, decode_json, without_newlines
from actors.pacing import Backoff
from actors.partition import partition_of
from actors.settings.tree import QueueSettings
from actors.store.interface import EdgeStore, NewMessage

log = logging.getLogger(__name__)

_CALL_MESSAGES_MAX: Final = 1_000
"""Messages in one call of the store."""

_encode_meta: Final = msgspec.json.Encoder().encode


class UnknownChannelError(MessageError):
    """Do not retry: the channel's namespace is not in the settings (error 102)."""


class NoResultError(UnavailableError):
    """The message is accepted, but its result did not come in time: it may still take effect."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """What is to be published: `data` is JSON text; `meta.wait` is set by the intake."""

    channel: str
    data: bytes
    meta: Meta = Meta()


Result = Ack | RaywireError


@dataclass(slots=True)
class _Waiter:
    """A message on its way, and the future that its result goes to.

    The future holds errors as values: nobody may be left to retrieve an exception.
    """

    token: str
    message: NewMessage
    lane: "_Lane"
    future: asyncio.Future[Result]
    tried: bool = False
    accepted: bool = False


class _Lane:
    """One partition's way in: at most one call of the store at a time, in the order of arrival."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.waiting: deque[_Waiter] = deque()
        self.next_number = 1
        self.trouble = ""
        """Why the last call of the store failed; empty: it did not."""
        self.task: asyncio.Task[None] | None = None


class Intake:
    """Puts messages into the queue and waits for their results.

    Messages of one channel enter the queue in the order of the calls, each at most once, also
    where the store's answer is lost and the call repeated. All that arrives within one turn of the
    event loop, or while a call is under way, goes in one call for each partition.

    At most `waiting_max` messages, and `waiting_bytes_max` bytes of data, tags and the like, wait
    for their results; more are refused as by a full queue.
    """

    def __init__(
        self,
        store: EdgeStore,
        queue: QueueSettings,
        *,
        knows: Callable[[str], bool],
        timeout_s: float,
        waiting_max: int = 20_000,
        waiting_bytes_max: int = 64 * 2**20,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare.

        Args:
            store: Where the queue is.
            queue: Limits, and the number of partitions.
            knows: Whether a channel's namespace is in the settings.
            timeout_s: How long a message may take from the call to its result.
            waiting_max: Messages that may wait.
            waiting_bytes_max: Bytes of their data and their `Meta`.
            clock: Monotonic seconds.
            backoff: Waits between calls that failed.
        """
        self._store = store
        self._queue = queue
        self._knows = knows
        self._timeout_s = timeout_s
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._clock = clock
        self._backoff = Backoff() if backoff is None else backoff
        self._producer = secrets.token_hex(8)
        self._tokens = 0
        self._waiters: dict[str, _Waiter] = {}
        self._waiting_bytes = 0
        self._accepted = self._refused = 0
        self._lanes: dict[int, _Lane] = {}
        self._closing = self._closed = False

    def numbers(self) -> dict[str, float]:
        """Return how many messages wait for results; the others count from the start."""
        return {
            "api_waiting": len(self._waiters),
            "api_publishes": self._accepted,
            "api_refused": self._refused,
        }

    async def publish(self, channel: str, data: bytes, meta: Meta) -> Ack:
        """Publish one message and return its result, after the commit.

        A message that became a dead letter has a result too: see `Ack.error`.

        Raises:
            UnknownChannelError: The channel's namespace is unknown. Nothing was accepted.
            MessageError: The message breaks a rule. Nothing was accepted.
            QueueFullError: There is no room. Nothing was accepted.
            NoResultError: No result in time. The message is accepted.
            UnavailableError: No answer of the queue in time. The text says whether the message may
                still take effect.
        """
        result = (await self.publish_many([Outgoing(channel, data, meta)]))[0]
        if isinstance(result, RaywireError):
            raise result
        return result

    async def publish_many(
        self, messages: Sequence[Outgoing], *, timeout_s: float | None = None
    ) -> list[Result]:
        """Publish messages and return, in the same order, the result or the error of each.

        Each stands alone: one that is refused does not keep the others out. The errors are those
        of `publish`.

        Args:
            messages: What to publish.
            timeout_s: How long to wait for the results; None: as long as `publish` does.
        """
        shape = _Shape()
        offered = [self._offer(message, shape) for message in messages]
        return await self._results(offered, self._timeout_s if timeout_s is None else timeout_s)

    async def probe(self, partitions: Iterable[int], *, timeout_s: float) -> list[Result]:
        """Send a message that makes no publication through each partition; see `publish_many`."""
        probes = [Outgoing(self._probe_channel(p), b"null", Meta(probe=True)) for p in partitions]
        return await self.publish_many(probes, timeout_s=timeout_s)

    def resolve(self, acks: Iterable[Ack]) -> None:
        """Take results from the feed; those of others are passed over."""
        for ack in acks:
            waiter = self._waiters.get(ack.token)
            if waiter is not None:
                self._settle(waiter, ack)

    def drain(self) -> None:
        """Refuse what comes from now on; what was taken before goes its way."""
        self._closing = True

    async def close(self, *, within_s: float = 0.0) -> None:
        """Let those who wait have results for so long; then they get `UnavailableError`.

        What has not entered the queue by then is dropped.
        """
        self._closing = True
        if self._waiters and within_s:
            await asyncio.wait([w.future for w in self._waiters.values()], timeout=within_s)
        self._closed = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiter in list(self._waiters.values()):
            self._settle(waiter, _no_result(waiter))

    # --- from the call to the lane

    def _offer(self, outgoing: Outgoing, shape: "_Shape") -> _Waiter | RaywireError:
        try:
            self._check(outgoing)
            return self._accept(outgoing.channel, shape(outgoing.data), outgoing.meta)
        except RaywireError as error:
            self._refused += 1
            return error

    def _check(self, outgoing: Outgoing) -> None:
        """Check all but what costs as much as the message is large."""
        check_channel(outgoing.channel)
        if not self._knows(outgoing.channel):
            raise UnknownChannelError("the channel's namespace is unknown")
        limit = self._queue.message_bytes_max
        if len(outgoing.data) > limit:
            raise MessageError(f"data is larger than {limit} bytes (queue.message_bytes_max)")
        if self._closing:
            raise UnavailableError("this edge is shutting down: nothing was accepted")
        if (
            len(self._waiters) >= self._waiting_max
            or self._waiting_bytes + len(outgoing.data) > self._waiting_bytes_max
        ):
            raise QueueFullError("too many messages wait at this edge: nothing was accepted")

    def _accept(self, channel: str, data: bytes, meta: Meta) -> _Waiter:
        """Register the message and line it up. No await: its turn is the order of the calls."""
        self._tokens += 1
        token = f"{self._producer}:{self._tokens}"
        text = _encode_meta(msgspec.structs.replace(meta, wait=token))
        if len(text) > self._queue.message_bytes_max:
            raise MessageError("tags and info are larger than queue.message_bytes_max")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(token, NewMessage(channel, data, text), self._lane(channel), future)
        # Before the call of the store: the result may come sooner than its answer.
        self._waiters[token] = waiter
        self._waiting_bytes += _bytes(waiter)
        self._line_up(waiter)
        return waiter

    def _line_up(self, waiter: _Waiter) -> None:
        lane = waiter.lane
        lane.waiting.append(waiter)
        if lane.task is None:
            # The task begins in the next turn of the loop, and takes all that came in this one.
            lane.task = asyncio.get_running_loop().create_task(self._send(lane))

    def _lane(self, channel: str) -> _Lane:
        partition = partition_of(channel, self._queue.partitions)
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = _Lane(partition)
        return lane

    def _probe_channel(self, partition: int) -> str:
        """Name the reserved channel of a partition."""
        number = 0
        while partition_of(f"raywire.probe.{number}", self._queue.partitions) != partition:
            number += 1
        return f"raywire.probe.{number}"

    # --- from the lane to the queue

    async def _send(self, lane: _Lane) -> None:
        """Empty the lane, call by call."""
        try:
            while waiters := self._next(lane):
                accepted = await self._enqueue(lane, waiters)
                self._accepted += accepted
                self._refused += len(waiters) - accepted
                for waiter in waiters[:accepted]:
                    waiter.accepted = True
                for waiter in waiters[accepted:]:
                    self._settle(waiter, QueueFullError("the queue is full: nothing was accepted"))
        except UnavailableError as error:
            log.warning("messages not queued", extra={"why": str(error)})
        finally:
            # No await since the lane was last seen empty.
            lane.task = None
            if lane.waiting and not self._closing:
                lane.task = asyncio.get_running_loop().create_task(self._send(lane))

    def _next(self, lane: _Lane) -> list[_Waiter]:
        """Take the next messages that someone still waits for, with the numbers they need."""
        waiters: list[_Waiter] = []
        while lane.waiting and len(waiters) < _CALL_MESSAGES_MAX:
            waiter = lane.waiting.popleft()
            if not waiter.future.done():
                waiter.tried = True
                waiters.append(waiter)
        return waiters

    async def _enqueue(self, lane: _Lane, waiters: list[_Waiter]) -> int:
        """Return how many were accepted; repeat the call while its answer is lost.

        The messages keep their numbers, so the store leaves out what it has.

        Raises:
            UnavailableError: No answer within the time that a message has. Those who wait for
                these messages are told by their own deadlines.
        """
        first_number = lane.next_number
        # Given up without an answer, they keep their numbers: nothing else may be taken for them.
        lane.next_number += len(waiters)
        begins = False
        deadline = self._clock() + self._timeout_s
        failures = 0
        while True:
            try:
                accepted = await self._store.enqueue(
                    lane.partition,
                    [waiter.message for waiter in waiters],
                    entries_max=self._queue.entries_max,
                    producer=self._producer,
                    first_number=first_number,
                    begins=begins,
                )
            except NumberGapError:
                # No call of ours is under way but this one: what is missing was given up, or
                # the server has forgotten it.
                begins = True
            except UnavailableError as error:
                lane.trouble = str(error)
                failures += 1
                wait_s = self._backoff.wait_s(failures)
                # Closed: redis-py takes a cancellation while it connects for a timeout.
                if self._closed or self._clock() + wait_s > deadline:
                    raise
                await asyncio.sleep(wait_s)
            else:
                lane.trouble = ""
                # What a full queue refused has used no number.
                lane.next_number = first_number + accepted
                return accepted

    # --- results

    async def _results(
        self, offered: Sequence[_Waiter | RaywireError], timeout_s: float
    ) -> list[Result]:
        waiters = [waiter for waiter in offered if isinstance(waiter, _Waiter)]
        try:
            if waiters:
                await asyncio.wait([w.future for w in waiters], timeout=timeout_s)
        finally:
            # Also where the caller is cancelled: nobody waits any more, and what has not been
            # tried stays out of the queue.
            for waiter in waiters:
                if not waiter.future.done():
                    self._settle(waiter, _no_result(waiter))
        return [o.future.result() if isinstance(o, _Waiter) else o for o in offered]

    def _settle(self, waiter: _Waiter, result: Result) -> None:
        """Give a message its result; the first one counts."""
        if self._waiters.pop(waiter.token, None) is not None:
            self._waiting_bytes -= _bytes(waiter)
            waiter.future.set_result(result)


def _bytes(waiter: _Waiter) -> int:
    return len(waiter.message.data) + len(waiter.message.meta)


class _Shape:
    """Gives data without raw newlines, if it is JSON; once for all messages that share it."""

    def __init__(self) -> None:
        self._data: bytes | None = None
        self._shaped = b""
        self._wrong = ""

    def __call__(self, data: bytes) -> bytes:
        if data is not self._data:
            self._data, self._shaped, self._wrong = data, b"", ""
            try:
                decode_json(data)
                self._shaped = without_newlines(data)
            except MessageError as error:
                self._wrong = str(error)
        if self._wrong:
            raise MessageError(self._wrong)
        return self._shaped


def _no_result(waiter: _Waiter) -> UnavailableError:
    if waiter.accepted:
        return NoResultError(
            "the message is accepted, but its result is not known yet: it may still take effect"
        )
    why = waiter.lane.trouble or "the queue does not answer"
    if waiter.tried:
        return UnavailableError(f"{why}: the message may still take effect")
    return UnavailableError(f"{why}: nothing was accepted")
