"""Tag filters: what is wanted by them, and which are refused."""

import json
from typing import Any

import pytest
from msgspec import Raw

from serve.protocol import CommandError, ErrorCode
from serve.tag_filter import DEPTH_MAX, NODES_MAX, TagFilter, read_tag_filter

TAGS = {"team": "red", "score": "10.5", "name": "Ada L"}


def read(value: Any) -> TagFilter:
    """Read a filter as it comes in a subscribe request."""
    found = read_tag_filter(Raw(json.dumps(value).encode()))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("key", "cmp", "val", "wanted"),
    [
        ("team", "eq", "red", True),
        ("team", "eq", "re", False),
        ("none", "eq", "", False),
        ("team", "neq", "blue", True),
        ("none", "neq", "blue", True),
        ("team", "neq", "red", False),
        ("team", "ex", "", True),
        ("none", "ex", "", False),
        ("none", "nex", "", True),
        ("name", "sw", "Ada", True),
        ("name", "sw", "L", False),
        ("name", "ew", " L", True),
        ("name", "ct", "a ", True),
        ("none", "ct", "", False),
        ("score", "gt", "9", True),
        ("score", "gt", "10.50", False),
        ("score", "gte", "10.50", True),
        ("score", "lt", "11", True),
        ("score", "lte", "10.4", False),
        ("team", "lt", "11", False),
        ("score", "gt", "red", False),
        ("score", "lt", "NaN", False),
        ("none", "lt", "1", False),
    ],
)
def test_comparisons(key: str, cmp: str, val: str, wanted: bool) -> None:
    """Texts as texts, numbers as numbers; what is not a number is neither more nor less."""
    assert read({"key": key, "cmp": cmp, "val": val}).matches(TAGS) is wanted


def test_sets_and_joined_conditions() -> None:
    """`in`, `nin`, `and`, `or`, `not`."""
    red = {"key": "team", "cmp": "in", "vals": ["blue", "red"]}
    not_red = {"key": "team", "cmp": "nin", "vals": ["blue", "red"]}
    assert read(red).matches(TAGS)
    assert not read(not_red).matches(TAGS)
    assert read(not_red).matches({})
    assert not read(red).matches({})
    assert not read({"op": "and", "nodes": [red, not_red]}).matches(TAGS)
    assert read({"op": "or", "nodes": [not_red, red]}).matches(TAGS)
    assert read({"op": "not", "nodes": [not_red]}).matches(TAGS)


@pytest.mark.parametrize("text", ["", "null"])
def test_no_filter(text: str) -> None:
    """Nothing, and null, ask for all."""
    assert read_tag_filter(Raw(text.encode())) is None


def test_equal_filters_are_one_key() -> None:
    """Subscriptions with the same filter share the work."""
    one, other = ({"key": "a", "cmp": "in", "vals": ["b"]} for _ in "12")
    assert len({read(one), read(other)}) == 1


LEAF = {"key": "a", "cmp": "ex"}


def nested(depth: int) -> dict[str, Any]:
    """Return a filter of that many levels."""
    found: dict[str, Any] = LEAF
    for _ in range(depth - 1):
        found = {"op": "not", "nodes": [found]}
    return found


@pytest.mark.parametrize(
    "value",
    [
        5,
        {},
        {"key": "a", "cmp": "like", "val": "b"},
        {"cmp": "ex"},
        {"op": "xor", "nodes": [LEAF]},
        {"op": "and"},
        {"op": "or", "nodes": []},
        {"op": "not", "nodes": [LEAF, LEAF]},
        {"op": "and", "nodes": [{"op": "not"}]},
        {**LEAF, "nodes": [LEAF]},
        {"op": "or", "nodes": [LEAF] * NODES_MAX},
        nested(DEPTH_MAX + 1),
    ],
)
def test_refused_filters(value: Any) -> None:
    """What makes no sense, or is too large: error 107."""
    with pytest.raises(CommandError) as raised:
        read(value)
    assert raised.value.code is ErrorCode.BAD_REQUEST


def test_largest_filters() -> None:
    """At the limits they are taken."""
    read({"op": "or", "nodes": [LEAF] * (NODES_MAX - 1)})
    read(nested(DEPTH_MAX))
