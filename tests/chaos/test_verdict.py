"""The comparison notices what it is there for, and only that."""

from dataclasses import replace

import pytest

from tests.chaos.trail import Trail, mark
from tests.chaos.verdict import Kept, Past, Verdict, judge

CHANNEL = "plain.0"


def past(*numbers: int, source: str = CHANNEL) -> Past:
    """A history with these messages."""
    return Past("e", [Kept(source, number) for number in numbers])


def trail(*offsets: int, after: int = 0, epoch: str = "e") -> Trail:
    """What a subscriber got; the message at offset 5 is number 5."""
    made = Trail()
    made.begin(after, epoch)
    for offset in offsets:
        made.add(offset, mark(CHANNEL, offset))
    return made


def judged(kept: Past, seen: Trail | None = None) -> Verdict:
    """The verdict on one channel of three accepted messages."""
    trails = [] if seen is None else [("s", CHANNEL, seen)]
    return judge({CHANNEL: 3}, {CHANNEL: kept}, trails)


def counts(verdict: Verdict) -> Verdict:
    """A verdict without its examples."""
    return replace(verdict, examples=[])


def test_all_there_once_in_order_is_good() -> None:
    """Nothing is found where nothing is wrong."""
    verdict = judged(past(1, 2, 3), trail(1, 2, 3))
    assert verdict.good
    assert verdict == Verdict()


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ((1, 3), Verdict(lost=1)),
        ((), Verdict(lost=3)),
        ((1, 2, 2, 3), Verdict(repeated=1)),
        ((1, 2, 3, 1), Verdict(repeated=1)),
        ((1, 3, 2), Verdict(reordered=1)),
        ((3, 1, 1), Verdict(lost=1, repeated=1, reordered=1)),
        ((1, 2, 3, 4), Verdict(strange=1)),
    ],
)
def test_broken_histories_are_noticed(numbers: tuple[int, ...], found: Verdict) -> None:
    """Each kind of fault in a history is counted as what it is."""
    verdict = judged(past(*numbers))
    assert not verdict.good
    assert counts(verdict) == found
    assert verdict.examples


def test_untransformed_message_is_strange() -> None:
    """A publication that a transform has not seen is no success."""
    kept = Past("e", [Kept(CHANNEL, 1), Kept(CHANNEL, 2), Kept(CHANNEL, 3, whole=False)])
    assert counts(judged(kept)) == Verdict(strange=1)


def test_message_of_unknown_source_is_strange() -> None:
    """What nobody published must not be there."""
    kept = Past("e", [*past(1, 2, 3).publications, Kept("plain.9", 1)])
    assert counts(judged(kept)) == Verdict(strange=1)


def test_moved_messages_belong_elsewhere() -> None:
    """A re-addressed message counts where it goes, and is lost if it stays."""
    source = "moving.4"
    stayed, moved = past(1, 2, source=source), past(3, source=source)
    assert judge({source: 3}, {source: stayed, "moved.4": moved}, []).good
    at_home = {source: past(1, 2, 3, source=source), "moved.4": past(source=source)}
    assert counts(judge({source: 3}, at_home, [])) == Verdict(lost=1, strange=1)


def test_order_holds_for_each_source_alone() -> None:
    """Two sources that go to one channel may interleave in any way."""
    kept = [Kept("moving.4", 6), Kept("moving.14", 3), Kept("moving.4", 3)]
    pasts = {
        "moved.4": Past("e", kept),
        "moving.4": past(1, 2, 4, 5, source="moving.4"),
        "moving.14": past(1, 2, source="moving.14"),
    }
    assert counts(judge({"moving.4": 6, "moving.14": 3}, pasts, [])) == Verdict(reordered=1)


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (trail(1, 3), Verdict(gaps=1)),
        (trail(3), Verdict(gaps=2)),
        (trail(1, 2), Verdict(gaps=1)),
        (trail(), Verdict(gaps=3)),
        (trail(1, 2, 2, 3), Verdict(repeats=1)),
        (trail(1, 2, 3, 2), Verdict(repeats=1, gaps=1)),
        (trail(1, 2, 3, 4), Verdict(differing=1)),
    ],
)
def test_broken_trails_are_noticed(seen: Trail, found: Verdict) -> None:
    """Each kind of fault at a subscriber is counted as what it is."""
    assert counts(judged(past(1, 2, 3), seen)) == found


def test_gap_that_was_told_is_no_silent_one() -> None:
    """Where the server says that it cannot recover, a new stretch begins."""
    seen = trail(1)
    seen.begin(2, "e")
    seen.add(3, mark(CHANNEL, 3))
    assert judged(past(1, 2, 3), seen).good


def test_other_epoch_is_compared_with_itself_only() -> None:
    """Offsets of another epoch mean other messages, but still follow each other."""
    assert judged(past(1, 2, 3), trail(7, 8, after=6, epoch="old")).good
    broken = judged(past(1, 2, 3), trail(7, 9, after=6, epoch="old"))
    assert counts(broken) == Verdict(gaps=1)


def test_other_content_is_noticed() -> None:
    """The same offset must be the same message for everybody."""
    seen = trail(1, 2)
    seen.add(3, mark(CHANNEL, 2))
    assert counts(judged(past(1, 2, 3), seen)) == Verdict(differing=1)
