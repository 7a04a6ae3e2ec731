"""The messages of a benchmark, and the account of those that arrive. No I/O, no clock."""

import re
from array import array
from dataclasses import dataclass, field
from typing import Final

# Found anywhere in a frame, whatever a transform or the protocol puts round it, without JSON.
_TOKEN: Final = re.compile(rb"~rw:(\d{4}):(\d{10}):(\d{19})~")
_TOKEN_BYTES: Final = 41


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered, and where.

    Attributes:
        redis_url: `redis://`, `rediss://` or `unix://`.
        websocket_url: Of the edges' own listener.
        channels: Their names.
        queues: The key of the queue of each.
        tokens: Client tokens, each of which subscribes to one of them; empty: none is needed.
        rate: Messages per second, over all channels.
        secs: How long.
        size: Of one message's data, in bytes.
        warmup_s: Messages of the first seconds are counted but not measured.
    """

    redis_url: str = field(repr=False)
    websocket_url: str
    channels: tuple[str, ...]
    queues: tuple[str, ...]
    tokens: tuple[str, ...] = field(repr=False)
    rate: float
    secs: float
    size: int
    warmup_s: float


def make_payload(channel: int, number: int, stamp_ns: int, padding: bytes) -> bytes:
    """Write a message: JSON that says where it belongs and when it was sent.

    Args:
        channel: Index of the channel.
        number: Of the message in its channel, from 0 on.
        stamp_ns: Monotonic, of this machine.
        padding: ASCII letters that bring it up to size; see `padding_for`.
    """
    return b'{"n":%d,"k":"~rw:%04d:%010d:%019d~","p":"%b"}' % (
        number, channel, number, stamp_ns, padding,
    )  # fmt: skip


def padding_for(size: int) -> bytes:
    """Return the padding of messages of about `size` bytes."""
    return b"x" * max(0, size - len(make_payload(0, 10_000, 0, b"")))


class Account:
    """What one subscriber has received: each message once, late, again, or not at all.

    Attributes:
        delivered: Different messages.
        repeated: Messages that came again.
        disordered: Messages that came after a later one of their channel.
        strange: Messages of a channel that was not subscribed to.
        latencies_ns: Of the messages stamped at `warm_ns` or later.
    """

    def __init__(self, channels: frozenset[int]) -> None:
        self.delivered = self.repeated = self.disordered = self.strange = 0
        self.latencies_ns = array("q")
        self.warm_ns = 0
        self._next = dict.fromkeys(channels, 0)
        self._missing: dict[int, set[int]] = {channel: set() for channel in channels}
        self._rest = b""

    def feed(self, chunk: bytes, now_ns: int) -> None:
        """Take a piece of a byte stream; a message may lie across two pieces."""
        data = self._rest + chunk if self._rest else chunk
        end = 0
        for found in _TOKEN.finditer(data):
            end = found.end()
            channel, number, stamp_ns = found.groups()
            self._count(int(channel), int(number), now_ns - int(stamp_ns), int(stamp_ns))
        self._rest = data[max(end, len(data) - _TOKEN_BYTES + 1) :]

    def _count(self, channel: int, number: int, latency_ns: int, stamp_ns: int) -> None:
        expected = self._next.get(channel)
        if number == expected:
            self._next[channel] = number + 1
        elif expected is None:
            self.strange += 1
            return
        elif number > expected:
            self._missing[channel].update(range(expected, number))
            self._next[channel] = number + 1
        elif number in self._missing[channel]:
            self._missing[channel].remove(number)
            self.disordered += 1
        else:
            self.repeated += 1
            return
        self.delivered += 1
        if stamp_ns >= self.warm_ns:
            self.latencies_ns.append(latency_ns)


def quantile(ordered: "array[int]", share: float) -> float | None:
    """Return the value that `share` (0 to 1) of the ordered values do not exceed, in ms."""
    if not ordered:
        return None
    index = min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))
    return round(ordered[index] / 1e6, 3)
