"""Fossil deltas: applied, they give the target; and they are short."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.protocol import fossil
from serve.protocol.fossil import delta
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


@given(
    st.lists(st.binary(max_size=40) | st.just(b"0123456789abcdef" * 3), max_size=6),
    st.lists(st.binary(max_size=40) | st.just(b"0123456789abcdef" * 3), max_size=6),
)
def test_any_bytes(sources: list[bytes], targets: list[bytes]) -> None:
    """Not only texts: with what is not UTF-8 the lengths are right as well."""
    source, target = b"".join(sources), b"".join(targets)
    found = delta(source, target)
    if found is not None:
        assert apply(source, found) == target


def test_half_of_a_character_is_not_copied() -> None:
    """These differ in their second byte alone: the whole character is inserted."""
    source, target = ("a" * 20 + sign + "b" * 20 for sign in "\u0161\u017e")
    assert delta(source.encode(), target.encode()) == b"f\nK@0,2:\xc5\xbeK@M,2O_DBF;"


def test_list_that_moved_by_one() -> None:
    """Its items are alike: of all places that fit a little, the one that fits longest is taken."""
    items = [f'{{"id":{n},"text":"what item {n * 7919} says"}}' for n in range(50)]
    source = ",".join(items).encode()
    target = ",".join([*items[1:], items[0], items[49]]).encode()
    found = delta(source, target)
    assert found is not None
    assert apply(source, found) == target
    assert len(found) < 60


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (b"ab" * 30_000, b"ab" * 29_999 + b"c"),
        ((b"ab" * 9 + b"c") * 3_000, (b"ab" * 9 + b"d") * 3_000),
        (b"".join(b"%d " % n for n in range(9_999)), b"".join(b"%d:" % n for n in range(9_999))),
    ],
    ids=["periodic", "almost periodic", "nothing in common"],
)
def test_work_is_bounded(source: bytes, target: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much texts have in common, in small parts: all clients of an edge wait meanwhile."""
    tries = 0
    index = fossil._index

    class Counted(dict[bytes, list[int]]):
        def get(self, block: bytes) -> list[int] | None:  # type: ignore[override]  # as it is used
            nonlocal tries
            places = super().get(block)
            tries += 1 if places is None else 1 + fossil._FOUND_TRIES
            return places

    monkeypatch.setattr(fossil, "_index", lambda *args: Counted(index(*args)))
    found = delta(source, target)
    assert found is None or apply(source, found) == target
    assert tries <= fossil._TRIES_MAX + fossil._FOUND_TRIES


def test_large_middle_is_inserted_whole() -> None:
    """Looking through it would take too long; the ends are still copied."""
    target = LONG + b"\x7f" * 80_000 + LONG
    found = delta(LONG + LONG, target)
    assert found is not None
    assert apply(LONG + LONG, found) == target
    assert len(found) < 80_100
