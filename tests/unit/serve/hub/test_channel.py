"""The order of one channel: what the feed loses or repeats, the history mends."""

from hypothesis import given
from hypothesis import strategies as st

from actors.store.interface import History
from serve.hub import channel as channel_module
from serve.hub.channel import Order


def bodies(first: int, last: int) -> list[bytes]:
    """Make bodies that say their offsets."""
    return [b"%d" % offset for offset in range(first, last + 1)]


def history(since: int, top: int, epoch: str = "e") -> History:
    """Make what a history has after an offset."""
    return History(top, epoch, list(enumerate(bodies(since + 1, top), since + 1)))


def opened(top: int = 0) -> Order:
    """Make an order whose position is known."""
    order = Order(numbered=True)
    assert order.heal(History(top, "e", []))
    return order


def taken(order: Order) -> list[tuple[int, bytes]]:
    """Return what is in order, each with its offset."""
    return [
        (first + index if first else 0, body)
        for first, run in order.take()
        for index, body in enumerate(run)
    ]


def expected(first: int, last: int) -> list[tuple[int, bytes]]:
    """Say how publications come out."""
    return list(enumerate(bodies(first, last), first))


def test_publications_in_order_pass_as_one_run() -> None:
    """What follows on is joined, so that a read of the feed is encoded at once."""
    order = opened(3)
    order.offer(4, "e", bodies(4, 5))
    order.offer(6, "e", bodies(6, 6))
    assert order.take() == [(4, bodies(4, 6))]
    assert order.take() == []
    assert order.top == 6


def test_repeats_are_dropped() -> None:
    """Wholly or in part: an offset is passed on once."""
    order = opened(5)
    order.offer(4, "e", bodies(4, 5))
    order.offer(5, "e", bodies(5, 7))
    assert taken(order) == expected(6, 7)


def test_position_is_unknown_at_first() -> None:
    """Until the history has said where the channel is, everything waits."""
    order = Order(numbered=True)
    order.offer(4, "e", bodies(4, 6))
    assert order.waits()
    assert order.take() == []
    assert order.heal(History(5, "e", []))
    assert not order.waits()
    assert taken(order) == expected(6, 6)


def test_gap_is_healed_and_nothing_overtakes() -> None:
    """What comes after a gap, numbered or not, waits for what is missing."""
    order = opened(1)
    order.offer(4, "e", bodies(4, 4))
    order.offer(0, "", [b"x"])
    order.offer(5, "e", bodies(5, 5))
    assert order.take() == []
    assert order.heal(history(1, 4))
    assert taken(order) == [*expected(2, 4), (0, b"x"), *expected(5, 5)]
    assert not order.waits()


def test_long_gap_is_healed_in_several_reads() -> None:
    """A read that did not reach the top is followed by another."""
    order = opened(1)
    order.offer(9, "e", bodies(9, 9))
    assert order.heal(History(9, "e", expected(2, 5)))
    assert order.waits()
    assert order.heal(history(5, 9))
    assert not order.waits()
    assert taken(order) == expected(2, 9)


def test_long_loss_without_more_publications_is_healed_in_full() -> None:
    """Also where nothing that came later shows that there is more to read."""
    order = opened(1)
    order.suspect()
    assert order.heal(History(9, "e", expected(2, 5)))
    assert order.waits()
    assert order.heal(history(5, 9))
    assert taken(order) == expected(2, 9)


def test_gap_that_history_no_longer_has_is_a_loss() -> None:
    """The caller is told; what is left goes on to those who need no continuity."""
    order = opened(1)
    order.offer(9, "e", bodies(9, 9))
    assert not order.heal(history(6, 9))
    assert not order.waits()
    assert taken(order) == expected(7, 9)


def test_expired_history_is_a_loss() -> None:
    """The top moved, and nothing is retained."""
    order = opened(1)
    order.suspect()
    assert not order.heal(History(4, "e", []))
    assert order.top == 4


def test_suspicion_without_loss_changes_nothing() -> None:
    """Where the history has nothing after the top, nothing was missed."""
    order = opened(4)
    order.suspect()
    assert order.waits()
    assert order.heal(History(4, "e", []))
    order.offer(5, "e", bodies(5, 5))
    assert taken(order) == expected(5, 5)


def test_answer_older_than_the_last_suspicion_is_not_the_end() -> None:
    """What it has goes on, and the rest waits for another one."""
    order = opened(1)
    order.suspect()
    asked = order.doubts
    order.suspect()
    assert order.heal(history(1, 2), sure=order.doubts == asked)
    assert order.waits()
    order.offer(3, "e", bodies(3, 3))
    assert taken(order) == expected(2, 2)
    assert order.heal(History(3, "e", expected(3, 3)))
    assert not order.waits()
    assert taken(order) == expected(3, 3)


def test_new_epoch_is_a_loss_and_goes_on() -> None:
    """Positions of another epoch mean nothing; the new ones are passed on from the first seen."""
    order = opened(7)
    order.offer(1, "f", bodies(1, 2))
    assert order.waits()
    assert not order.heal(History(2, "f", []))
    assert taken(order) == expected(1, 2)
    assert (order.top, order.epoch) == (2, "f")


def test_leftovers_of_an_old_epoch_are_dropped() -> None:
    """The feed lags behind: what it has of an epoch that is over must not begin it again."""
    order = opened(7)
    order.offer(9, "e", bodies(9, 9))
    order.offer(1, "f", bodies(1, 1))
    assert not order.heal(History(1, "f", []))
    assert not order.waits()
    assert taken(order) == expected(1, 1)


def test_gap_that_nothing_explains_can_be_skipped() -> None:
    """A history that stays behind the feed must not stop the channel for ever."""
    order = opened(1)
    order.offer(4, "e", bodies(4, 4))
    assert order.heal(History(1, "e", []))
    assert order.waits()
    order.skip()
    assert not order.waits()
    assert taken(order) == expected(4, 4)


def test_held_publications_are_limited() -> None:
    """Too many: they are dropped, and the history is read again for them."""
    order = opened(0)
    order.suspect()
    order.offer(1, "e", bodies(1, channel_module.HELD_MAX))
    order.offer(channel_module.HELD_MAX + 1, "e", [b"one too many"])
    assert order.heal(History(0, "e", []))
    assert order.waits()
    assert order.heal(history(0, 5))
    assert not order.waits()
    assert taken(order) == expected(1, 5)


def test_channel_without_history_passes_on() -> None:
    """No offsets, no gaps, nothing to wait for."""
    order = Order(numbered=False)
    order.suspect()
    order.offer(0, "", [b"a"])
    order.offer(0, "", [b"b"])
    assert order.take() == [(0, [b"a", b"b"])]


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["seen", "lost", "twice"]))))
def test_each_offset_comes_once_whatever_the_feed_does(
    commits: list[tuple[int, str]],
) -> None:
    """Lost and repeated records leave no trace, as the history has them."""
    order, top = opened(), 0
    for size, fate in commits:
        first, top = top + 1, top + size
        for _ in range({"seen": 1, "lost": 0, "twice": 2}[fate]):
            order.offer(first, "e", bodies(first, top))
        while order.waits():
            assert order.heal(history(order.top, top))
    order.suspect()
    order.heal(history(order.top, top))
    assert taken(order) == expected(1, top)
