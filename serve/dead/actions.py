"""What is done with dead letters: find, replay, drop. The same for the server API and commands."""

import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from actors.errors import MessageError
from actors.message import DeadLetter, id_key
from actors.store.dead_letter import parse_letter_id, revive
from actors.store.interface import DeadLetters, DeadRecord, NewMessage, Replayed
from actors.transform.load import compile_pattern

PAGE: Final = 100
"""Letters in one call of the store: each may be as large as a message and more."""
REFUSED_KEPT_MAX: Final = 100
"""Refusals that are told one by one; all are counted."""


class Wanted:
    """Which letters: those whose channel fits a pattern (`*`, `?`), of one stage.

    Args:
        channel: The pattern; None: any channel.
        stage: The stage; None: any.
    """

    def __init__(self, channel: str | None = None, stage: str | None = None) -> None:
        self._fits = None if channel is None else compile_pattern(channel)
        self._stage = stage

    def fits(self, letter: DeadLetter) -> bool:
        """Tell whether a letter is wanted."""
        if self._stage is not None and letter.stage != self._stage:
            return False
        return self._fits is None or self._fits(letter.channel) is not None


@dataclass(slots=True)
class Tally:
    """What became of letters that were to be replayed or dropped.

    Attributes:
        done: Replayed, or dropped.
        gone: Not there: replayed or dropped by another, or pushed out by newer ones.
        kept: Not replayed, because their queue is full.
        full: The partitions whose queue was.
        refused: Not replayed, because they would only die again.
        reasons: Id and reason of the first hundred of these.
    """

    done: int = 0
    gone: int = 0
    kept: int = 0
    full: set[int] = field(default_factory=set)
    refused: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, letter_id: str, why: str) -> None:
        """Count a letter that cannot be replayed."""
        self.refused += 1
        if len(self.reasons) < REFUSED_KEPT_MAX:
            self.reasons.append((letter_id, why))


class Walk:
    """Read a partition's letters page by page, as far as there were any when it began.

    So a walk that replays what it finds ends, though what dies again is added behind it.
    """

    def __init__(
        self, letters: DeadLetters, partition: int, wanted: Wanted, *, newest_first: bool = False
    ) -> None:
        self._letters = letters
        self._partition = partition
        self._wanted = wanted
        self._newest_first = newest_first
        self._after = ""
        self._last: tuple[int, int] | None = None
        self._ended = False
        self.looked_at = 0
        """How many letters the last page had before those wanted were picked."""

    async def page(self) -> list[DeadRecord] | None:
        """Return those wanted of the next letters, perhaps none; None: this is the end."""
        if self._last is None and not self._newest_first:
            newest = await self._letters.read(self._partition, limit=1, newest_first=True)
            self._ended = not newest
            self._last = id_key(newest[0].place) if newest else None
        if self._ended:
            return None
        found = await self._letters.read(
            self._partition, after=self._after, limit=PAGE, newest_first=self._newest_first
        )
        self._ended = len(found) < PAGE
        if found:
            self._after = found[-1].place
        if self._last is not None:
            within = [record for record in found if id_key(record.place) <= self._last]
            self._ended = self._ended or len(within) < len(found)
            found = within
        self.looked_at = len(found)
        return [record for record in found if self._wanted.fits(record.letter)]


async def find(
    letters: DeadLetters,
    partitions: Iterable[int],
    wanted: Wanted,
    *,
    limit: int | None = None,
    oldest_first: bool = False,
) -> AsyncIterator[DeadRecord]:
    """Give the wanted letters of all partitions in the order of their deaths, newest first.

    Args:
        letters: Where they are.
        partitions: Where to look.
        wanted: Which.
        limit: At most so many; None: all.
        oldest_first: The other way round.
    """
    heap: list[tuple[tuple[int, int], int, DeadRecord, AsyncIterator[DeadRecord]]] = []

    async def push(partition: int, records: AsyncIterator[DeadRecord]) -> None:
        record = await anext(records, None)
        if record is not None:
            ms, seq = id_key(record.place)
            # The partition is in one entry at most: nothing behind it is ever compared.
            rank = (ms, seq) if oldest_first else (-ms, -seq)
            heapq.heappush(heap, (rank, partition, record, records))

    for partition in partitions:
        walk = Walk(letters, partition, wanted, newest_first=not oldest_first)
        await push(partition, _records(walk))
    given = 0
    while heap and (limit is None or given < limit):
        _, partition, record, records = heapq.heappop(heap)
        yield record
        given += 1
        await push(partition, records)


