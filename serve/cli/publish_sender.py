"""Messages into the queue: each once, in order; a full queue or an absent server is waited for."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

from actors.errors import NumberGapError, UnavailableError
from actors.message import Meta, encode_json
from actors.pacing import Backoff
from actors.store.interface import EdgeStore, NewMessage

_BACKOFF: Final = Backoff()
_FULL: Final = Backoff(max_s=1.0)
_FEED_LIMIT: Final = 1000


class Sender:
    """Appends messages of one partition, numbered, so that a lost answer repeats nothing.

    One block is under way at a time: a second one sent along could overtake the part of the
    first that a full queue refused.

    Attributes:
        number: The number of the next message.
        uncertain: The last call had no answer: what it carried may have been accepted.
    """

    def __init__(
        self,
        store: EdgeStore,
        waits: Callable[[str], None],
        *,
        partition: int,
        entries_max: int,
        timeout_s: float,
        stopping: asyncio.Event,
        producer: str = "",
        first_number: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to send.

        Args:
            store: Where to.
            waits: Told why, each time that it waits.
            partition: Of the channel.
            entries_max: Where the queue is full.
            timeout_s: How long the server may be away before we give up.
            stopping: Set from outside: stop waiting.
            producer: Name under which messages are numbered; made up unless given.
            first_number: Number of the first message.
            clock: Monotonic.
        """
        self.producer = producer or secrets.token_hex(8)
        self.number = first_number
        self.uncertain = False
        self._store = store
        self._waits = waits
        self._partition = partition
        self._entries_max = entries_max
        self._timeout_s = timeout_s
        self._stopping = stopping
        self._clock = clock

    async def send(self, messages: Sequence[NewMessage]) -> int:
        """Append messages and return how many were accepted: all, unless `stopping` was set.

        Raises:
            UnavailableError: The server was away for too long, or while we were to stop. `number`
                says what was accepted for certain; see also `uncertain`.
        """
        sent = 0
        idle = 0
        while sent < len(messages):
            accepted = await self._offer(
                messages[sent:], producer=self.producer, number=self.number
            )
            sent += accepted
            self.number += accepted
            if sent < len(messages):
                if self._stopping.is_set():
                    break
                idle = 0 if accepted else idle + 1
                self._waits("the queue is full")
                await self._pause(_FULL.wait_s(idle + 1))
        return sent

    async def applied(self, channel: str) -> None:
        """Wait until all that was sent has been applied, or `stopping` is set.

        A probe follows the messages through the pipeline; its result in the feed says that
        everything before it in the queue is done.

        Raises:
            UnavailableError: The server was away for too long.
        """
        token = secrets.token_hex(8)
        ends = await self._store.feed_ends([self._partition])
        after = {self._partition: ends[self._partition][0]}
        probe = NewMessage(channel, b"null", encode_json(Meta(wait=token, probe=True)))
        # Not numbered: it is not a message, and sending it twice does no harm.
        while not await self._offer([probe], producer="", number=0):
            if self._stopping.is_set():
                return
            self._waits("the queue is full")
            await self._pause(_BACKOFF.wait_s(4))
        while not self._stopping.is_set():
            self._waits("until all is applied")
            records = await self._store.read_feed(after, limit=_FEED_LIMIT, block_s=0.5)
            for record in records:
                after[record.partition] = record.id
                if any(ack.token == token for ack in record.acks):
                    return

    async def _offer(self, messages: Sequence[NewMessage], *, producer: str, number: int) -> int:
        until_s = 0.0
        begins = False
        for attempt in itertools.count():
            try:
                accepted = await self._store.enqueue(
                    self._partition,
                    messages,
                    entries_max=self._entries_max,
                    producer=producer,
                    first_number=number,
                    begins=begins,
                )
            except NumberGapError:
                # All before was answered, in this call or an earlier one: it is forgotten.
                begins = True
            except UnavailableError as error:
                self.uncertain = True
                now_s = self._clock()
                until_s = until_s or now_s + self._timeout_s
                if now_s >= until_s or self._stopping.is_set():
                    raise
                self._waits(str(error))
                await self._pause(min(_BACKOFF.wait_s(attempt + 1), until_s - now_s))
            else:
                self.uncertain = False
                return accepted
        raise AssertionError("the loop above has no end")

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until `stopping` is set."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
