"""The Protobuf wire format: numbers, sizes, and structs of them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from serve.protobuf_wire import (
    FLAG,
    INT,
    OFFSET,
    TEXT,
    UINT32,
    Field,
    ListField,
    MapField,
    Shape,
    read_fields,
    read_sized,
    read_varint,
    sized,
    varint,
)


class Thing(Struct):
    """One field of each kind."""

    text: str = ""
    flag: bool = False
    small: int = 0
    offset: int = 0
    number: int = 0
    texts: list[str] = []
    table: dict[str, str] = {}


THING = Shape(
    Thing,
    {
        "text": Field(1, TEXT),
        "flag": Field(2, FLAG),
        "small": Field(3, UINT32),
        "offset": Field(4, OFFSET),
        "number": Field(5, INT),
        "texts": ListField(6, TEXT),
        "table": MapField(1000, TEXT, str),
    },
)
THINGS = st.builds(
    Thing,
    text=st.text(),
    flag=st.booleans(),
    small=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 2**63 - 1),
    number=st.integers(-(2**63), 2**63 - 1),
    texts=st.lists(st.text()),
    table=st.dictionaries(st.text(), st.text()),
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, b"\0"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**14 - 1, b"\xff\x7f"),
        (2**14, b"\x80\x80\x01"),
        (-1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_varints_are_those_of_the_specification(value: int, written: bytes) -> None:
    """Seven bits a byte, the lowest first; negative ones take ten bytes."""
    assert varint(value) == written
    assert read_varint(b"x" + written + b"x", 1) == (value % 2**64, 1 + len(written))


@given(THINGS)
def test_structs_come_back(thing: Thing) -> None:
    """What is written is read as it was."""
    assert THING.read(THING.write(thing)) == thing


@given(THINGS, THINGS)
def test_messages_that_are_joined_are_merged(first: Thing, second: Thing) -> None:
    """Of single fields the last counts, lists and maps have all: what proto3 says of parts."""
    merged = THING.read(THING.write(first) + THING.write(second))
    assert merged.texts == first.texts + second.texts
    assert merged.table == first.table | second.table
    assert merged.text == (second.text or first.text)


def test_what_is_empty_is_not_written() -> None:
    """Zero, false and empty are what a missing field means."""
    assert THING.write(Thing()) == b""


def test_items_of_a_map_may_lack_key_and_value() -> None:
    """A missing one is empty."""
    assert THING.read(varint(1000 << 3 | 2) + sized(b"")).table == {"": ""}


@pytest.mark.parametrize("field", [b"\x18" + varint(2**32), b"\x20" + varint(2**63)])
def test_numbers_over_their_bounds_are_refused(field: bytes) -> None:
    """They could not be written in the other codec."""
    with pytest.raises(ValueError, match="too large"):
        THING.read(field)


def test_field_of_another_wire_type_is_passed_over() -> None:
    """As one that is not known."""
    assert THING.read(b"\x08\x01\x12\x01x\x1a\x00") == Thing()


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_read_or_refused(data: bytes, at: int) -> None:
    """Nothing but `ValueError` is raised, and no place is beyond the end."""
    for read in (read_varint, read_sized):
        with contextlib.suppress(ValueError):
            assert read(data, at)[1] <= len(data)
    with contextlib.suppress(ValueError):
        list(read_fields(data))
    with contextlib.suppress(ValueError):
        THING.read(data)


@given(THINGS, st.data())
def test_no_cut_is_taken_for_a_whole(thing: Thing, data: st.DataObject) -> None:
    """A sized message that ends early is refused."""
    whole = sized(THING.write(thing))
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"not a varint|cut off"):
        read_sized(whole[:end], 0)
