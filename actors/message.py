"""What travels: messages, entries, batches, publications; and batches as bytes.

A batch is encoded once, as MessagePack, and actors hand the bytes on: pickling lists of objects
is several times dearer (docs/architecture.md has the figures).
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actors.errors import MessageError

FIRST_ID: Final = "0-0"
"""The id before every entry of a stream."""

QUEUE_STAGE: Final = "queue"
"""The stage of a dead letter that was not readable at all."""

CHANNEL_LENGTH_MAX: Final = 255
VERSION_MAX: Final = 2**64 - 1
VERSION_EPOCH_LENGTH_MAX: Final = 255
COUNT_MAX: Final = 2**53 - 1
"""Lua, which does the commit, has floats only: larger integers are not exact there."""
# Printable ASCII without blanks, as Centrifugo's own check; a channel is also part of a key.
_CHANNEL: Final = re.compile(r"[\x21-\x7e]+")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a transform sees and returns. Immutable: change one with `replace`.

    Attributes:
        channel: Where it goes. May be changed; order then holds per source channel.
        data: Any JSON value, decoded.
        tags: Small labels that subscribers see beside the data.
        info: Who published it (`user`, `client`, ...), where a client did; else None.
        count: Amounts to add to the channel's counters, by name. They are added once, with the
            commit, and the totals stand in the publication's data under `counts`. Needs data
            that is a non-empty object.
        version, version_epoch: See `Meta`.
        skip_history: See `Meta`. A transform may set it; what was published with it keeps it.
        id: The entry's id in the queue; its first part is the time of arrival in ms.
    """

    channel: str
    data: Any
    tags: dict[str, str] = {}
    info: dict[str, Any] | None = None
    count: dict[str, int] = {}
    version: int = 0
    version_epoch: str = ""
    skip_history: bool = False
    id: str = FIRST_ID

    def replace(self, **changes: Any) -> "Message":
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    @property
    def queued_at_s(self) -> float:
        """Return when the queue took the message, in seconds since the epoch."""
        return int(self.id.partition("-")[0]) / 1000


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may stand in an entry's field `m`, as JSON.

    Attributes:
        tags: See `Message`.
        info: See `Message`.
        key: Idempotency key: a second message of the channel with it takes no effect.
        wait: Token of whoever waits for the result; it comes back in the feed's `acks`.
        skip_history: Deliver to who is there, keep nothing, give no offset.
        delta: Subscribers may get this publication as a delta; see `ChannelSettings.delta_publish`.
        probe: Goes the whole way without transforms and makes no publication.
        count: See `Message`. Set by transforms.
        version: Of the state that the data is; above 0, the publication takes no effect where the
            channel has seen that version or a higher one. Only with a history. What a transform
            makes of one message may share one version.
        version_epoch: Where versions begin anew: a lower one takes effect if the epoch is another
            than that of the version seen last. Empty: whatever that one is.
    """

    tags: dict[str, str] = {}
    info: dict[str, Any] | None = None
    key: str = ""
    wait: str = ""
    skip_history: bool = False
    delta: bool = False
    probe: bool = False
    count: dict[str, int] = {}
    version: int = 0
    version_epoch: str = ""


class Entry(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A message as the queue holds it.

    Attributes:
        partition: The source partition.
        id: `ms-seq`, as the stream gave it.
        channel: UTF-8 as the producer wrote it; checked by whoever decodes the entry.
        data: JSON text, unchecked unless `checked`.
        meta: JSON text of a `Meta`, or empty.
        checked: Data and meta were written by us, not by a producer.
    """

    partition: int
    id: str
    channel: str
    data: bytes
    meta: bytes = b""
    checked: bool = False


