"""The store in memory: the dead letters. See `interface.DeadLetters`."""

from collections.abc import Awaitable, Callable, Sequence

from actors.message import DeadLetter, id_key
from actors.store.interface import DeadRecord, NewMessage, Replayed


class MemoryDeadLetters:
    """Implement `interface.DeadLetters`.

    Args:
        records_max: Letters that a partition keeps.
        next_id: Makes ids that rise.
        enqueue: Appends to a partition's queue unless it is at its limit, and says whether it did.
        tell: Wakes up those who wait for entries.
    """

    def __init__(
        self,
        records_max: int,
        *,
        next_id: Callable[[], str],
        enqueue: Callable[[int, NewMessage, int], bool],
        tell: Callable[[], Awaitable[None]],
    ) -> None:
        self._records_max = records_max
        self._next_id = next_id
        self._enqueue = enqueue
        self._tell = tell
        self._records: dict[int, list[DeadRecord]] = {}

    def append(self, partition: int, letters: Sequence[DeadLetter]) -> None:
        """Keep letters; the oldest go."""
        kept = self._records.setdefault(partition, [])
        kept += [DeadRecord(partition, self._next_id(), letter) for letter in letters]
        del kept[: -self._records_max]

    def all(self) -> list[DeadLetter]:
        """Return all letters, in the order of their deaths."""
        records = [record for kept in self._records.values() for record in kept]
        return [record.letter for record in sorted(records, key=lambda r: id_key(r.place))]

    async def read(
        self, partition: int, *, after: str = "", limit: int, newest_first: bool = False
    ) -> list[DeadRecord]:
        """See `DeadLetters.read`."""
        records = list(self._records.get(partition, ()))
        if newest_first:
            records.reverse()
        if after:
            edge = id_key(after)
            records = [
                record
                for record in records
                if (id_key(record.place) < edge if newest_first else id_key(record.place) > edge)
            ]
        return records[:limit]

    async def get(self, partition: int, place: str) -> DeadRecord | None:
        """See `DeadLetters.get`."""
        return self._find(partition, place)

    async def replay(
        self, partition: int, letters: Sequence[tuple[str, NewMessage]], *, entries_max: int
    ) -> list[Replayed]:
        """See `DeadLetters.replay`."""
        return [self._replay(partition, place, message, entries_max) for place, message in letters]

    def _replay(
        self, partition: int, place: str, message: NewMessage, entries_max: int
    ) -> Replayed:
        record = self._find(partition, place)
        if record is None:
            return Replayed.GONE
        if not self._enqueue(partition, message, entries_max):
            return Replayed.FULL
        self._records[partition].remove(record)
        return Replayed.QUEUED

    async def drop(self, partition: int, places: Sequence[str]) -> int:
        """See `DeadLetters.drop`."""
        kept = self._records.get(partition, [])
        gone = [record for record in kept if record.place in set(places)]
        for record in gone:
            kept.remove(record)
        return len(gone)

    async def count(self, partitions: Sequence[int]) -> dict[int, int]:
        """See `DeadLetters.count`."""
        return {p: len(self._records.get(p, ())) for p in partitions}

    def _find(self, partition: int, place: str) -> DeadRecord | None:
        found = (r for r in self._records.get(partition, ()) if id_key(r.place) == id_key(place))
        return next(found, None)
