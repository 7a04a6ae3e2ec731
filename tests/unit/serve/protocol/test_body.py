"""What a publication's body consists of, found without decoding it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.message import WHOLE_BRACE, decode_json, encode_json
from serve.protocol import body

VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)
TAGS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)


@given(st.booleans(), TAGS, st.dictionaries(st.text(max_size=3), VALUES, max_size=3), VALUES)
def test_parts_of_a_body(whole: bool, tags: dict[str, str], info: object, data: object) -> None:
    """Whatever stands in tags and info: also what looks like the data."""
    parts = [b'"tags":' + encode_json(tags)] if tags else []
    parts += [b'"info":' + encode_json(info)] if info else []
    text = (
        (WHOLE_BRACE if whole else b"{")
        + b",".join([*parts, b'"data":' + encode_json(data)])
        + b"}"
    )

    assert body.wants_whole(text) is whole
    assert body.tags_of(text) == tags
    head, found = body.split(text)
    assert found == encode_json(data)
    assert head + found + b"}" == text
    assert decode_json(text)["data"] == data


def test_depth_does_not_matter() -> None:
    """Decoding would fail where info or data is deep: here nobody looks into them."""
    deep = b"[" * 100_000 + b"]" * 100_000
    text = b'{"tags":{"a":"b"},"info":{"x":%b},"data":%b}' % (deep, deep)
    assert body.tags_of(text) == {"a": "b"}
    assert body.split(text)[1] == deep


def test_blanks_around_the_data_are_theirs() -> None:
    """Producers may write them: nothing is cut off, and nothing is left behind."""
    head, data = body.split(b'{"tags":{"a":"b"},"data": {"x": 1} }')
    assert (head, data) == (b'{"tags":{"a":"b"},"data":', b' {"x": 1} ')


def test_publication_needs_data() -> None:
    """There is no body without."""
    with pytest.raises(ValueError, match="without data"):
        body.split(b'{"tags":{"data":"1"}}')
