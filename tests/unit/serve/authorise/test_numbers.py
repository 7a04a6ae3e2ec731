"""What is counted of functions, and the room for their calls."""

from concurrent.futures import ThreadPoolExecutor

from actors.metrics import Numbers
from serve.authorise.numbers import Outcome, Places, Tally


def test_every_outcome_is_there_from_the_start() -> None:
    """So a rate over it is 0, and not missing, before the first."""
    numbers = Numbers("edge")
    tally = Tally(numbers, "rpc")
    counters = numbers.snapshot()["counters"]
    assert counters == {
        f"authorise_calls{{function=rpc,outcome={outcome}}}": 0
        for outcome in ("allowed", "denied", "failed", "timed_out", "refused")
    }
    tally.ended(Outcome.DENIED, 0.5)
    tally.refused()
    snapshot = numbers.snapshot()
    assert {name for name, count in snapshot["counters"].items() if count} == {
        "authorise_calls{function=rpc,outcome=denied}",
        "authorise_calls{function=rpc,outcome=refused}",
    }
    assert snapshot["latencies"]["authorise{function=rpc}"]["sum_s"] == 0.5


def test_functions_share_the_places() -> None:
    """One may take all; what is given back is free for others."""
    places = Places(2, ["rpc", "connect"])
    assert places.take("rpc")
    assert places.take("rpc")
    assert not places.take("connect")
    assert places.taken() == {"rpc": 2, "connect": 0}
    places.give_back("rpc")
    assert places.take("connect")
    assert places.taken() == {"rpc": 1, "connect": 1}


def test_places_are_given_back_by_any_thread() -> None:
    """None is lost, and none is made."""
    places = Places(3, ["rpc"])

    def come_and_go(_: int) -> None:
        if places.take("rpc"):
            places.give_back("rpc")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come_and_go, range(5_000)))
    assert places.taken() == {"rpc": 0}
    assert [places.take("rpc") for _ in range(4)] == [True, True, True, False]
