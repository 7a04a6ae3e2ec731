"""Messages, their JSON, and batches as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import MessageError
from actors.message import (
    Ack,
    Batch,
    DeadLetter,
    Entry,
    Message,
    Meta,
    Span,
    check_channel,
    decode_batch,
    decode_json,
    decode_meta,
    encode_batch,
    encode_json,
    id_key,
    splice_counts,
)


def test_batch_survives_the_way_between_actors() -> None:
    """What `encode_batch` made, `decode_batch` gives back."""
    batch = Batch(
        spans=[Span(3, "0-0", "5-1")],
        entries=[Entry(3, "5-1", "news:a", b'{"a":1}', b'{"tags":{"x":"y"}}', checked=True)],
        dead=[DeadLetter(3, "5-0", "c", "d", "m", "queue", "why", "", 1, 2.5)],
        acks=[Ack(3, "token", error="why")],
        read_at_s=12.25,
    )
    assert decode_batch(encode_batch(batch)) == batch


def test_message_is_changed_by_replacing() -> None:
    """`replace` gives a copy and leaves the original alone."""
    message = Message(channel="a", data=1, id="1500-0")
    other = message.replace(channel="b")
    assert (message.channel, other.channel, other.data) == ("a", "b", 1)
    assert message.queued_at_s == 1.5


@pytest.mark.parametrize("name", ["news", "news:a", "$news:a#1,2", "a" * 255, "~!/*"])
def test_channel_of_printable_ascii_is_good(name: str) -> None:
    """Anything printable is, up to 255 bytes."""
    check_channel(name)


@pytest.mark.parametrize("name", ["", "a" * 256, "a b", "a\n", "é", "a\x00", "\ufffd"])
def test_other_channel_names_are_refused(name: str) -> None:
    """Blanks, control characters and anything beyond ASCII break the rules."""
    with pytest.raises(MessageError, match="channel"):
        check_channel(name)


@pytest.mark.parametrize("text", [b"", b"{", b"nan", b"'a'", b"\xff", b'"\xff"', b"[" * 100_000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    """However damaged, the error is ours."""
    with pytest.raises(MessageError, match="not JSON"):
        decode_json(text)


def test_values_that_json_cannot_hold_are_refused() -> None:
    """A transform may return anything."""
    with pytest.raises(MessageError, match="JSON"):
        encode_json({"a": object()})


@pytest.mark.parametrize("text", [b"[]", b'{"tags":1}', b"{", b'{"count":{"a":"x"}}'])
def test_malformed_meta_is_refused(text: bytes) -> None:
    """Field `m` must be an object of the known shape."""
    with pytest.raises(MessageError, match="field m"):
        decode_meta(text)


def test_version_has_64_bits() -> None:
    """All its digits are kept; others are refused, and so are long epochs."""
    most = Meta(version=2**64 - 1, version_epoch="e" * 255)
    assert decode_meta(encode_json(most)) == most
    for bad in (Meta(version=-1), Meta(version=1, version_epoch="é" * 128)):
        with pytest.raises(MessageError, match="version"):
            decode_meta(encode_json(bad))
    for text in (b"18446744073709551616", b"1.5", b'"1"', b"true", b"1" + b"0" * 400):
        with pytest.raises(MessageError, match="version"):
            decode_meta(b'{"version":%b}' % text)


def test_empty_meta_is_the_default() -> None:
    """Producers may leave field `m` out."""
    assert decode_meta(b"") == Meta()


def test_ids_compare_as_numbers() -> None:
    """`9-0` comes before `10-0`, and `1-9` before `1-10`."""
    assert id_key("9-0") < id_key("10-0")
    assert id_key("1-9") < id_key("1-10")


@given(
    st.dictionaries(st.text(), st.integers(), min_size=1),
    st.dictionaries(st.text(min_size=1), st.integers(-(2**53), 2**53), min_size=1),
)
def test_totals_are_put_into_any_object(data: dict[str, int], totals: dict[str, int]) -> None:
    """The spliced text is JSON, with `counts` as a member of the data."""
    try:
        body = b'{"data":' + encode_json(data) + b"}"
    except MessageError:
        return
    spliced = decode_json(splice_counts(body, totals))
    assert spliced["data"]["counts"] == totals
