"""The built-in transforms: what each keeps."""

from typing import Any

import pytest

from actors.message import Message
from actors.transform.builtin import Conflate, Filter, Pick, Sample


def message(data: Any, channel: str = "c", entry_id: str = "1-0") -> Message:
    """Make a message."""
    return Message(channel=channel, data=data, id=entry_id)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"exists": True}, [0, 1, True, None, "ab", [1], 7]),
        ({"exists": False}, ["missing"]),
        ({"equals": 1}, [1]),
        ({"equals": True}, [True]),
        ({"equals": None}, [None]),
        ({"one_of": [0, "ab", [1]]}, [0, "ab", [1]]),
        ({"at_least": 1}, [1, 7]),
        ({"at_least": 1, "at_most": 6.5}, [1]),
        ({"at_most": 0, "drop": True}, [1, True, None, "ab", [1], 7, "missing"]),
        ({"matches": "^a"}, ["ab"]),
    ],
)
def test_filter(options: dict[str, Any], kept: list[Any]) -> None:
    """Kept is what meets the condition; with `drop`, what does not."""
    keep = Filter("a.b", **options)
    values: list[Any] = [0, 1, True, None, "ab", [1], 7]
    messages = [message({"a": {"b": value}}) for value in values]
    found = [m.data["a"]["b"] for m in messages if keep(m) is m]
    if keep(message({"a": 1})):
        found.append("missing")
    assert [(type(value), value) for value in found] == [(type(value), value) for value in kept]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"equals": 1, "exists": True},
        {"one_of": "abc"},
        {"at_least": "1"},
        {"matches": "("},
        {"exists": 1},
        {"exists": True, "drop": 1},
    ],
)
def test_filter_refuses_options_without_sense(options: dict[str, Any]) -> None:
    """One condition, of the right kind."""
    with pytest.raises(Exception, match=r"."):
        Filter("a", **options)


@pytest.mark.parametrize("path", ["", "a..b", ".a"])
def test_path_without_a_name_is_refused(path: str) -> None:
    """Every part of a path names a member."""
    with pytest.raises(ValueError, match="is no path"):
        Filter(path, exists=True)


@pytest.mark.parametrize(
    ("fields", "data", "left"),
    [
        (
            ["a", "u.name"],
            {"a": 1, "b": 2, "u": {"name": "x", "mail": "y"}},
            {"a": 1, "u": {"name": "x"}},
        ),
        (["u.name", "u"], {"u": {"name": "x", "mail": "y"}}, {"u": {"name": "x", "mail": "y"}}),
        (["a"], {"b": 1}, {}),
        (["a.b"], {"a": [1]}, {}),
        (["a"], "secret", {}),
    ],
)
def test_pick(fields: list[str], data: Any, left: Any) -> None:
    """Nothing but the named fields goes on."""
    assert Pick(fields)(message(data)).data == left


def test_pick_wants_a_list() -> None:
    """One text would be taken letter by letter."""
    with pytest.raises(ValueError, match="give a list"):
        Pick("name")


def test_sample_keeps_its_share_and_decides_the_same_again() -> None:
    """The choice is a function of the id."""
    messages = [message(None, entry_id=f"{n}-0") for n in range(2000)]
    kept = [m.id for m in messages if Sample(0.25)(m)]
    assert 400 < len(kept) < 600
    assert kept == [m.id for m in messages if Sample(0.25)(m)]
    assert set(kept) <= {m.id for m in messages if Sample(0.5)(m)}


def test_sample_ends_keep_all_and_nothing() -> None:
    """Zero means zero, one means all."""
    messages = [message(None, entry_id=f"{n}-0") for n in range(100)]
    assert not any(Sample(0)(m) for m in messages)
    assert all(Sample(1)(m) for m in messages)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Sample(2)


def test_sample_by_key_keeps_all_of_a_key() -> None:
    """All messages of a user are in the sample, or none."""
    sample = Sample(0.5, by="user")
    for user in range(50):
        kept = {sample(message({"user": user}, entry_id=f"{n}-0")) is None for n in range(5)}
        assert len(kept) == 1


def test_conflate_keeps_the_last_of_each_key() -> None:
    """Keys are apart for each channel; what has no key goes on; order stays."""
    messages = [
        message({"k": 1, "n": 0}),
        message({"k": 2, "n": 1}),
        message({"n": 2}),
        message({"k": 1, "n": 3}, channel="d"),
        message({"k": 1, "n": 4}),
        message({"k": "1", "n": 5}),
    ]
    kept = Conflate("k").batch(messages)
    assert [m.data["n"] for m in kept if m] == [1, 2, 3, 4, 5]
    assert kept[0] is None


@pytest.mark.parametrize(
    ("versions", "kept"),
    [
        ([(2, "a"), (1, "a")], 0),
        ([(2, "a"), (1, "")], 0),
        ([(2, "a"), (2, "a")], 1),
        ([(2, "a"), (1, "b")], 1),
        ([(2, "a"), (0, "")], 1),
        ([(0, ""), (1, "a")], 1),
        ([(1, "a"), (3, "a"), (2, "a")], 1),
        ([(5, ""), (0, ""), (3, "")], 1),
        ([(5, "a"), (2, "b"), (3, "b"), (0, ""), (2, "b")], 3),
    ],
)
def test_conflate_keeps_the_higher_version(versions: list[tuple[int, str]], kept: int) -> None:
    """A late one would have no effect at the commit, so it may not cost the one that has."""
    messages = [message(0).replace(version=v, version_epoch=epoch) for v, epoch in versions]
    found = Conflate().batch(messages)
    assert [index for index, one in enumerate(found) if one] == [kept]


def test_conflate_keeps_the_last_that_goes_into_the_history() -> None:
    """What skips it is one kind of message, what is kept another."""
    skips = [False, True, False, True]
    messages = [message(n).replace(skip_history=skip) for n, skip in enumerate(skips)]
    assert Conflate().batch(messages) == [None, None, messages[2], messages[3]]


def test_conflate_without_key_keeps_the_last_of_each_channel() -> None:
    """The channel alone is the key."""
    messages = [message(0), message(1, channel="d"), message(2)]
    assert Conflate().batch(messages) == [None, messages[1], messages[2]]
