"""What is done to the system, and when: an endless plan that a seed fixes."""

import enum
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final


class Kind(enum.Enum):
    """One way to disturb a running system."""

    KILL_NOZZLE = "kill nozzle"
    KILL_TRANSFORMER = "kill transformer"
    KILL_PUBLISHER = "kill publisher"
    KILL_SUPERVISOR = "kill supervisor"
    KILL_EDGE = "kill edge"
    KILL_CONTROLLER = "kill controller"
    KILL_PROXY = "kill proxy"
    KILL_VALKEY = "kill valkey"
    FREEZE_NOZZLE = "freeze nozzle"
    FREEZE_TRANSFORMER = "freeze transformer"
    FREEZE_PUBLISHER = "freeze publisher"
    FREEZE_EDGE = "freeze edge"
    FREEZE_VALKEY = "freeze valkey"
    CUT_VALKEY = "cut all of valkey's connections"
    CUT_SOME_OF_VALKEY = "cut half of valkey's connections"
    CUT_SOCKETS = "cut subscribers' sockets"
    CRASH = "kill raywire up"
    RESTART = "stop and start"


KILLS: Final = (
    Kind.KILL_NOZZLE,
    Kind.KILL_TRANSFORMER,
    Kind.KILL_PUBLISHER,
    Kind.KILL_SUPERVISOR,
    Kind.KILL_EDGE,
    Kind.KILL_CONTROLLER,
    Kind.KILL_PROXY,
)
"""SIGKILL of one process of Ray's."""

FREEZES: Final = (
    Kind.FREEZE_NOZZLE,
    Kind.FREEZE_TRANSFORMER,
    Kind.FREEZE_PUBLISHER,
    Kind.FREEZE_EDGE,
    Kind.FREEZE_VALKEY,
)
"""SIGSTOP of one process, and SIGCONT after a while."""

PAUSE_S_MAX: Final = 2.0
FREEZE_S: Final = (1.0, 4.0)
_PRESSING: Final = 0.25


@dataclass(frozen=True, slots=True)
class Strike:
    """One disturbance.

    Attributes:
        kind: What is done.
        pause_s: How long to wait before it.
        pressing: It does not wait until the system has recovered from the one before.
        choice: Which of several victims: a place among them, in [0, 1).
        hold_s: How long a frozen process stays so.
    """

    kind: Kind
    pause_s: float
    pressing: bool
    choice: float
    hold_s: float


def strikes(seed: int, kinds: Sequence[Kind] = tuple(Kind)) -> Iterator[Strike]:
    """Yield strikes without end; the same for the same seed and kinds.

    They come in rounds: each kind once in a round, shuffled.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            yield Strike(
                kind=kind,
                pause_s=round(chance.uniform(0.0, PAUSE_S_MAX), 2),
                pressing=chance.random() < _PRESSING,
                choice=chance.random(),
                hold_s=round(chance.uniform(*FREEZE_S), 2),
            )
