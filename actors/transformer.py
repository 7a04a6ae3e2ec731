"""The transformer: runs the user's code on the entries of a batch.

An entry is transformed whole or not at all: where one of the messages made of it fails, none goes
on, in whichever stage. A further attempt begins anew with what the stage got, and the dead letter
holds what the queue did, so that a half-changed message is never seen again.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from actors.errors import MessageError, SettingsError, TooLargeError
from actors.message import (
    QUEUE_STAGE,
    Batch,
    DeadLetter,
    Entry,
    Message,
    dead_letter,
    decode_batch,
    encode_batch,
)
from actors.metrics import Numbers
from actors.settings.tree import StageSettings
from actors.transform.call import (
    ASYNC_CALLS_MAX,
    Failed,
    Made,
    awaited,
    call_batch,
    call_concurrently,
    call_each,
)
from actors.transform.errors import one_line, users_line, users_traceback
from actors.transform.item import Item, acks_of, decode_item, encode_item
from actors.transform.load import Form, Transform, load
from actors.transform.time_limit import TimeLimit, TimeLimitError

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Source = tuple[int, str]
"""Partition and id of an entry: what all messages made of it have in common."""

MADE_BYTES_MAX: Final = 64 * 2**20
"""Bytes of one batch after a stage. One commit holds them; Valkey takes 512 MB in a command."""


class _Place(msgspec.Struct, gc=False):
    """A message, and where it stands: in an item, at an index."""

    item: Item
    index: int
    message: Message


class Transformer:
    """One of a stage's pool: takes a batch as bytes, and returns it transformed.

    Order is kept. Entries for which the stage has no transform go on untouched. What raises is
    tried again, alone, by the stage's policy, and then becomes a dead letter; what raises
    `MessageError`, returns something else than messages, or is not readable, does so at once. A
    call that takes longer than the stage's limit has failed, too (see `TimeLimit`). The rest of
    the batch goes on.
    """

    def __init__(
        self,
        stage: StageSettings,
        code: str,
        *,
        is_last: bool = True,
        numbers: Numbers | None = None,
        sleep: Callable[[float], None] = time.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Load the stage's transforms and set them up, which may take minutes.

        Args:
            stage: What to do.
            code: The user's directory.
            is_last: No stage follows that would want to know what an entry was before this one.
            numbers: Where to count.
            sleep: Waits between attempts.
            wall: Seconds since the epoch, for dead letters.

        Raises:
            SettingsError: A transform cannot be loaded or set up; the text shows the user's line.
        """
        self._stage = stage
        self._code = Path(code).resolve()
        self._is_last = is_last
        self._numbers = numbers or Numbers("transformer")
        self._latency = self._numbers.latency("transform")
        self._sleep = sleep
        self._wall = wall
        self._limit = TimeLimit(stage.time_limit_s)
        self._runner: asyncio.Runner | None = None
        self._transforms = [load(settings, code) for settings in stage.transforms]
        for transform in self._transforms:
            self._set_up(transform)

    def apply(self, blob: bytes) -> bytes:
        """Transform a batch. A function of the batch alone, as far as the user's code is one.

        Raises:
            TooLargeError: Its entries became more than `MADE_BYTES_MAX` together.
            UnavailableError: See `TimeLimit.watching`.
        """
        began_s = time.perf_counter()
        batch = decode_batch(blob)
        items = [Item(entry) for entry in batch.entries]
        with self._limit.watching():
            self._run(items)
            failed = [item for item in items if item.failed is not None]
            if failed:
                self._try_again(failed)
        result = encode_batch(self._gather(batch, items))
        if len(result) > MADE_BYTES_MAX and len(items) > 1:
            raise TooLargeError(f"{len(items)} entries became {len(result)} bytes")
        self._latency.record(time.perf_counter() - began_s)
        return result

    def guard(self) -> None:
        """End this process where a call hangs that cannot be interrupted. See `TimeLimit.guard`."""
        self._limit.guard()

    def close(self) -> None:
        """Close the transforms and the event loop; what fails there is logged, the rest goes on."""
        for transform in self._transforms:
            if transform.close is None:
                continue
            try:
                self._finish(transform.close())
            except Exception:
                # The process ends anyway, and the others want to be closed too.
                log.exception("transform not closed", extra={"transform": transform.use})
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _set_up(self, transform: Transform) -> None:
        if transform.set_up is None:
            return
        try:
            self._finish(transform.set_up())
        except (Exception, SystemExit) as error:
            raise SettingsError(
                f"stage {self._stage.name}: {transform.use}: set_up failed: "
                f"{users_line(error, self._code)}"
            ) from error

    # --- the way through the stage

    def _run(self, items: Sequence[Item]) -> None:
        """Take items through all transforms; each is then done, or failed."""
        for transform in self._transforms:
            places = self._matching(transform, items)
            if places:
                messages = [place.message for place in places]
                self._put(transform, places, self._call(transform, messages))
        for item in items:
            if item.failed is None:
                try:
                    item.done = encode_item(item, self._stage.name)
                except MessageError as error:
                    item.fail(error, self._stage.name)

    def _matching(self, transform: Transform, items: Sequence[Item]) -> list[_Place]:
        """Return where the messages stand that are for a transform."""
        places: list[_Place] = []
        matches = transform.matches
        for item in items:
            if item.failed is not None:
                continue
            if not item.messages and not item.touched and matches(item.entry.channel):
                decode_item(item)
            for index, message in enumerate(item.messages):
                if matches(message.channel):
                    places.append(_Place(item, index, message))
        return places

    def _put(self, transform: Transform, places: Sequence[_Place], results: Sequence[Made]) -> None:
        """Put each result where its message stood; from the end, so that indices stay right."""
        together = transform.form is Form.BATCH
        several = places[0].item is not places[-1].item
        for place, result in zip(reversed(places), reversed(results), strict=True):
            if isinstance(result, Failed):
                # In async code another message may have kept the event loop from this one.
                late = transform.is_async and isinstance(result.error, TimeLimitError)
                shared = several and (together or late)
                place.item.fail(result.error, self._stage.name, shared=shared)
            elif result is not place.message or not transform.selects:
                place.item.put(place.index, result)

    def _call(self, transform: Transform, messages: list[Message]) -> Sequence[Made]:
        limit = self._limit
        if transform.form is Form.BATCH:
            return call_batch(transform, messages, limit, self._on_loop)
        if not transform.is_async:
            return call_each(transform, messages, limit)
        # Every call has its own limit; this one is for code that blocks the event loop.
        limit.begin(-(-len(messages) // ASYNC_CALLS_MAX) + 1)
        try:
            return self._on_loop(call_concurrently(transform, messages, limit))
        except TimeLimitError as error:
            return [Failed(error)] * len(messages)
        finally:
            limit.end()

    def _finish(self, result: Any) -> None:
        if inspect.isawaitable(result):
            self._on_loop(awaited(result))

    def _on_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(work)
        except TimeLimitError:
            # Raised in the middle of the loop's own work: that loop cannot be trusted any more.
            broken, self._runner = self._runner, None
            broken.close()
            raise

    # --- failures

    def _try_again(self, failed: Sequence[Item]) -> None:
        """Try each failed item alone, in rounds with a growing wait between them."""
        for item in failed:
            if item.shared:
                item.attempts = 0
                self._try_alone(item)
        wait_s = self._stage.backoff_s
        for _ in range(1, self._stage.attempts):
            again = [item for item in failed if _worth_another(item)]
            if not again:
                return
            self._sleep(wait_s)
            wait_s *= 2
            self._numbers.count("retries", len(again))
            for item in again:
                self._try_alone(item)

    def _try_alone(self, item: Item) -> None:
        item.attempts += 1
        item.reset()
        self._run([item])

    def _gather(self, batch: Batch, items: Sequence[Item]) -> Batch:
        """Return the batch with what became of its items."""
        entries: list[Entry] = []
        dead = list(batch.dead)
        acks = list(batch.acks)
        dropped = 0
        letters = self._letters(batch, items)
        dead += letters.values()
        for item in items:
            letter = letters.get(_source(item.entry)) if letters else None
            if letter is not None:
                acks += acks_of(item, error=letter.error)
            elif item.done:
                entries += item.done
            else:
                dropped += 1
                acks += acks_of(item)
        if letters:
            log.warning(
                "entries became dead letters",
                extra={"stage": self._stage.name, "count": len(letters)},
            )
        for name, number in (
            ("batches", 1),
            ("in", len(items)),
            ("out", len(entries)),
            ("dropped", dropped),
            ("dead", len(letters)),
        ):
            self._numbers.count(name, number)
        origins = [] if self._is_last else _origins(batch, items)
        return Batch(batch.spans, entries, dead, acks, batch.read_at_s, origins)

    def _letters(self, batch: Batch, items: Sequence[Item]) -> dict[_Source, DeadLetter]:
        """Return the letters of entries that failed, one for all items that share an entry."""
        letters: dict[_Source, DeadLetter] = {}
        failed = [(item, item.failed) for item in items if item.failed is not None]
        origins = {_source(one): one for one in batch.origins} if failed else {}
        for item, error in failed:
            source = _source(item.entry)
            if source not in letters:
                letters[source] = self._letter(origins.get(source, item.entry), item, error)
        return letters

    def _letter(self, entry: Entry, item: Item, error: BaseException) -> DeadLetter:
        by_user = item.stage != QUEUE_STAGE
        return dead_letter(
            entry,
            stage=item.stage,
            error=_why(error),
            traceback=users_traceback(error, self._code) if by_user else "",
            attempts=item.attempts,
            died_at_s=self._wall(),
        )


def _source(entry: Entry) -> _Source:
    return entry.partition, entry.id


def _origins(batch: Batch, items: Sequence[Item]) -> list[Entry]:
    """Return what entries were that this stage or one before has changed."""
    origins = list(batch.origins)
    known = set(map(_source, origins))
    # Changed here for the first time, an entry is still one item.
    origins += [item.entry for item in items if item.touched and _source(item.entry) not in known]
    return origins


def _why(error: BaseException) -> str:
    # A MessageError speaks for itself; its name would tell the reader nothing.
    line = one_line(error)
    return line.removeprefix("MessageError: ") if isinstance(error, MessageError) else line


def _worth_another(item: Item) -> bool:
    # MessageError: the code or we ourselves said that no retry can help.
    return item.failed is not None and not isinstance(item.failed, MessageError)
