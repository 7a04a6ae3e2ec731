"""How entries that may have killed a transformer are taken apart, until the guilty one is found.

Arithmetic and bookkeeping; no I/O.
"""

from collections.abc import Mapping

from actors.message import id_key


class Suspects:
    """The entries that were under way when transformers died, up to an id in each partition.

    They are sent again with nothing else under way, partition by partition. What ends a process
    is sent in halves, until it is a single entry; that is guilty when it has ended a process,
    alone, `crashes_max` times. An entry costs at most `log2(batch) + crashes_max` processes here.

    Args:
        uptos: The last entry of each partition that was under way.
        batch_max: Entries in one batch, at most, to begin with.
        crashes_max: See above. At least 1.
    """

    def __init__(self, uptos: Mapping[int, str], *, batch_max: int, crashes_max: int) -> None:
        self._uptos = dict(uptos)
        self._batch_max = batch_max
        self._crashes_max = crashes_max
        self._limit = batch_max
        self._crashes = 0

    @property
    def limit(self) -> int:
        """Return how many entries to send next, at most."""
        return self._limit

    def partitions(self) -> list[int]:
        """Return the partitions that are not through yet."""
        return list(self._uptos)

    def passed(self, partition: int, last_id: str) -> None:
        """Know that everything up to an entry is committed."""
        if self._limit == 1:
            self._crashes = 0
        if self.is_through(partition, last_id):
            self.cleared(partition)

    def is_through(self, partition: int, last_id: str) -> bool:
        """Return whether a partition has no suspects left after an entry that is committed."""
        return id_key(last_id) >= id_key(self._uptos[partition])

    def cleared(self, partition: int) -> None:
        """Know that a partition has no suspects any more."""
        del self._uptos[partition]
        self._begin_anew()

    def crashed(self, count: int) -> bool:
        """Know that a batch of `count` entries ended a process; return whether it is guilty.

        The guilty batch is a single entry. It is to be buried and then reported as `passed`.
        """
        if count > 1:
            self._limit = count // 2
            return False
        self._limit = 1
        self._crashes += 1
        if self._crashes < self._crashes_max:
            return False
        self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        self._limit = self._batch_max
        self._crashes = 0
