"""Fossil deltas: applied, they give the target; and they are short."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.fossil import delta
from tests.fossil_apply import apply

LONG = json.dumps({"text": "The quick brown fox jumps over the lazy dog. " * 40, "n": 1}).encode()


@given(st.text(), st.text())
def test_any_texts(source: str, target: str) -> None:
    """What is found gives the target, is shorter, and is text."""
    found = delta(source.encode(), target.encode())
    if found is not None:
        assert apply(source.encode(), found) == target.encode()
        assert len(found) < len(target.encode())
        found.decode()


@given(st.data())
def test_edited_texts(data: st.DataObject) -> None:
    """The same for texts that have much in common, of characters of every size."""
    alphabet = st.sampled_from("ab \u00e9\u20ac\U0001f600")
    pieces = data.draw(st.lists(st.text(alphabet, min_size=8), min_size=1, max_size=8))
    source = "".join(pieces).encode()
    changed = data.draw(st.lists(st.sampled_from(pieces) | st.text(alphabet), max_size=12))
    target = "".join(changed).encode()
    found = delta(source, target)
    if found is not None:
        assert apply(source, found) == target
        found.decode()


def test_edits_far_apart() -> None:
    """Each is sent alone, not all that lies between."""
    target = LONG.replace(b"quick", b"slow", 1).replace(b"1}", b"22}")
    target = target[:900] + b"and here" + target[900:]
    found = delta(LONG, target)
    assert found is not None
    assert apply(LONG, found) == target
    assert len(found) < 80


def test_moved_parts() -> None:
    """Parts that changed places are copied from where they were."""
    one, other = b"0123456789abcdef" * 4, bytes(range(32, 127))
    found = delta(one + other, other + b"-" + one)
    assert found is not None
    assert apply(one + other, found) == other + b"-" + one
    assert len(found) < 60


def test_same_text() -> None:
    """One copy says it all."""
    found = delta(LONG, LONG)
    assert found is not None
    assert apply(LONG, found) == LONG
    assert len(found) < 20


@pytest.mark.parametrize("source", [b"", b"x", b"nothing in common with it, at all, as one sees"])
def test_no_delta_where_it_saves_nothing(source: bytes) -> None:
    """The whole is sent then."""
    assert delta(source, b'{"short":1}') is None


@pytest.mark.parametrize("target", ["", "a", "\u00e9"])
def test_small_targets(target: str) -> None:
    """They have no delta: it would be longer."""
    assert delta(LONG, target.encode()) is None


def test_large_middle_is_inserted_whole() -> None:
    """Looking through it would take too long; the ends are still copied."""
    target = LONG + b"\x7f" * 80_000 + LONG
    found = delta(LONG + LONG, target)
    assert found is not None
    assert apply(LONG + LONG, found) == target
    assert len(found) < 80_100
