"""What Raywire needs of Valkey or Redis, as five small protocols.

`redis` implements them on redis-py; `memory` the same in memory, for unit tests; one
contract suite (tests/integration/test_store_contract.py) runs against both.

Every method may raise `UnavailableError` where the server cannot be reached or does not answer.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from actors.message import Ack, DeadLetter, Entry
from actors.store.interface_box import Boxes
from actors.store.interface_control import ControlStream

STATS_KEPT_S: Final = 86_400.0
"""How long numbers are kept that are not replaced: a part that was killed removes none."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to commit a stretch of one source to one target partition.

    The commit takes effect only if `applied[source]` of the target is `after` at that moment:
    a compare-and-set, which makes a batch that is sent twice take effect once.
    """

    source: int
    after: str
    upto: str


class Group(msgspec.Struct, gc=False):
    """The publications of one commit for one channel, in order.

    Attributes:
        channel: The channel.
        bodies: JSON objects with `data` as the last member, without offset and raw newlines.
        ids: Source partition and entry id of each body.
        history_size: How many publications the channel keeps; 0: none, and no offsets.
        history_ttl_s: How long it keeps them after the last one.
        meta_ttl_s: How long offset and epoch outlive the publications.
        keys: Index of a body -> its idempotency key.
        counts: Index of a body -> what to add to the channel's counters.
        versions: Index of a body -> its version above 0, and its epoch; only with a history. One
            that is stale (see `Meta`) takes no effect, and its result is the top position.
        waits: Index of a body -> (source partition, token) of who waits for it.
    """

    channel: str
    bodies: list[bytes]
    ids: list[tuple[int, str]]
    history_size: int = 0
    history_ttl_s: int = 0
    meta_ttl_s: int = 0
    keys: dict[int, str] = {}
    counts: dict[int, dict[str, int]] = {}
    versions: dict[int, tuple[int, str]] = {}
    waits: dict[int, tuple[int, str]] = {}


class Commit(msgspec.Struct, gc=False):
    """All that one batch does to one target partition, done atomically or not at all.

    Attributes:
        partition: The target.
        claims: One for each source partition whose publications it holds.
        groups: The publications.
        acks: Results to pass on in the feed record.
        dead: Dead letters of this source partition.
        queued_at_s: When the queue took the oldest entry, in seconds since the epoch; 0: none.
        own: The target is the source itself: its queue is trimmed up to what is applied.
    """

    partition: int
    claims: list[Claim]
    groups: list[Group]
    acks: list[Ack]
    dead: list[DeadLetter]
    queued_at_s: float = 0.0
    own: bool = False


class Committed(msgspec.Struct, gc=False):
    """What became of a `Commit`.

    Attributes:
        applied: For each claim, what is applied now.
        done: False: a claim did not hold, nothing was done, `applied` says what holds.
        acks: Results of the awaited publications.
    """

    applied: list[str]
    done: bool
    acks: list[Ack]


class FeedGroup(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Publications of one channel in a feed record: `count` bodies, from offset `first` on.

    `first` is 0, and `epoch` empty, where the channel gives no offsets.
    """

    channel: str
    first: int
    epoch: str
    count: int


