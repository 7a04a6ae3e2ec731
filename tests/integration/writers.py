"""Writers for models of the commit: step by step, and interrupted between any two commits."""

import uuid
from collections import deque
from collections.abc import Callable, Sequence

from actors.message import FIRST_ID
from actors.metrics import Numbers
from actors.publisher import Publisher
from actors.store.interface import Commit, Committed, Ledger
from tests.integration.sequential import PARTITIONS, settings_of


class Interrupted:
    """A ledger at which something happens once, after so many commits: between any two of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._after = 0
        self._what: Callable[[], None] | None = None

    def interrupt(self, after: int, what: Callable[[], None]) -> None:
        """Have something happen after `after` further commits, or with the end of a call."""
        self._after, self._what = after, what

    def calm(self) -> None:
        """Let nothing happen any more."""
        self._what = None

    def commit(self, commits: Sequence[Commit]) -> list[Committed]:
        """See `Ledger.commit`."""
        if self._what is None:
            return self._ledger.commit(commits)
        done = []
        for commit in commits:
            self._happen()
            done += self._ledger.commit([commit])
            self._after -= 1
        self._happen()
        return done

    def _happen(self) -> None:
        if self._what is not None and self._after == 0:
            what, self._what = self._what, None
            what()

    def close(self) -> None:
        """Do nothing: the ledger is shared."""


class Writer:
    """A nozzle and its publisher, step by step. `after` is what it takes for the checkpoint."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = Interrupted(ledger)
        self.batches: deque[bytes] = deque()
        self.last = b""
        self.begin(dict.fromkeys(range(PARTITIONS), FIRST_ID))
        self.restart()

    def begin(self, after: dict[int, str]) -> None:
        """Begin a new run."""
        self.after = after
        self.batches.clear()
        self.run, self.number = uuid.uuid4().hex, 0

    def restart(self) -> None:
        """Be a new process, that knows nothing of what is applied."""
        self.publisher = Publisher(
            self.ledger,
            settings_of,
            Numbers("publisher"),
            partitions=PARTITIONS,
        )

    def commit(self) -> None:
        """Commit the oldest batch."""
        self.last = self.batches.popleft()
        self.number += 1
        self.publisher.commit(self.last, self.run, self.number - 1)
