"""What producers know of their messages: which were accepted, and how many calls went wrong."""

from collections.abc import Mapping


class Ledger:
    """The accepted messages of each source.

    A source is a channel that one producer publishes to, numbering its messages from 1 on. It
    repeats a message until it is accepted, and sends the next one only then; so what is accepted
    is all numbers up to the last.

    Attributes:
        refused: Messages that a full queue did not take; they were sent again.
        lost_answers: Calls without an answer; they were repeated under the same numbers or keys.
        rejected: Messages with an answer that says never to send them again. There should be none.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.lost_answers = 0
        self.rejected: list[str] = []
        self._last: dict[str, int] = {}

    def next_number(self, source: str) -> int:
        """Return the number of the source's next message."""
        return self._last.get(source, 0) + 1

    def accept(self, source: str, number: int) -> None:
        """Note that a message is accepted: the answer was seen."""
        assert number == self.next_number(source), f"{source}: {number} out of turn"
        self._last[source] = number

    def reject(self, source: str, number: int, why: str) -> None:
        """Note that a message can never be accepted. The source goes on with the next."""
        self.rejected.append(f"{source} {number}: {why}")
        self._last[source] = number

    @property
    def accepted(self) -> Mapping[str, int]:
        """Source -> its last number."""
        return self._last

    @property
    def total(self) -> int:
        """How many messages were accepted."""
        return sum(self._last.values())
