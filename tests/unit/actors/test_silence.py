"""Silence: who hangs, and who is only busy."""

from actors.silence import Silence


def test_part_that_neither_answers_nor_reports_is_silent() -> None:
    """A stopped process does neither."""
    silence = Silence("me")
    silence.answered("part", 0)
    silence.hear({"me": {"at_s": 1.0}, "part": {"at_s": 1.0}}, 0)
    silence.hear({"me": {"at_s": 12.0}, "part": {"at_s": 1.0}}, 11)
    assert silence.is_silent("part", 11, 10)


def test_part_that_reports_is_busy() -> None:
    """It may work on a batch for minutes. Its clock may be another than ours."""
    silence = Silence("me")
    silence.answered("part", 0)
    for second in range(60):
        silence.hear({"me": {"at_s": second}, "part": {"at_s": second - 5000}}, second)
    assert not silence.is_silent("part", 60, 10)


def test_part_that_answers_lives() -> None:
    """Whatever its reports say."""
    silence = Silence("me")
    silence.hear({"me": {"at_s": 1.0}, "part": {"at_s": 1.0}}, 0)
    silence.answered("part", 50)
    silence.hear({"me": {"at_s": 2.0}, "part": {"at_s": 1.0}}, 55)
    assert not silence.is_silent("part", 55, 10)


def test_nobody_is_silent_while_reports_do_not_get_through() -> None:
    """Where the server is away, no report says anything."""
    silence = Silence("me")
    silence.hear({"me": {"at_s": 1.0}, "part": {"at_s": 1.0}}, 0)
    assert not silence.is_silent("part", 100, 10)


def test_unknown_part_is_not_silent() -> None:
    """One that has just been made is given its time."""
    silence = Silence("me")
    silence.hear({"me": {"at_s": 1.0}}, 100)
    assert not silence.is_silent("part", 100, 10)