async def _records(walk: Walk) -> AsyncIterator[DeadRecord]:
    while (page := await walk.page()) is not None:
        for record in page:
            yield record


class Replay:
    """Puts dead letters into the queue again, and counts what becomes of them.

    Each is queued once, whoever else replays it at the same time. It goes to the end of the queue
    of the partition that it came from, and passes the transforms like any message.

    Args:
        letters: Where they are.
        tally: Where they are counted.
        entries_max: Limit of a queue.
        check: Raises `MessageError` for a letter that would only die again, beside what `revive`
            finds.
    """

    def __init__(
        self,
        letters: DeadLetters,
        tally: Tally,
        *,
        entries_max: int,
        check: Callable[[DeadLetter], None] | None = None,
    ) -> None:
        self.tally = tally
        self._letters = letters
        self._entries_max = entries_max
        self._check = check

    async def by_ids(self, ids: Sequence[str]) -> list[str]:
        """Replay the letters with these ids, in this order; return the ids that name none.

        Raises:
            MessageError: One of them cannot be an id. Nothing was done.
            UnavailableError: The store does not answer; what is counted was done, and perhaps one
                more. It may be called again.
        """
        missing = []
        for letter_id, (partition, place) in _places(ids).items():
            record = await self._letters.get(partition, place)
            gone = self.tally.gone
            if record is None:
                self.tally.gone += 1
            else:
                await self._replay(partition, [record])
            if self.tally.gone > gone:
                missing.append(letter_id)
        return missing

    async def wanted(
        self, partitions: Iterable[int], wanted: Wanted, seen: Callable[[int], None] | None = None
    ) -> None:
        """Replay all that is wanted, in each partition in the order of deaths.

        Letters that die while it runs are not replayed. In a partition whose queue is full it
        stops, with the letters that were not tried uncounted. `seen` is told how many letters were
        looked at, a page at a time.

        Raises:
            UnavailableError: See `by_ids`.
        """
        for partition in partitions:
            walk = Walk(self._letters, partition, wanted)
            while partition not in self.tally.full:
                page = await walk.page()
                if page is None:
                    break
                await self._replay(partition, page)
                if seen is not None:
                    seen(walk.looked_at)

    async def _replay(self, partition: int, records: Sequence[DeadRecord]) -> None:
        fit: list[tuple[str, NewMessage]] = []
        for record in records:
            try:
                message = revive(record.letter)
                if self._check is not None:
                    self._check(record.letter)
            except MessageError as error:
                self.tally.refuse(record.id, str(error))
            else:
                fit.append((record.place, message))
        if not fit:
            return
        results = await self._letters.replay(partition, fit, entries_max=self._entries_max)
        self.tally.done += results.count(Replayed.QUEUED)
        self.tally.gone += results.count(Replayed.GONE)
        if Replayed.FULL in results:
            self.tally.kept += results.count(Replayed.FULL)
            self.tally.full.add(partition)


class Drop:
    """Deletes dead letters for good, and counts them in `tally`."""

    def __init__(self, letters: DeadLetters, tally: Tally) -> None:
        self.tally = tally
        self._letters = letters

    async def by_ids(self, ids: Sequence[str]) -> list[str]:
        """Drop the letters with these ids; return the ids that name none.

        Raises:
            MessageError: One of them cannot be an id. Nothing was done.
            UnavailableError: The store does not answer; it may be called again.
        """
        missing = []
        for letter_id, (partition, place) in _places(ids).items():
            if await self._letters.drop(partition, [place]):
                self.tally.done += 1
            else:
                self.tally.gone += 1
                missing.append(letter_id)
        return missing

    async def wanted(
        self, partitions: Iterable[int], wanted: Wanted, seen: Callable[[int], None] | None = None
    ) -> None:
        """Drop all that is wanted; what dies while it runs is kept.

        Raises:
            UnavailableError: See `by_ids`.
        """
        for partition in partitions:
            walk = Walk(self._letters, partition, wanted)
            while (page := await walk.page()) is not None:
                dropped = await self._letters.drop(partition, [record.place for record in page])
                self.tally.done += dropped
                self.tally.gone += len(page) - dropped
                if seen is not None:
                    seen(walk.looked_at)


def _places(ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return partition and place of each id, all checked before anything is done."""
    return {letter_id: parse_letter_id(letter_id) for letter_id in ids}
