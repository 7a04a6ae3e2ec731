"""A dead letter as it is shown, by the server API and by commands alike."""

from typing import Any, Final

import msgspec

from actors.errors import MessageError
from actors.message import DeadLetter, decode_json, decode_meta, id_key
from actors.store.dead_letter import revive
from actors.store.interface import DeadRecord

# Outside of strings JSON allows newlines; JSON lines do not.
_NEWLINES: Final = str.maketrans("\r\n", "  ")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows.

    Attributes:
        id: Names it: `partition-ms-seq`.
        channel: Where the message was to go.
        stage: Where it failed: a stage's name, or `queue`: it could not be read, or not be
            published.
        error: One line.
        attempts: How often it was tried.
        queued_at_s, died_at_s: Seconds since the epoch.
    """

    id: str
    channel: str
    stage: str
    error: str
    attempts: int
    queued_at_s: float
    died_at_s: float


class Facts(Summary, frozen=True, kw_only=True):
    """Everything that is known.

    Attributes:
        entry: Its id in the queue.
        data: What was sent; text, where it is not JSON.
        is_json: Whether it is.
        tags, info: See `Message`.
        meta: All that came with the data, tags and info too; text, where it cannot be read.
        traceback: Of the user's code, or empty.
        obstacle: Why it cannot be replayed; None: it can.
    """

    entry: str
    data: msgspec.Raw
    is_json: bool
    tags: dict[str, str]
    info: dict[str, Any] | None
    meta: dict[str, Any] | str
    traceback: str
    obstacle: str | None


def summary_of(record: DeadRecord) -> Summary:
    """Return what a list shows of a letter."""
    letter = record.letter
    return Summary(
        id=record.id,
        channel=letter.channel,
        stage=letter.stage,
        error=letter.error,
        attempts=letter.attempts,
        queued_at_s=id_key(letter.id)[0] / 1000,
        died_at_s=letter.died_at_s,
    )


def facts_of(record: DeadRecord) -> Facts:
    """Return everything about a letter."""
    letter = record.letter
    data, is_json = _data(letter)
    tags, info, meta = _meta(letter)
    return Facts(
        **msgspec.structs.asdict(summary_of(record)),
        entry=letter.id,
        data=data,
        is_json=is_json,
        tags=tags,
        info=info,
        meta=meta,
        traceback=letter.traceback,
        obstacle=_obstacle(letter),
    )


def _data(letter: DeadLetter) -> tuple[msgspec.Raw, bool]:
    try:
        decode_json(letter.data)
    except MessageError:
        return msgspec.Raw(msgspec.json.encode(letter.data)), False
    return msgspec.Raw(letter.data.translate(_NEWLINES).encode()), True


def _meta(
    letter: DeadLetter,
) -> tuple[dict[str, str], dict[str, Any] | None, dict[str, Any] | str]:
    try:
        meta = decode_meta(letter.meta.encode())
    except MessageError:
        return {}, None, letter.meta
    # Who waited got its answer: the token says nothing to a reader.
    shown = msgspec.to_builtins(msgspec.structs.replace(meta, wait=""))
    return meta.tags, meta.info, shown


def _obstacle(letter: DeadLetter) -> str | None:
    try:
        revive(letter)
    except MessageError as error:
        return str(error)
    return None