class FeedRecord(msgspec.Struct, gc=False):
    """One committed batch as edges read it.

    Attributes:
        partition: Whose feed it stands in.
        id: Its id in the stream; reading goes on after it.
        seq: Counts the partition's records from 1 on: a jump is a gap. 0: not counted (joins).
        queued_at_s: See `Commit`.
        groups: What is published; their bodies stand in `bodies`, in the same order.
        bodies: See `Group.bodies`.
        acks: Results, for whoever waits.
        joins: Presence changes: (channel, "join" or "leave", ClientInfo as JSON text).
        last_seq: Where `seq` is 0: that of the last record before this one which was counted; 0:
            there was none, or it is not known.
    """

    partition: int
    id: str
    seq: int
    queued_at_s: float
    groups: list[FeedGroup]
    bodies: list[bytes]
    acks: list[Ack]
    joins: list[tuple[str, str, bytes]] = []
    last_seq: int = 0


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A message on its way into the queue: `data` and `meta` are JSON text."""

    channel: str
    data: bytes
    meta: bytes = b""


class History(msgspec.Struct, gc=False):
    """A stretch of a channel's publications.

    Attributes:
        offset: The channel's top offset.
        epoch: Its epoch.
        publications: (offset, body), in the order asked for.
    """

    offset: int
    epoch: str
    publications: list[tuple[int, bytes]]


class DeadRecord(msgspec.Struct, frozen=True, gc=False):
    """A dead letter as its partition's stream holds it; `place` is its id in that stream."""

    partition: int
    place: str
    letter: DeadLetter

    @property
    def id(self) -> str:
        """Return what names it among all partitions: `partition-ms-seq`."""
        return f"{self.partition}-{self.place}"


class Replayed(enum.Enum):
    """What became of a dead letter that was to be queued again."""

    QUEUED = enum.auto()
    """It is in the queue, and no dead letter any more."""
    GONE = enum.auto()
    """There is no such letter: replayed or dropped before, or pushed out by newer ones."""
    FULL = enum.auto()
    """The queue has no room: the letter is kept."""


