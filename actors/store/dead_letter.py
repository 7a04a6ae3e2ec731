"""Dead letters: their ids, how they are read, and how one becomes a message again."""

import re
from typing import Final

import msgspec

from actors.errors import MessageError
from actors.message import (
    FIRST_ID,
    DeadLetter,
    Meta,
    check_channel,
    decode_json,
    decode_meta,
    encode_json,
)
from actors.store.interface import NewMessage

_ID: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,20})-([0-9]{1,20})")
_STREAM_ID_MAX: Final = 2**64 - 1
_UNREADABLE: Final = "queue"
"""Stage of what could not be read: see `DeadLetter`."""

_decode: Final = msgspec.json.Decoder(DeadLetter).decode


def parse_letter_id(text: str) -> tuple[int, str]:
    """Return partition and place of the letter that an id names.

    Raises:
        MessageError: It cannot be an id.
    """
    match = _ID.fullmatch(text)
    if match is None or max(int(match[2]), int(match[3])) > _STREAM_ID_MAX:
        raise MessageError(f"{text!r} is no id of a dead letter: they read 3-1732500000000-0")
    # Numbers, so that one letter has one name.
    return int(match[1]), f"{int(match[2])}-{int(match[3])}"


def decode_letter(partition: int, text: bytes) -> DeadLetter:
    """Decode a letter as the commit wrote it.

    One that cannot be read, of another version perhaps, is a letter that says so: it is listed,
    and can be dropped.
    """
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return DeadLetter(
            partition=partition,
            id=FIRST_ID,
            channel="",
            data=text.decode(errors="replace"),
            meta="",
            stage=_UNREADABLE,
            error=f"the dead letter itself cannot be read: {error}",
            traceback="",
            attempts=0,
            died_at_s=0.0,
        )


def revive(letter: DeadLetter) -> NewMessage:
    """Return the message that a letter was, as it goes into the queue again.

    Data, tags, info and idempotency key are those of the entry. The key was not used up: only a
    publication does that. Nobody waits for the result any more, so its token is left out.

    Raises:
        MessageError: It would only die again, or is no longer what was sent: the channel is
            invalid, data or meta cannot be read, or bytes of it were lost.
    """
    check_channel(letter.channel)
    if letter.stage == _UNREADABLE and "\ufffd" in letter.data + letter.meta:
        raise MessageError("it holds U+FFFD, which may stand for bytes that were not UTF-8")
    decode_json(letter.data)
    meta = decode_meta(letter.meta.encode())
    text = letter.meta.encode()
    if meta.wait:
        meta = msgspec.structs.replace(meta, wait="")
        text = b"" if meta == Meta() else encode_json(meta)
    return NewMessage(letter.channel, letter.data.encode(), text)
