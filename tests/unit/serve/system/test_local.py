"""How a system on this machine starts, where that can be seen without one."""

import signal
import sys
from collections.abc import Iterator

import pytest

from serve.system.local import _start_uncut

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ours(*_: object) -> None:
    """Stand for the handlers of `raywire up`."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    old = {number: signal.signal(number, ours) for number in ENDING}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_signal_waits_for_the_end_of_what_must_not_be_cut(number: signal.Signals) -> None:
    """And interrupts then."""
    steps = []
    with pytest.raises(KeyboardInterrupt), _start_uncut():  # noqa: PT012 - the order counts
        signal.raise_signal(number)
        steps.append("went on")
    assert steps == ["went on"]


def test_handlers_of_another_are_replaced_by_ours() -> None:
    """Ray sets one for SIGTERM that ends the process with its number; ours come back."""
    with pytest.raises(KeyboardInterrupt), _start_uncut():  # noqa: PT012 - as Ray does it
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in ENDING] == [ours] * 3


def test_without_a_signal_nothing_is_raised() -> None:
    """It goes on, with our handlers."""
    with _start_uncut():
        pass
    assert signal.getsignal(signal.SIGINT) is ours
