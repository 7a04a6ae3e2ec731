"""JSON that Protobuf clients get as messages: stored publications, whatever stands in them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from actors.message import WHOLE_BRACE
from serve.protocol.messages import HistoryResult
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.protobuf_json import client_info, json_of, publication
from serve.protocol.shape import DELTAS
from tests.fossil_apply import apply
from tests.protobuf_speech import from_protobuf

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
    found = publication(stored(data, **members, tags=tags, info=info))
    assert json.loads(found["data"]) == data
    assert found["offset"] == offset
    assert found["tags"] == tags


@pytest.mark.parametrize(
    "info", ["nobody", [1], {"user": 5}, {"data": [{}]}, {"a": '"data":'}, {"é\\": "]}"}]
)
def test_info_that_is_not_of_a_client_is_left_out(info: Any) -> None:
    """Producers in other languages may put anything there; the data still comes."""
    (push,) = PROTOBUF.publications("c", 1, [stored({"x": "}"}, info=info)])
    pub = from_protobuf(push)[0]["push"]["pub"]
    assert pub["data"] == {"x": "}"}
    assert pub.get("info", {}).get("user", "") == ""


@pytest.mark.parametrize("start", [b"{", WHOLE_BRACE, b'{"offset":7,'])
def test_depth_without_end_is_only_left_out(start: bytes) -> None:
    """Too deep to be decoded, but the data behind it is found, and its offset."""
    deep = b"[" * 50_000 + b"]" * 50_000
    found = PROTOBUF.reply(
        1, HistoryResult([Raw(b'%b"info":%b,"data":[1]}' % (start, deep))], "", 0)
    )
    wanted = {"data": [1]} | ({"offset": 7} if b"offset" in start else {})
    assert from_protobuf(found)[0]["history"]["publications"] == [wanted]
    assert client_info(Raw(deep)) == {}


def test_depth_does_not_break_deltas() -> None:
    """Whole or delta: the data are the bytes that they should be."""
    deep = b"[" * 50_000 + b"]" * 50_000
    text = b'"%b"' % (b"x" * 100)
    bodies = [b'{"info":%b,"data":%b}' % (deep, text)] * 2
    ((_, shaped),) = DELTAS.shaped([(1, bodies)])
    first, second = map(publication, shaped)
    assert (first["data"], first["delta"]) == (text, False)
    assert (apply(text, second["data"]), second["delta"]) == (text, True)


def test_mark_of_those_without_deltas_is_not_seen() -> None:
    """The stored form begins with it; what the client gets is as of any other."""
    for body in (stored([1]), stored([1], tags={"a": "b"})):
        marked = WHOLE_BRACE + body[1:]
        assert PROTOBUF.publications("c", 1, [marked]) == PROTOBUF.publications("c", 1, [body])


def test_publication_of_a_history_has_its_offset() -> None:
    """There it is a member of the body."""
    assert publication(b'{"offset":300,"data":[1]}') == publication(b'{"data":[1]}') | {
        "offset": 300,
        "delta": False,
        "info": None,
        "tags": {},
    }


@pytest.mark.parametrize("content", [b"{", b'"\xff"', b"1 2", b"\n", b"nan"])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    """JSON clients could not be given it."""
    with pytest.raises(ValueError, match=r".+"):
        json_of(content)
