"""Tag filters: what is wanted by them, and which are refused."""

import json
from typing import Any

import pytest
from msgspec import Raw

from actors.settings.client import ClientSettings
from serve.protocol.messages import CommandError, ErrorCode
from serve.protocol.tag_filter import DEPTH_MAX, TagFilter, read_tag_filter

TAGS = {"team": "red", "score": "10.5", "name": "Ada L", "blank": " 1", "large": "1e3"}
LIMITS = ClientSettings(filter_conditions_max=200, filter_values_max=4)


def read(value: Any) -> TagFilter:
    """Read a filter as it comes in a subscribe request."""
    text = value if isinstance(value, Raw) else Raw(json.dumps(value).encode())
    found = read_tag_filter(text, LIMITS)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("key", "cmp", "val", "wanted"),
    [
        ("team", "eq", "red", True),
        ("team", "eq", "re", False),
        ("none", "eq", "red", False),
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
        ("none", "ct", "a", False),
        ("score", "gt", "9", True),
        ("score", "gt", "10.50", False),
        ("score", "gte", "10.50", True),
        ("score", "lt", "11", True),
        ("score", "lte", "10.4", False),
        ("team", "lt", "11", False),
        ("score", "gt", "red", False),
        ("score", "lt", "NaN", False),
        ("score", "gt", "-1", True),
        ("score", "lt", "+11", True),
        ("score", "lt", "1e3", False),
        ("score", "gt", "1_0", False),
        ("score", "gt", "\u0661", False),
        ("score", "gt", ".5", False),
        ("score", "gt", "5.", False),
        ("score", "gt", "0." + "1" * 19, True),
        ("score", "gt", "0." + "1" * 20, False),
        ("score", "lt", "9" * 200, True),
        ("score", "lt", "9" * 201, False),
        ("blank", "gt", "0", False),
        ("large", "gt", "0", False),
        ("none", "lt", "1", False),
    ],
)
def test_comparisons(key: str, cmp: str, val: str, wanted: bool) -> None:
    """Texts as texts, numbers as numbers; what is not a number is neither more nor less.

    Numbers are what Centrifugo's parser takes: https://github.com/quagmt/udecimal.
    """
    assert read({"key": key, "cmp": cmp, "val": val}).matches(TAGS) is wanted


def test_sets_and_joined_conditions() -> None:
    """`in`, `nin`, `and`, `or`, `not`."""
    red = {"key": "team", "cmp": "in", "vals": ["blue", "red"]}
    not_red = {"key": "team", "cmp": "nin", "vals": ["blue", "red"]}
    assert read(red).matches(TAGS)
    assert not read(not_red).matches(TAGS)
    assert read(not_red).matches({})
    assert not read(red).matches({})
    empty = {**red, "vals": [""]}
    assert read(empty).matches({})
    assert not read({**empty, "cmp": "nin"}).matches({})
    assert not read({"op": "and", "nodes": [red, not_red]}).matches(TAGS)
    assert read({"op": "or", "nodes": [not_red, red]}).matches(TAGS)
    assert read({"op": "not", "nodes": [not_red]}).matches(TAGS)


@pytest.mark.parametrize("text", ["", "null"])
def test_no_filter(text: str) -> None:
    """Nothing, and null, ask for all."""
    assert read_tag_filter(Raw(text.encode()), LIMITS) is None


def test_equal_filters_are_one_key() -> None:
    """Subscriptions with the same filter share the work, in whatever order its values are."""
    one, other = ({"key": "a", "cmp": "in", "vals": vals} for vals in (["b", "c"], ["c", "b"]))
    assert len({read(one), read(other)}) == 1


LEAF = {"key": "a", "cmp": "ex"}
LIST = {"key": "a", "cmp": "in"}
LEAF_TEXT = json.dumps(LEAF).encode()


def nested(depth: int) -> Raw:
    """Return a filter of that many levels."""
    return Raw((b'{"op":"not","nodes":[' * (depth - 1)) + LEAF_TEXT + b"]}" * (depth - 1))


def passed_over(depth: int) -> Raw:
    """Return a comparison with so many levels, itself among them, of which none below counts."""
    return Raw(b'{"key":"a","cmp":"ex","nodes":[' * (depth - 1) + LEAF_TEXT + b"]}" * (depth - 1))


@pytest.mark.parametrize(
    "value",
    [
        5,
        {},
        {"key": "a", "cmp": "like", "val": "b"},
        {"cmp": "eq", "val": "b"},
        {"key": "a", "cmp": "eq"},
        {"key": "a", "cmp": "gt", "val": "1", "vals": ["1"]},
        {"key": "a", "cmp": "sw", "vals": ["b"]},
        LIST,
        {**LIST, "vals": []},
        {**LIST, "vals": ["b"], "val": "b"},
        {"cmp": "nin", "vals": ["b"]},
        {**LEAF, "val": "b"},
        {**LEAF, "vals": ["b"]},
        {"op": "xor", "nodes": [LEAF]},
        {"op": "and"},
        {"op": "or", "nodes": []},
        {"op": "not", "nodes": [LEAF, LEAF]},
        {"op": "and", "nodes": [{"op": "not"}]},
        {"op": "or", "nodes": [LEAF] * 200},
        {**LIST, "vals": ["1", "2", "3", "4", "5"]},
        {"op": "or", "nodes": [{**LIST, "vals": ["1", "2", "3"]}] * 2},
        nested(DEPTH_MAX + 1),
        nested(20_000),
        {**LEAF, "nodes": [{}] * 200},
        {**LEAF, "nodes": [{**LIST, "vals": ["1", "2", "3", "4", "5"]}]},
        passed_over(DEPTH_MAX + 1),
        passed_over(20_000),
    ],
)
def test_refused_filters(value: Any) -> None:
    """What makes no sense, or is too large: error 107."""
    with pytest.raises(CommandError) as raised:
        read(value)
    assert raised.value.code is ErrorCode.BAD_REQUEST


def test_largest_filters() -> None:
    """At the limits they are taken."""
    read({"op": "or", "nodes": [LEAF] * 199})
    read({"op": "or", "nodes": [{**LIST, "vals": ["1", "2"]}] * 2})
    assert read(nested(DEPTH_MAX)).matches({"a": ""}) is (DEPTH_MAX % 2 == 1)
    read(passed_over(DEPTH_MAX))
    read({"cmp": "ex", "nodes": [{}] * 199})
