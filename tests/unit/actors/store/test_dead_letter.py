"""Ids of dead letters, and what one becomes when it is replayed."""

import msgspec
import pytest

from actors.errors import MessageError
from actors.message import DeadLetter
from actors.store.dead_letter import decode_letter, parse_letter_id, revive
from actors.store.interface import DeadRecord, NewMessage

LETTER = DeadLetter(3, "5-1", "news:a", '{"n": 1.50}', "", "clean", "no", "", 3, 5.0)


def letter(**changes: str) -> DeadLetter:
    return msgspec.structs.replace(LETTER, **changes)


def test_id_names_partition_and_place() -> None:
    """What a list shows can be given to every other command."""
    assert parse_letter_id(DeadRecord(3, "1732500000000-7", LETTER).id) == (3, "1732500000000-7")


def test_one_letter_has_one_name() -> None:
    """Zeros in front do not make another letter of it."""
    assert parse_letter_id("03-007-00") == (3, "7-0")


@pytest.mark.parametrize(
    "text",
    ["", "3", "3-5", "a-5-1", "-3-5-1", "3-5-1-2", "3-5-*", "3-99999999999999999999-0", "٣-5-1"],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    """Nothing reaches the server that it would not take for an id."""
    with pytest.raises(MessageError, match="no id of a dead letter"):
        parse_letter_id(text)


def test_message_comes_back_byte_for_byte() -> None:
    """Data and meta are what the producer sent, the idempotency key among it."""
    meta = '{"tags": {"k": "v"}, "key": "once", "of_a_newer_version": 1}'
    assert revive(letter(meta=meta)) == NewMessage("news:a", b'{"n": 1.50}', meta.encode())


@pytest.mark.parametrize(
    ("meta", "left"),
    [
        ('{"wait":"token"}', b""),
        ('{"tags":{"k":"v"},"key":"once","wait":"token"}', b'{"tags":{"k":"v"},"key":"once"}'),
    ],
)
def test_token_of_who_waited_is_left_out(meta: str, left: bytes) -> None:
    """The waiter got its answer long ago."""
    assert revive(letter(meta=meta)).meta == left


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"channel": ""}, "channel is empty"),
        ({"channel": "a b"}, "printable ASCII"),
        ({"data": "{"}, "not JSON"),
        ({"meta": "[]"}, "field m"),
        ({"data": '"\ufffd"', "stage": "queue"}, "not UTF-8"),
        ({"meta": '{"key":"\ufffd"}', "stage": "queue"}, "not UTF-8"),
    ],
)
def test_what_would_only_die_again_is_refused(changes: dict[str, str], why: str) -> None:
    """So is what is no longer what was sent, as bytes of it were replaced."""
    with pytest.raises(MessageError, match=why):
        revive(letter(**changes))


def test_replacement_character_of_the_producers_own_is_no_obstacle() -> None:
    """What a transform could decode was UTF-8: nothing of it was replaced."""
    assert revive(letter(data='"\ufffd"')).data == '"\ufffd"'.encode()


def test_letter_that_cannot_be_read_says_so() -> None:
    """It is a letter like others, which cannot be replayed."""
    found = decode_letter(3, b"\xff{")
    assert (found.partition, found.data) == (3, "\ufffd{")
    assert "cannot be read" in found.error
    with pytest.raises(MessageError):
        revive(found)
    assert decode_letter(3, msgspec.json.encode(LETTER)) == LETTER