class Span(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The part of a source partition that a batch covers: ids in (after, upto]."""

    partition: int
    after: str
    upto: str


class Ack(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The result of one awaited entry.

    Attributes:
        partition: The source partition of the entry.
        token: `Meta.wait` of the entry.
        offset: 0 where the publication got none (no history, or no publication).
        epoch: Empty likewise.
        error: Why it became a dead letter; empty where all went well.
    """

    partition: int
    token: str
    offset: int = 0
    epoch: str = ""
    error: str = ""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """An entry that no retry can save, with the reason.

    Attributes:
        partition, id, channel, data, meta: The entry; data and meta as text, damaged bytes
            replaced.
        stage: Where it failed: a stage's name, or `queue` (not readable, or not to be published).
        error: One line.
        traceback: Of the user's code, or empty.
        attempts: How often it was tried.
        died_at_s: Seconds since the epoch.
    """

    partition: int
    id: str
    channel: str
    data: str
    meta: str
    stage: str
    error: str
    traceback: str
    attempts: int
    died_at_s: float


class Batch(msgspec.Struct, array_like=True):
    """Entries of one nozzle's partitions, oldest first within each, on their way to the commit.

    Transforms replace `entries`, keeping source partition, id and order: an entry may be gone, or
    stand several times in a row with other channels and data.

    Attributes:
        spans: One for every source partition with entries in the batch.
        entries: Grouped by source partition, in the order of `spans`.
        dead: What failed on the way.
        acks: Results known already: of entries that were dropped or are dead.
        read_at_s: When the nozzle had read it, in seconds since the epoch.
        origins: What entries were that a stage has changed, as the queue holds them; one for each
            id, on the way to further stages only.
    """

    spans: list[Span]
    entries: list[Entry]
    dead: list[DeadLetter] = []
    acks: list[Ack] = []
    read_at_s: float = 0.0
    origins: list[Entry] = []


WHOLE_BRACE: Final = b"{ "
"""How the stored form begins of a publication that nobody gets as a delta, though others may be.

All others begin with the brace alone. JSON does not mind the blank: whoever knows nothing of deltas
needs no code for it.
"""

_NEWLINES: Final = bytes.maketrans(b"\r\n", b"  ")
_encode_batch: Final = msgspec.msgpack.Encoder().encode
_decode_batch: Final = msgspec.msgpack.Decoder(Batch).decode
_decode_meta: Final = msgspec.json.Decoder(Meta).decode
_encode_json: Final = msgspec.json.Encoder().encode
_decode_json: Final = msgspec.json.Decoder().decode


def encode_batch(batch: Batch) -> bytes:
    """Encode a batch for the next actor."""
    return _encode_batch(batch)


def decode_batch(blob: bytes) -> Batch:
    """Decode what `encode_batch` made."""
    return _decode_batch(blob)


def decode_meta(text: bytes) -> Meta:
    """Decode an entry's field `m`; empty text is an empty `Meta`.

    Raises:
        MessageError: It is not JSON, or not of that shape, or has no valid version.
    """
    if not text:
        return Meta()
    try:
        meta = _decode_meta(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError(f"field m is not valid: {error}") from error
    if meta.version:
        check_version(meta.version, meta.version_epoch)
    return meta


def token_of(entry: Entry) -> str:
    """Return the token of who waits for an entry, as far as its meta can be read."""
    try:
        return _decode_meta(entry.meta).wait if entry.meta else ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def dead_letter(
    entry: Entry,
    *,
    stage: str,
    error: str,
    died_at_s: float,
    traceback: str = "",
    attempts: int = 1,
) -> DeadLetter:
    """Return an entry as the dead letter that it becomes."""
    return DeadLetter(
        partition=entry.partition,
        id=entry.id,
        channel=entry.channel,
        data=entry.data.decode(errors="replace"),
        meta=entry.meta.decode(errors="replace"),
        stage=stage,
        error=error,
        traceback=traceback,
        attempts=attempts,
        died_at_s=died_at_s,
    )


def bury(batch: Batch, entry: Entry, why: str, *, died_at_s: float) -> None:
    """Make an entry a dead letter of a batch that it never got into, and tell who waits for it."""
    batch.dead.append(dead_letter(entry, stage=QUEUE_STAGE, error=why, died_at_s=died_at_s))
    token = token_of(entry)
    if token:
        batch.acks.append(Ack(entry.partition, token, error=why))


def encode_json(value: Any) -> bytes:
    """Encode a value as compact JSON without a raw newline.

    Raises:
        MessageError: JSON cannot hold the value.
    """
    try:
        return _encode_json(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(f"data cannot be written as JSON: {error}") from error


def decode_json(text: bytes | str) -> Any:
    """Decode JSON text.

    Raises:
        MessageError: It is not JSON.
    """
    try:
        return _decode_json(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError(f"data is not JSON: {error}") from error


@functools.lru_cache(maxsize=10_000)
def check_channel(channel: str) -> None:
    """Refuse a channel name that breaks the rules.

    Raises:
        MessageError: It is empty, longer than 255 bytes, or holds blanks, control characters or
            anything outside printable ASCII.
    """
    if not channel:
        raise MessageError("channel is empty")
    if len(channel) > CHANNEL_LENGTH_MAX:
        raise MessageError(f"channel is longer than {CHANNEL_LENGTH_MAX} bytes")
    if _CHANNEL.fullmatch(channel) is None:
        raise MessageError("channel has characters other than printable ASCII without blanks")


def check_version(version: int, epoch: str) -> None:
    """Refuse a version that breaks the rules.

    Raises:
        MessageError: It is no unsigned integer of 64 bits, or its epoch is longer than 255 bytes.
    """
    if not 0 <= version <= VERSION_MAX:
        raise MessageError("version is not between 0 and 2**64 - 1")
    if len(epoch.encode()) > VERSION_EPOCH_LENGTH_MAX:
        raise MessageError(f"version_epoch is longer than {VERSION_EPOCH_LENGTH_MAX} bytes")


def check_counts(count: Mapping[str, int]) -> None:
    """Refuse amounts that a counter cannot be trusted with.

    Raises:
        MessageError: One is beyond `COUNT_MAX`.
    """
    if any(abs(amount) > COUNT_MAX for amount in count.values()):
        raise MessageError(f"count has an amount beyond {COUNT_MAX}")


def id_key(entry_id: str) -> tuple[int, int]:
    """Return what orders entry ids: `ms-seq` compares as two numbers, not as text."""
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def without_newlines(text: bytes) -> bytes:
    """Return JSON text that fits into a line.

    Outside of strings JSON allows newlines; within them they are escaped. Frames and events do not.
    """
    return text.translate(_NEWLINES)


def splice_counts(body: bytes, totals: dict[str, int]) -> bytes:
    """Put counters' totals into a publication's data, as its last member `counts`.

    `body` is a publication as stored: `data`, a non-empty object, is its last member. The commit
    script does the same (commit.lua).
    """
    return body[:-2] + b',"counts":' + _encode_json(totals) + b"}}"
