"""The work of `raywire publish`: lines become messages on the queue, a block at a time."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from actors.errors import MessageError, UnavailableError
from actors.message import Meta, encode_json
from actors.store.interface import EdgeStore, NewMessage
from serve.cli.publish_display import Display
from serve.cli.publish_lines import Form, judge
from serve.cli.publish_sender import Sender

_BLOCK_MESSAGES_MAX: Final = 500
_BLOCK_BYTES_MAX: Final = 1 << 18
_QUEUE_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be published, and how.

    Attributes:
        channel: Where to.
        form: How a line becomes data.
        bytes_max: Size of one message's data.
        tags: Of every message.
        rate: Messages per second at most; None: as fast as they are taken.
        skip: Lines at the start that are left out.
        keep_numbers: Lines left out count, since an earlier call has numbered them.
        strict: The first line that cannot be published ends it.
        wait: Return when everything has been applied.
    """

    channel: str
    form: Form = Form.AUTO
    bytes_max: int = 65_536
    tags: dict[str, str] = field(default_factory=dict)
    rate: float | None = None
    skip: int = 0
    keep_numbers: bool = False
    strict: bool = False
    wait: bool = False


class Lines(Protocol):
    """Where lines come from."""

    async def take(self, limit: int) -> list[bytes]:
        """Return what is there, at least one line and at most `limit`; none: it has ended."""
        ...


class OneLine:
    """The text of `--message` as the only line."""

    def __init__(self, text: str) -> None:
        self._lines = [text.encode(errors="surrogateescape")]

    async def take(self, limit: int) -> list[bytes]:
        """See `Lines.take`."""
        del limit
        lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        """Do nothing: there is nothing to wait for."""


class Publishing:
    """Moves lines into the queue, a block at a time.

    Attributes:
        line: Up to this line, everything is in the queue or refused.
        accepted: How many messages are in the queue for certain.
    """

    def __init__(
        self,
        order: Order,
        sender: Sender,
        display: Display,
        store: EdgeStore,
        *,
        partition: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.line = 0
        self.accepted = 0
        self._order = order
        self._sender = sender
        self._display = display
        self._store = store
        self._partition = partition
        self._clock = clock
        self._start_s = clock()
        self._queue_at_s = clock()
        self._seen = 0
        self._meta = encode_json(Meta(tags=order.tags)) if order.tags else b""
        self._limit = _BLOCK_MESSAGES_MAX
        if order.rate is not None:
            self._limit = min(self._limit, max(1, int(order.rate * 0.05)))

    async def run(self, lines: Lines, stopping: asyncio.Event) -> None:
        """Publish every line, or as many as there are when `stopping` is set.

        Raises:
            MessageError: A line cannot be published, and the order is strict.
            UnavailableError: See `Sender.send`.
        """
        while not stopping.is_set():
            taken = await lines.take(self._limit)
            if not taken:
                break
            refusal = await self._publish(taken, stopping)
            if refusal is not None:
                raise refusal
        if self._order.wait and not stopping.is_set():
            await self._sender.applied(self._order.channel)

    async def _publish(
        self, taken: Sequence[bytes], stopping: asyncio.Event
    ) -> MessageError | None:
        judged, refusal = self._judge(taken)
        for block in _blocks(judged):
            if self._order.rate is not None:
                await self._until_due(stopping, self._order.rate)
            before = self._sender.number
            try:
                await self._sender.send([message for _, message in block])
            finally:
                done = self._sender.number - before
                self.accepted += done
                self.line = block[done][0] - 1 if done < len(block) else block[-1][0]
                self._display.accepted(self.accepted)
            if done < len(block):
                return None
            await self._show_queue()
        self.line = self._seen
        return refusal

    def _judge(
        self, taken: Sequence[bytes]
    ) -> tuple[list[tuple[int, NewMessage]], MessageError | None]:
        """Return messages with their line numbers, and the refusal that is to end it."""
        order = self._order
        judged: list[tuple[int, NewMessage]] = []
        for line in taken:
            self._seen += 1
            skipped = self._seen <= order.skip
            if skipped and not order.keep_numbers:
                continue
            try:
                data = judge(line, order.form, bytes_max=order.bytes_max)
            except MessageError as error:
                if skipped:
                    continue
                self._display.refuse(self._seen, str(error))
                if order.strict:
                    return judged, MessageError(f"ended at line {self._seen} (--strict)")
                continue
            if skipped:
                self._sender.number += 1
            else:
                judged.append((self._seen, NewMessage(order.channel, data, self._meta)))
        return judged, None

    async def _until_due(self, stopping: asyncio.Event, rate: float) -> None:
        early_s = self._start_s + self.accepted / rate - self._clock()
        if early_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(early_s):
                    await stopping.wait()

    async def _show_queue(self) -> None:
        now_s = self._clock()
        if not self._display.live or now_s < self._queue_at_s:
            return
        self._queue_at_s = now_s + _QUEUE_EVERY_S
        with contextlib.suppress(UnavailableError):  # the next block says so, if it lasts
            lengths = await self._store.queue_lengths([self._partition])
            self._display.queue(lengths[self._partition])


def _blocks(
    judged: Sequence[tuple[int, NewMessage]],
) -> Iterator[list[tuple[int, NewMessage]]]:
    """Cut messages into blocks of at most `_BLOCK_BYTES_MAX`, or one message."""
    block: list[tuple[int, NewMessage]] = []
    block_bytes = 0
    for line, message in judged:
        if block and block_bytes + len(message.data) > _BLOCK_BYTES_MAX:
            yield block
            block, block_bytes = [], 0
        block.append((line, message))
        block_bytes += len(message.data)
    if block:
        yield block