class QueueReader(Protocol):
    """What a nozzle needs."""

    async def applied(self, partitions: Sequence[int]) -> dict[int, str]:
        """Return each partition's checkpoint: the last entry id that is applied everywhere."""
        ...

    async def read(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[list[Entry]]:
        """Return entries after the given ids, oldest first, a list for each partition with any.

        Waits up to `block_s` seconds for the first. `limit` holds for each partition.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Ledger(Protocol):
    """What a publisher needs. Synchronous: the publisher is an actor of one thread."""

    def commit(self, commits: Sequence[Commit]) -> list[Committed]:
        """Do each commit atomically, all in one round trip; the results in the same order."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class DeadLetters(Protocol):
    """What those need who look after dead letters."""

    async def read(
        self, partition: int, *, after: str = "", limit: int, newest_first: bool = False
    ) -> list[DeadRecord]:
        """Return letters of a partition in the order of their deaths, or (newest first) against it.

        Args:
            partition: Whose.
            after: Only those that come after this place, in the order asked for; empty: all.
            limit: At most so many. Fewer than that: there are no more.
            newest_first: Begin with the latest.
        """
        ...

    async def get(self, partition: int, place: str) -> DeadRecord | None:
        """Return one letter; None: there is none."""
        ...

    async def replay(
        self, partition: int, letters: Sequence[tuple[str, NewMessage]], *, entries_max: int
    ) -> list[Replayed]:
        """Move letters, by their places, to the end of the partition's queue, as these messages.

        Each is queued and ceases to be a dead letter in one step, so a letter is queued once,
        however often and by however many this is called. At most `entries_max` entries wait in
        the queue afterwards, unless there were more before.
        """
        ...

    async def drop(self, partition: int, places: Sequence[str]) -> int:
        """Delete letters for good, and return how many of them there were."""
        ...

    async def count(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return how many letters each partition keeps."""
        ...


class EdgeStore(Protocol):
    """What an edge and the command line need."""

    @property
    def dead_letters(self) -> DeadLetters:
        """Return the dead letters, over the same connections."""
        ...

    @property
    def boxes(self) -> Boxes:
        """Return what edges leave for one another, over the same connections."""
        ...

    @property
    def control(self) -> ControlStream:
        """Return the stream by which edges tell one another what to do."""
        ...

    async def enqueue(
        self,
        partition: int,
        messages: Sequence[NewMessage],
        *,
        entries_max: int,
        producer: str = "",
        first_number: int = 0,
        begins: bool = False,
    ) -> int:
        """Append messages to the queue, in order, and return how many were accepted.

        Fewer than given: the queue is full, and the rest was not accepted.

        With a `producer` the messages are numbered from `first_number` (from 1 on), and those
        accepted before are not appended again but count as accepted: a call whose answer was
        lost may be repeated. What counts as accepted is in the queue, or was: a call is refused
        unless its first number is at most one more than the last one accepted, so one that
        overtakes another, or comes after one that a full queue refused, makes no holes.

        The last number of a producer is remembered for an hour, and forgotten with all else by a
        server that is emptied. A call that does not begin with 1 is then refused, for the queue
        cannot tell it from one that has overtaken the first. A producer that has the answers of
        all calls before this one, or has given those calls up, may say that it `begins` here: the
        numbers before count as accepted from then on, and this call, too, may be repeated.

        Raises:
            NumberGapError: The numbers do not follow on those accepted, or nothing is known of
                the producer. Nothing of the call was accepted, now or (within the hour) before.
        """
        ...

    async def feed_ends(self, partitions: Sequence[int]) -> dict[int, tuple[str, int]]:
        """Return, for each partition, the id and `seq` of its feed's last record (`0-0` and 0)."""
        ...

    async def read_feed(
        self, after: Mapping[int, str], *, limit: int, block_s: float
    ) -> list[FeedRecord]:
        """Return feed records after the given ids, in order within each partition."""
        ...

    async def history(
        self,
        channel: str,
        *,
        since: int | None,
        limit: int | None,
        reverse: bool = False,
        meta_ttl_s: int,
    ) -> History:
        """Return retained publications; creates the channel's epoch where it has none.

        Args:
            channel: The channel.
            since: Only those after (reverse: before) this offset; None: from the end of it.
            limit: At most so many; 0: none, just the position; None: all.
            reverse: Newest first.
            meta_ttl_s: For the epoch, if it must be created.
        """
        ...

    async def history_remove(self, channel: str) -> None:
        """Forget a channel's publications; its offset and epoch go on as if they had expired."""
        ...

    async def counters(self, channel: str) -> dict[str, int]:
        """Return the totals of a channel's counters."""
        ...

    async def enter(
        self, channel: str, client: str, info: bytes, *, ttl_s: float, announce: bool
    ) -> None:
        """Put a client into a channel's presence, or renew it.

        `announce` adds a join to the feed, unless the client was there.
        """
        ...

    async def leave(self, channel: str, client: str, info: bytes, *, announce: bool) -> None:
        """Take a client out of a channel's presence.

        `announce` adds a leave to the feed, if the client was there.
        """
        ...

    async def presence(self, channel: str) -> dict[str, bytes]:
        """Return client id -> info (JSON text) of who is in a channel."""
        ...

    async def presence_stats(self, channel: str) -> tuple[int, int]:
        """Return how many clients, and how many different users, are in a channel."""
        ...

    async def queue_lengths(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return how many entries of each partition are not applied yet."""
        ...

    async def read_stats(self) -> dict[str, dict[str, Any]]:
        """Return part -> the numbers it wrote last, with `at_s`.

        What is older than `STATS_KEPT_S` is dropped.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def forgotten(parts: Mapping[str, Mapping[str, Any]], now_s: float) -> list[str]:
    """Return the parts whose numbers are to be dropped."""
    oldest_s = now_s - STATS_KEPT_S
    return [part for part, numbers in parts.items() if numbers.get("at_s", 0.0) < oldest_s]


class Marks(Protocol):
    """Who works on what, told by a process that may die of it. Synchronous."""

    def mark(self, nozzle: str, text: str) -> None:
        """Tell that a nozzle's batch is being worked on from now on."""
        ...

    def marked(self, nozzle: str) -> str:
        """Return the last mark of a nozzle; empty: none."""
        ...


class StatsWriter(Protocol):
    """What a part needs to tell how it is."""

    def write_stats(self, part: str, numbers: Mapping[str, Any]) -> None:
        """Replace the numbers of one part."""
        ...

    def remove_stats(self, part: str) -> None:
        """Forget a part that has ended."""
        ...
