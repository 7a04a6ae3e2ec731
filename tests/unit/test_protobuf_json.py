"""JSON that Protobuf clients get as messages: stored publications, whatever stands in them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from actors.message import WHOLE_BRACE
from serve.protobuf_json import JSON_INFO, JSON_PUBLICATION, JSON_TEXT, publication_of
from serve.protocol_protobuf import PROTOBUF
from tests.protobuf_speech import SCHEMA, from_protobuf

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def stored(data: Any, **members: Any) -> bytes:
    """Make a body as the publisher does: data is last."""
    return json.dumps({**members, "data": data}, separators=(",", ":")).encode()


@given(ANY, ANY, st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.integers(0, 2**63))
def test_data_and_offset_never_get_lost(
    data: Any, info: Any, tags: dict[str, str], offset: int
) -> None:
    """Whatever a producer gave as info: clients get the data, as it was written."""
    members = {"offset": offset} if offset else {}
    found = publication_of(stored(data, **members, tags=tags, info=info))
    assert json.loads(bytes(found.data)) == data
    assert found.offset == offset


@pytest.mark.parametrize(
    "info", ["nobody", [1], {"user": 5}, {"data": [{}]}, {"a": '"data":'}, {"é\\": "]}"}]
)
def test_info_that_is_not_of_a_client_is_left_out(info: Any) -> None:
    """Producers in other languages may put anything there; the data still comes."""
    (push,) = PROTOBUF.publications("c", 1, [stored({"x": "}"}, info=info)])
    pub = from_protobuf(push)[0]["push"]["pub"]
    assert pub["data"] == {"x": "}"}
    assert pub.get("info", {}).get("user", "") == ""


def test_depth_without_end_is_only_left_out() -> None:
    """Too deep to be decoded, but the data behind it is found."""
    body = b'{"info":%b%b,"data":{"data":1}}' % (b"[" * 50_000, b"]" * 50_000)
    assert bytes(publication_of(body).data) == b'{"data":1}'
    assert JSON_INFO.write(Raw(b"[" * 50_000 + b"]" * 50_000)) == b"\0"


def test_mark_of_those_without_deltas_is_not_seen() -> None:
    """The stored form begins with it; what the client gets is as of any other."""
    marked = WHOLE_BRACE + stored([1])[1:]
    assert PROTOBUF.publications("c", 1, [marked]) == PROTOBUF.publications("c", 1, [stored([1])])
    tagged = WHOLE_BRACE + stored([1], tags={"a": "b"})[1:]
    assert publication_of(tagged) == publication_of(stored([1], tags={"a": "b"}))


def test_publication_of_a_history_has_its_offset() -> None:
    """There it is a member of the body."""
    text = JSON_PUBLICATION.write(Raw(b'{"offset":300,"data":[1]}'))
    publication = SCHEMA.Publication.FromString(text[1:])
    assert (publication.offset, publication.data) == (300, b"[1]")


@pytest.mark.parametrize("content", [b"{", b'"\xff"', b"1 2", b"\n", b"nan"])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    """JSON clients could not be given it."""
    with pytest.raises(ValueError, match=r".+"):
        JSON_TEXT.read(content)
