"""An entry on its way through a stage: from the queue's bytes to messages, and back to bytes."""

from collections.abc import Sequence
from typing import Final

from actors.errors import MessageError
from actors.message import (
    QUEUE_STAGE,
    Ack,
    Entry,
    Message,
    Meta,
    check_channel,
    check_counts,
    decode_json,
    decode_meta,
    encode_json,
    token_of,
    without_newlines,
)

MADE_MAX: Final = 10_000
"""Messages that one entry may become."""
MADE_BYTES_MAX: Final = 16 * 2**20
"""Bytes of data that one entry may become, all its messages together."""
_OF_MANY: Final = "\x1f"
"""Stands in an idempotency key before what we add: no key of a user's is likely to have it."""


class Item:
    """An entry on its way through the stage.

    Attributes:
        entry: As it came.
        messages: What it is now; empty: nothing, or not decoded, as `touched` tells.
        meta: Its meta, once decoded.
        touched: `messages` may differ from the entry.
        failed: Why it cannot go on.
        stage: Where it failed.
        shared: It failed together with others, in one call or on one event loop, and may be
            innocent.
        attempts: How often it was tried; not counted where it failed in a shared call.
        done: What it became.
    """

    __slots__ = (
        "attempts", "done", "entry", "failed", "messages", "meta", "shared", "stage", "touched",
    )  # fmt: skip

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.attempts = 1
        self.reset()

    def reset(self) -> None:
        """Begin anew from the entry."""
        self.messages: list[Message] = []
        self.meta: Meta | None = None
        self.touched = False
        self.failed: BaseException | None = None
        self.stage = ""
        self.shared = False
        self.done: Sequence[Entry] = ()

    def put(self, index: int, made: Message | list[Message]) -> None:
        """Put what a transform made in the place of the message it was made of."""
        self.touched = True
        if isinstance(made, list):
            self.messages[index : index + 1] = made
        else:
            self.messages[index] = made

    def fail(self, error: BaseException, stage: str = "", *, shared: bool = False) -> None:
        """Note why it cannot go on; the first reason stays."""
        if self.failed is None:
            self.failed = error
            self.stage = stage
            self.shared = shared


def decode_item(item: Item) -> None:
    """Turn an item's entry into a message; a probe goes on as it is."""
    entry = item.entry
    try:
        # Meta first: the token in it tells who waits, should the rest be bad.
        if entry.meta:
            item.meta = meta = decode_meta(entry.meta)
            if meta.probe:
                return
        else:
            meta = None
        check_channel(entry.channel)
        data = decode_json(entry.data)
    except MessageError as error:
        item.fail(error, QUEUE_STAGE)
        return
    if meta is None:
        message = Message(channel=entry.channel, data=data, id=entry.id)
    else:
        message = Message(
            channel=entry.channel,
            data=data,
            tags=meta.tags,
            info=meta.info,
            count=meta.count,
            version=meta.version,
            version_epoch=meta.version_epoch,
            skip_history=meta.skip_history,
            id=entry.id,
        )
    item.messages = [message]


def encode_item(item: Item, stage: str) -> Sequence[Entry]:
    """Return what an item's messages are as entries.

    Args:
        item: One that did not fail.
        stage: The stage that they come from: those after the first get keys of its own.

    Raises:
        MessageError: A message cannot be sent: its channel, data or another field is wrong.
    """
    entry = item.entry
    if not item.touched:
        return (entry,)
    if len(item.messages) > MADE_MAX:
        raise MessageError(f"it became {len(item.messages)} messages, more than {MADE_MAX}")
    made = [
        Entry(
            entry.partition,
            entry.id,
            _channel(message, entry),
            _data(message),
            _meta(message, item.meta, f"{_OF_MANY}{stage}:{index}" if index else ""),
            checked=True,
        )
        for index, message in enumerate(item.messages)
    ]
    size = len(made[0].data) if len(made) == 1 else sum(len(one.data) for one in made)
    if size > MADE_BYTES_MAX:
        raise MessageError(f"it became {size} bytes, more than {MADE_BYTES_MAX}")
    return made


def _channel(message: Message, entry: Entry) -> str:
    channel = message.channel
    if channel != entry.channel:
        check_channel(channel)
    # Plain text also where it is of a subclass, as numpy's: the next encoder takes no other.
    return str.__str__(channel)


def _data(message: Message) -> bytes:
    # A user's `msgspec.Raw` is written as it is, line by line perhaps.
    data = without_newlines(encode_json(message.data)).strip()
    if message.count and (data[:1] != b"{" or not data[1:-1].strip()):
        raise MessageError("count needs data that is an object with at least one member")
    return data


def _meta(message: Message, source: Meta | None, place: str) -> bytes:
    """Return a message's meta as JSON; `place` tells those apart that come after the first."""
    tags, info, count = message.tags, message.info, message.count
    if source is None:
        if not (tags or count or message.version or message.skip_history) and info is None:
            return b""
        source = Meta()
    text = encode_json(
        Meta(
            tags=tags,
            info=info,
            key=source.key and source.key + place,
            wait="" if place else source.wait,
            skip_history=source.skip_history or message.skip_history,
            delta=source.delta,
            count=count,
            version=message.version,
            version_epoch=message.version_epoch,
        )
    )
    # Structs do not check their fields when they are made; reading them back does.
    decode_meta(text)
    check_counts(count)
    return b"" if text == b"{}" else text


def acks_of(item: Item, error: str = "") -> list[Ack]:
    """Return the result for whoever waits for an entry that does not go on."""
    token = token_of(item.entry)
    return [Ack(item.entry.partition, token, error=error)] if token else []
