"""The comparison of what was accepted, what is kept, and what subscribers got. Pure.

Everything here counts messages that break a promise; a run is good if all counts are 0.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from tests.chaos.chaos_moves import destination
from tests.chaos.trail import Stretch, Trail, mark

_EXAMPLES_MAX = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One publication of a history.

    Attributes:
        source: Where it was published to.
        number: Its number there.
        whole: The transforms have done what they should.
    """

    source: str
    number: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Past:
    """A channel's whole history: the first publication has offset 1."""

    epoch: str
    publications: Sequence[Kept]


@dataclass(slots=True)
class Verdict:
    """How many messages break which promise.

    Attributes:
        lost: Accepted, and not in the history where they belong.
        repeated: More than once in a history.
        reordered: In a history before one that was published earlier to the same channel.
        strange: In a history, but never accepted, or not transformed.
        gaps: Not seen by a subscriber who was not told so.
        repeats: Seen more than once by a subscriber.
        differing: Seen by a subscriber otherwise than the history has it.
        examples: Some of them, in words.
    """

    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    strange: int = 0
    gaps: int = 0
    repeats: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not any(value for name, value in asdict(self).items() if name != "examples")

    def note(self, name: str, count: int, where: str) -> None:
        """Count what breaks a promise."""
        if count:
            setattr(self, name, getattr(self, name) + count)
            if len(self.examples) < _EXAMPLES_MAX:
                self.examples.append(f"{name}: {count} in {where}")


def judge(
    accepted: Mapping[str, int],
    pasts: Mapping[str, Past],
    trails: Iterable[tuple[str, str, Trail]],
) -> Verdict:
    """Compare everything, after the queue has run empty and subscribers have caught up.

    Args:
        accepted: Source -> the last number accepted of it.
        pasts: Channel -> its history, of all channels that may have one.
        trails: Subscriber, channel, and what came; for each subscriber and channel.
    """
    verdict = Verdict()
    _judge_pasts(accepted, pasts, verdict)
    for subscriber, channel, trail in trails:
        _judge_trail(f"{channel} at {subscriber}", trail, pasts[channel], verdict)
    return verdict


def _judge_pasts(accepted: Mapping[str, int], pasts: Mapping[str, Past], verdict: Verdict) -> None:
    wanted: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for source, last in accepted.items():
        for number in range(1, last + 1):
            wanted[destination(source, number), source].add(number)
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for channel, past in pasts.items():
        for kept in past.publications:
            found[channel, kept.source].append(kept.number)
        verdict.note("strange", sum(not kept.whole for kept in past.publications), channel)
    for way in wanted.keys() | found.keys():
        _judge_way(f"{way[0]} from {way[1]}", wanted[way], found[way], verdict)


def _judge_way(where: str, wanted: set[int], found: Sequence[int], verdict: Verdict) -> None:
    counts = Counter(found)
    lost = sorted(wanted - counts.keys())
    verdict.note("lost", len(lost), f"{where}: {lost[:5]}")
    verdict.note("strange", len(counts.keys() - wanted), where)
    verdict.note("repeated", sum(counts.values()) - len(counts), where)
    # In the order of their first appearance: a repeat is counted as such, not as disorder too.
    first = list(dict.fromkeys(found))
    reordered = sum(later < earlier for earlier, later in pairwise(first))
    verdict.note("reordered", reordered, where)


def _judge_trail(where: str, trail: Trail, past: Past, verdict: Verdict) -> None:
    for stretch in trail.stretches:
        _judge_stretch(where, stretch, past, verdict)
    if trail.position is not None:
        offset, epoch = trail.position
        if epoch == past.epoch:
            missing = len(past.publications) - offset
            verdict.note("gaps", max(0, missing), f"{where}: the last {missing}")


def _judge_stretch(where: str, stretch: Stretch, past: Past, verdict: Verdict) -> None:
    top = stretch.after
    for offset, content in zip(stretch.offsets, stretch.marks, strict=True):
        if offset <= top:
            verdict.note("repeats", 1, f"{where}: {offset} after {top}")
            continue
        verdict.note("gaps", offset - top - 1, f"{where}: {top + 1} to {offset - 1}")
        top = offset
        if stretch.epoch == past.epoch and not _is_at(past, offset, content):
            verdict.note("differing", 1, f"{where}: {offset}")


def _is_at(past: Past, offset: int, content: int) -> bool:
    if offset > len(past.publications):
        return False
    kept = past.publications[offset - 1]
    return mark(kept.source, kept.number) == content
