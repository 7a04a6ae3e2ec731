"""The transformer: order, retries, dead letters, and what goes on untouched."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import MessageError, SettingsError, TooLargeError
from actors.message import (
    Ack,
    Batch,
    Entry,
    Message,
    Meta,
    Span,
    decode_batch,
    decode_json,
    decode_meta,
    encode_batch,
    encode_json,
)
from actors.metrics import Numbers
from actors.settings.tree import StageSettings
from actors.transform.builtin import BUILTINS
from actors.transformer import Transformer

HERE = str(Path(__file__).parent)
calls: list[Any] = []
"""What the transforms below saw; emptied for each test."""
made: list[Transformer] = []
"""To be closed after the test."""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget earlier calls; make the transformer find this very module, not a second copy."""
    calls.clear()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, Path(__file__).stem, sys.modules[__name__])
    yield
    while made:
        made.pop().close()


# --- transforms, loaded by name from this module


def add_one(message: Message) -> Message:
    """Add 1 to the data."""
    return message.replace(data=message.data + 1)


def spoil(message: Message) -> Message:
    """Change the data in its place, as one should not, and fail the first time."""
    calls.append(dict(message.data))
    message.data["n"] += 1
    if len(calls) == 1:
        raise ValueError("once")
    return message


def fail_on(message: Message, *, value: Any) -> Message:
    """Raise where the data is `value`."""
    calls.append(message.data)
    if message.data == value:
        raise ValueError("bad\nvalue")
    return message


def give_up_on(message: Message, *, value: Any) -> Message:
    """Refuse where the data is `value`."""
    calls.append(message.data)
    if message.data == value:
        raise MessageError("no use")
    return message


def leave(message: Message) -> Message:
    """Try to end the process."""
    raise SystemExit(3)


def drop(message: Message) -> None:
    """Drop all."""


def multiply(message: Message) -> Iterator[Message]:
    """Return as many as the data says; fail below zero, after the first."""
    for number in range(abs(message.data)):
        yield message.replace(data=number)
        if message.data < 0:
            raise ValueError("below zero")


def flood(message: Message, *, value: Any, count: int, size: int = 1) -> Any:
    """Make many, or large, messages of one value."""
    return [message.replace(data="x" * size)] * count if message.data == value else message


def readdress(message: Message) -> Message:
    """Send to channel `b`."""
    return message.replace(channel="b")


def change(message: Message, **changes: Any) -> Message:
    """Change fields."""
    return message.replace(**changes)


def give_text(message: Message, *, text: str, **changes: Any) -> Message:
    """Return data that is JSON text already."""
    return message.replace(data=msgspec.Raw(text.encode()), **changes)


def change_on(message: Message, *, value: Any, **changes: Any) -> Message:
    """Change fields where the data is `value`."""
    return message.replace(**changes) if message.data == value else message


def quote(message: Message) -> Message:
    """Fail with what no encoding has a place for."""
    raise ValueError("\ud800")


def give(message: Message, *, result: Any) -> Any:
    """Return anything."""
    return result


def give_unencodable(message: Message) -> Message:
    """Return data that is no JSON."""
    return message.replace(data={1j})


async def slow_first(message: Message) -> Message:
    """Let later messages overtake earlier ones."""
    calls.append(("in", message.data))
    for _ in range(10 - message.data):
        await asyncio.sleep(0)
    calls.append(("out", message.data))
    if message.data == 3:
        raise SystemExit
    return message


def double(message: Message) -> list[Message]:
    """Return two."""
    return [message, message]


async def twice(message: Message) -> AsyncIterator[Message]:
    """Return two."""
    yield message
    yield message


class Model:
    """A batch form."""

    def __init__(self, *, poison: int = -1, short: bool = False) -> None:
        self.poison = poison
        self.short = short
        self.ready = False

    def set_up(self) -> None:
        """Load the model."""
        self.ready = True

    def batch(self, messages: list[Message]) -> list[Message | None]:
        """Add 1; drop 0."""
        assert self.ready
        calls.append([message.data for message in messages])
        if self.poison in calls[-1]:
            raise ValueError("poison")
        if self.short:
            return []
        return [add_one(message) if message.data else None for message in messages]

    def close(self) -> None:
        """Say so."""
        calls.append("closed")


class AsyncModel(Model):
    """An async batch form."""

    async def set_up(self) -> None:  # type: ignore[override]  # another form on purpose
        """Load the model."""
        self.ready = True

    async def batch(self, messages: list[Message]) -> list[Message | None]:  # type: ignore[override]  # another form on purpose
        """As the other."""
        return super().batch(messages)


def hang_on(message: Message, *, value: Any) -> Message:
    """Take for ever for one value."""
    if message.data == value:
        time.sleep(60)
    return message


async def hang_on_async(message: Message, *, value: Any) -> Message:
    """Wait for ever for one value."""
    if message.data == value:
        await asyncio.sleep(60)
    return message


async def block_on_async(message: Message, *, value: Any) -> Message:
    """Block the event loop for one value."""
    return hang_on(message, value=value)


class HangingModel:
    """Takes for ever over a batch with one value in it."""

    def __init__(self, *, value: Any) -> None:
        self._value = value

    def batch(self, messages: list[Message]) -> list[Message]:
        """Look at each."""
        return [hang_on(message, value=self._value) for message in messages]


class LazyModel:
    """Returns generators, one of which takes for ever."""

    def __init__(self, *, value: Any) -> None:
        self._value = value

    def batch(self, messages: list[Message]) -> list[Iterator[Message]]:
        """Promise each."""
        return [self._one(message) for message in messages]

    def _one(self, message: Message) -> Iterator[Message]:
        yield hang_on(message, value=self._value)


class AsyncLazyModel(LazyModel):
    """As the other."""

    async def batch(self, messages: list[Message]) -> list[Iterator[Message]]:  # type: ignore[override]  # another form on purpose
        """As the other."""
        return super().batch(messages)


class Unready:
    """Cannot be set up."""

    def set_up(self) -> None:
        """Fail."""
        raise OSError("no model")

    def __call__(self, message: Message) -> Message:
        """Never called."""
        return message


# --- helpers


def transformer(
    *uses: str | tuple[Any, ...],
    attempts: int = 3,
    time_limit_s: float = 60,
    name: str = "try",
    is_last: bool = True,
    sleep: Callable[[float], None] = lambda seconds: calls.append(f"sleep {seconds}"),
    numbers: Numbers | None = None,
) -> Transformer:
    """Make one of names of this module: name, (name, options) or (name, options, channels)."""
    transforms = []
    for use in uses:
        given = (use,) if isinstance(use, str) else use
        spec = dict(zip(("use", "options", "channels"), given, strict=False))
        if spec["use"] not in BUILTINS:
            spec["use"] = f"{Path(__file__).stem}:{spec['use']}"
        transforms.append(spec)
    stage = StageSettings.model_validate(
        {
            "name": name,
            "transforms": transforms,
            "attempts": attempts,
            "time_limit_s": time_limit_s,
        }
    )
    made.append(
        Transformer(stage, HERE, is_last=is_last, numbers=numbers, sleep=sleep, wall=lambda: 77.0)
    )
    return made[-1]


def entry(data: Any, n: int = 1, *, channel: str = "a", meta: Meta | None = None) -> Entry:
    """Make an entry of partition 2."""
    text = encode_json(meta) if meta is not None else b""
    return Entry(2, f"{n}-0", channel, encode_json(data), text)


def run(subject: Transformer, *entries: Entry) -> Batch:
    """Send a batch through."""
    spans = [Span(2, "0-0", "99-0")]
    return decode_batch(subject.apply(encode_batch(Batch(spans, list(entries), read_at_s=5.0))))


def data_of(batch: Batch) -> list[Any]:
    """Return the data of its entries."""
    return [decode_json(entry.data) for entry in batch.entries]


# --- what goes on, and how


def test_entry_is_changed_and_keeps_partition_id_and_order() -> None:
    """A changed entry is checked, and stands where it stood."""
    result = run(transformer("add_one"), entry(1, 1), entry(2, 2))
    assert result.entries == [
        Entry(2, "1-0", "a", b"2", b"", checked=True),
        Entry(2, "2-0", "a", b"3", b"", checked=True),
    ]
    assert (result.spans, result.read_at_s) == ([Span(2, "0-0", "99-0")], 5.0)


def test_entries_of_other_channels_are_not_even_read() -> None:
    """What no transform is for goes on byte by byte, unchecked, even if it is no JSON."""
    bad = Entry(2, "1-0", "other", b"{ not json", b"neither")
    result = run(transformer(("add_one", {}, "a")), bad, entry(1, 2))
    assert result.entries[0] == bad
    assert data_of(Batch([], result.entries[1:])) == [2]


def test_selecting_leaves_the_bytes_alone() -> None:
    """A filter does not write anew what it keeps: 1.0 would become another text."""
    kept = Entry(2, "1-0", "a", b'{ "n": 1.00 }')
    result = run(transformer(("filter", {"field": "n", "exists": True})), kept, entry({}, 2))
    assert result.entries == [kept]


def test_data_changed_in_place_is_sent_changed() -> None:
    """The same object back may hold other data."""
    calls.append("not the first")
    assert data_of(run(transformer("spoil"), entry({"n": 1}))) == [{"n": 2}]


def test_probe_passes() -> None:
    """A probe meets no transform."""
    probe = Entry(2, "1-0", "a", b"null", encode_json(Meta(probe=True)))
    assert run(transformer("drop", "drop"), probe).entries == [probe]


def test_empty_batch_and_empty_stage() -> None:
    """Nothing in, nothing out; no transforms, no change."""
    assert run(transformer("add_one")).entries == []
    assert run(transformer(), entry(1)).entries == [entry(1)]


def test_dropped_entry_answers_who_waits() -> None:
    """A wait token comes back without an error."""
    result = run(transformer("drop"), entry(1, meta=Meta(wait="t")), entry(1, 2))
    assert (result.entries, result.dead) == ([], [])
    assert result.acks == [Ack(2, "t")]


def test_multiplied_entry_has_keys_of_its_own_and_one_waiter() -> None:
    """Outputs after the first get a key that no publisher gives; the first is waited for."""
    both = Meta(tags={"x": "y"}, delta=True, version=7, version_epoch="e")
    meta = msgspec.structs.replace(both, key="k", wait="t")
    result = run(transformer("multiply"), entry(3, meta=meta))
    assert data_of(result) == [0, 1, 2]
    assert {sent.id for sent in result.entries} == {"1-0"}
    assert [decode_meta(sent.meta) for sent in result.entries] == [
        meta,
        msgspec.structs.replace(both, key="k\x1ftry:1"),
        msgspec.structs.replace(both, key="k\x1ftry:2"),
    ]


def test_keys_of_all_stages_differ() -> None:
    """What two stages make of one message is no repetition of one another."""
    first = transformer("multiply", name="one", is_last=False)
    second = transformer("double")
    between = encode_batch(run(first, entry(2, meta=Meta(key="k"))))
    sent = decode_batch(second.apply(between)).entries
    assert len({decode_meta(one.meta).key for one in sent}) == 4


def test_chain_matches_the_new_channel() -> None:
    """A message that one transform re-addresses is matched anew by the next."""
    subject = transformer(("readdress", {}, "a"), ("add_one", {}, "b"), ("drop", {}, "a"))
    result = run(subject, entry(1), entry(5, 2, channel="b"), entry(7, 3, channel="c"))
    assert data_of(result) == [2, 6, 7]
    assert [sent.channel for sent in result.entries] == ["b", "b", "c"]


def test_chain_sees_every_message_of_a_multiplied_one() -> None:
    """The outputs of one transform are the inputs of the next, dropped ones aside."""
    subject = transformer("multiply", ("filter", {"field": "x", "exists": False}), "add_one")
    assert data_of(run(subject, entry(2), entry(0, 2), entry(1, 3))) == [1, 2, 1]


def test_meta_is_written_anew() -> None:
    """Tags, info, count and version of the message replace those of the entry."""
    changes = {"tags": {"n": "1"}, "count": {"up": 1}, "version": 2**64 - 1}
    subject = transformer(("change", changes))
    source = Meta(
        tags={"o": "2"}, info={"user": "u"}, skip_history=True, version=3, version_epoch="e"
    )
    result = run(subject, entry({"a": 1}, meta=source), entry({"a": 1}, 2))
    one, two = (decode_meta(sent.meta) for sent in result.entries)
    assert one == msgspec.structs.replace(source, **changes)
    assert two == Meta(tags={"n": "1"}, count={"up": 1}, version=2**64 - 1)


@pytest.mark.parametrize(("before", "now"), [(False, True), (True, False), (True, True)])
def test_history_is_skipped_where_publisher_or_transform_say_so(before: bool, now: bool) -> None:
    """A transform may set it; it does not put into the history what its publisher kept out."""
    subject = transformer(("change", {"skip_history": now}))
    result = run(subject, entry(1, meta=Meta(skip_history=True) if before else None))
    assert decode_meta(result.entries[0].meta) == Meta(skip_history=True)


@pytest.mark.parametrize(("before", "now"), [(0, 4), (4, 0)])
def test_transform_sets_a_version_and_takes_it_away(before: int, now: int) -> None:
    """Also where it is all that stands in the meta."""
    result = run(
        transformer(("change", {"version": now})),
        entry(1, meta=Meta(version=before) if before else None),
    )
    (sent,) = result.entries
    assert sent.meta == (b'{"version":4}' if now else b"")


# --- what cannot go on


@pytest.mark.parametrize(
    ("bad", "error", "acks"),
    [
        (Entry(2, "1-0", "a", b"{", encode_json(Meta(wait="t"))), "data is not JSON", 1),
        (Entry(2, "1-0", "a", b"1", b'{"wait":"t","version":-1}'), "version is not between", 1),
        (Entry(2, "1-0", "a", b"1", b"{"), "field m is not valid", 0),
        (Entry(2, "1-0", "a", b"1", b'{"tags":[]}'), "field m is not valid", 0),
        (Entry(2, "1-0", "a b", b"1"), "channel has characters", 0),
        (Entry(2, "1-0", "a", b"\xff"), "data is not JSON", 0),
    ],
)
def test_unreadable_entry_becomes_a_dead_letter(bad: Entry, error: str, acks: int) -> None:
    """It is not tried twice; who waits is told, the rest goes on."""
    result = run(transformer("add_one"), bad, entry(1, 2))
    (dead,) = result.dead
    assert error in dead.error
    assert (dead.stage, dead.attempts, dead.id, dead.traceback) == ("queue", 1, "1-0", "")
    assert [ack.token for ack in result.acks] == ["t"] * acks
    assert all(error in ack.error for ack in result.acks)
    assert data_of(result) == [2]


def test_failing_message_is_tried_again_alone_then_dies() -> None:
    """Attempts and doubling waits are the stage's; the rest goes on in order."""
    subject = transformer(("fail_on", {"value": 2}), "add_one")
    result = run(subject, entry(1, 1), entry(2, 2, meta=Meta(wait="t")), entry(3, 3))
    assert calls == [1, 2, 3, "sleep 0.1", 2, "sleep 0.2", 2]
    assert data_of(result) == [2, 4]
    (dead,) = result.dead
    assert (dead.stage, dead.attempts, dead.data, dead.died_at_s) == ("try", 3, "2", 77.0)
    assert dead.error == "ValueError: bad"
    assert 'raise ValueError("bad\\nvalue")' in dead.traceback
    assert "call.py" not in dead.traceback
    assert result.acks == [Ack(2, "t", error="ValueError: bad")]


def test_retry_begins_with_the_data_of_the_queue() -> None:
    """What a failed attempt changed in place is not seen by the next."""
    result = run(transformer("spoil"), entry({"n": 1}))
    assert [call for call in calls if isinstance(call, dict)] == [{"n": 1}, {"n": 1}]
    assert data_of(result) == [{"n": 2}]
    assert result.dead == []


def test_message_error_is_not_retried() -> None:
    """User code says with MessageError that no retry can help."""
    result = run(transformer(("give_up_on", {"value": 1})), entry(1), entry(2, 2))
    assert calls == [1, 2]
    assert [(dead.error, dead.attempts) for dead in result.dead] == [("no use", 1)]
    assert data_of(result) == [2]


def test_entry_goes_on_whole_or_not_at_all() -> None:
    """Where one of an entry's messages fails, none is sent."""
    chained = run(transformer("multiply", ("fail_on", {"value": 1})), entry(3), entry(1, 2))
    assert data_of(chained) == [0]
    assert [dead.id for dead in chained.dead] == ["1-0"]
    generator = run(transformer("multiply"), entry(-3))
    assert (generator.entries, len(generator.dead)) == ([], 1)


def test_letter_of_a_later_stage_holds_what_the_queue_did() -> None:
    """A replay goes through all stages: what it begins with must not have been through one."""
    first = transformer("add_one", "readdress", is_last=False)
    second = transformer("add_one", is_last=False)
    third = transformer(("give_up_on", {"value": 3}))
    entries = [entry(n, n, meta=Meta(key=f"k{n}", wait=f"w{n}")) for n in (1, 2)]
    between = decode_batch(second.apply(encode_batch(run(first, *entries))))
    result = decode_batch(third.apply(encode_batch(between)))
    (dead,) = result.dead
    assert (dead.channel, dead.data, dead.meta) == ("a", "1", entries[0].meta.decode())
    assert (dead.stage, dead.error) == ("try", "no use")
    assert result.acks == [Ack(2, "w1", error="no use")]
    assert data_of(result) == [4]
    assert (between.origins, result.origins) == (entries, [])


def test_entry_goes_on_whole_or_not_at_all_in_all_stages() -> None:
    """Where a stage fails on one of the messages that another has made, none is sent."""
    first = transformer("multiply", is_last=False)
    second = transformer(("give_up_on", {"value": 1}))
    whole = entry(1, 2, meta=Meta(wait="whole"))
    broken = entry(3, 1, meta=Meta(wait="broken"))
    result = decode_batch(second.apply(encode_batch(run(first, broken, whole))))
    assert [(sent.id, sent.data) for sent in result.entries] == [("2-0", b"0")]
    assert [(dead.id, dead.data) for dead in result.dead] == [("1-0", "3")]
    assert result.acks == [Ack(2, "broken", error="no use")]


def test_what_does_not_change_is_carried_once() -> None:
    """Its letter holds it as it is."""
    result = run(transformer(("add_one", {}, "b"), is_last=False), entry(1))
    assert (result.entries, result.origins) == ([entry(1)], [])


def test_system_exit_fails_only_its_message() -> None:
    """User code does not end the process."""
    result = run(transformer("leave", attempts=1), entry(1))
    assert [dead.error for dead in result.dead] == ["SystemExit: 3"]


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (5, "returned an object of type int"),
        ("text", "returned an object of type str"),
        ({"data": 1}, "returned an object of type dict"),
        ([{"data": 1}], "returned an object of type dict among its messages"),
    ],
)
def test_result_of_a_wrong_type_dies_at_once(returned: Any, error: str) -> None:
    """It says what was returned."""
    result = run(transformer(("give", {"result": returned})), entry(1))
    (dead,) = result.dead
    assert error in dead.error
    assert dead.attempts == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"channel": "a b"}, "channel has characters"),
        ({"channel": 5}, "channel is an object of type int"),
        ({"channel": None}, "channel is None, not text"),
        ({"tags": {"n": 1}}, "Expected `str`, got `int`"),
        ({"count": {"n": 1}}, "count needs data that is an object"),
        ({"count": {"n": "1"}, "data": {"a": 1}}, "Expected `int`, got `str`"),
        ({"count": {"n": 2**53}, "data": {"a": 1}}, "beyond"),
        ({"count": {"n": 1}, "data": {}}, "at least one member"),
        ({"count": {"n": 1}, "data": msgspec.Raw(b"{\n}")}, "at least one member"),
        ({"version": -1}, "version is not between"),
        ({"version": "2"}, "Expected `int`, got `str`"),
        ({"version": 1, "version_epoch": "e" * 256}, "version_epoch is longer"),
    ],
)
def test_message_that_cannot_be_sent_dies_at_once(changes: dict[str, Any], error: str) -> None:
    """Channel, data and the other fields are checked before the commit."""
    result = run(transformer(("change", changes)), entry(1))
    (dead,) = result.dead
    assert error in dead.error
    assert (result.entries, dead.stage, dead.attempts) == ([], "try", 1)


@pytest.mark.parametrize("channel", [None, ["x"], 5])
def test_channel_that_is_no_text_fails_its_message_alone(channel: Any) -> None:
    """The pattern of the next transform takes text only; the rest of the batch goes on."""
    subject = transformer(("change_on", {"value": 1, "channel": channel}), "add_one")
    result = run(subject, entry(1), entry(2, 2))
    (dead,) = result.dead
    assert (dead.id, dead.stage, dead.attempts) == ("1-0", "try", 1)
    assert "not text" in dead.error
    assert data_of(result) == [3]


def test_channel_of_a_class_of_its_own_is_text() -> None:
    """As numpy's and pandas' text is."""
    text = type("text", (str,), {})
    result = run(transformer(("change", {"channel": text("b")})), entry(1))
    assert [sent.channel for sent in result.entries] == ["b"]


def test_error_that_cannot_be_encoded_is_escaped() -> None:
    """Half of a surrogate pair in it does not cost the batch."""
    result = run(transformer("quote", attempts=1), entry(1))
    (dead,) = result.dead
    assert dead.error == r"ValueError: \ud800"
    assert dead.traceback.endswith(dead.error)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"count": 10_001}, "10001 messages"), ({"count": 5, "size": 4 * 2**20}, "bytes, more than")],
)
def test_entry_that_becomes_too_much_dies_at_once(options: dict[str, int], error: str) -> None:
    """One commit holds all that a batch became, so one message may not become a flood."""
    result = run(transformer(("flood", {"value": 1, **options})), entry(1), entry(2, 2))
    (dead,) = result.dead
    assert error in dead.error
    assert data_of(result) == [2]


def test_batch_that_becomes_too_large_is_to_be_sent_in_parts() -> None:
    """Each entry is within its limit; together they are not. A single one always passes."""
    subject = transformer(("flood", {"value": 1, "count": 1, "size": 15 * 2**20}))
    with pytest.raises(TooLargeError):
        run(subject, *[entry(1, n) for n in range(1, 6)])
    assert len(run(subject, entry(1)).entries) == 1


def test_data_that_json_cannot_hold_dies() -> None:
    """A set of complex numbers is no JSON."""
    (dead,) = run(transformer("give_unencodable"), entry(1)).dead
    assert "data cannot be written as JSON" in dead.error


@pytest.mark.parametrize("text", ['{"a":\n1}', '{"a":\r\n1}\n', ' {"a":1} '])
def test_data_that_is_json_text_already_fits_into_a_line(text: str) -> None:
    """Feeds are split at newlines; totals are put in front of the last brace."""
    (sent,) = run(transformer(("give_text", {"text": text, "count": {"n": 1}})), entry(1)).entries
    assert decode_json(sent.data) == {"a": 1}
    assert (sent.data[:1], sent.data[-1:]) == (b"{", b"}")
    assert not {*b"\r\n"} & {*sent.data}


# --- async


def test_async_calls_overlap_and_results_keep_their_order() -> None:
    """A batch's calls are under way at once; SystemExit fails its own message only."""
    result = run(transformer("slow_first", attempts=1), *(entry(n, n) for n in range(1, 6)))
    assert calls[:5] == [("in", n) for n in range(1, 6)]
    assert calls[5] == ("out", 5)
    assert data_of(result) == [1, 2, 4, 5]
    assert [dead.data for dead in result.dead] == ["3"]


def test_async_calls_are_bounded() -> None:
    """Sixty-four at once."""
    subject = transformer("slow_first")
    run(subject, *(entry(0, n) for n in range(100)))
    first_out = calls.index(("out", 0))
    assert calls[:first_out] == [("in", 0)] * 64


def test_async_generator_multiplies() -> None:
    """It may yield several."""
    assert data_of(run(transformer("twice", "add_one"), entry(1), entry(2, 2))) == [2, 2, 3, 3]


# --- batch form


@pytest.mark.parametrize("model", ["Model", "AsyncModel"])
def test_batch_form_gets_the_matching_messages_at_once(model: str) -> None:
    """One call, one result for each, in order; set up before, closed after."""
    subject = transformer((model, {}, "a"))
    result = run(subject, entry(1), entry(0, 2), entry(5, 3, channel="x"), entry(2, 4))
    subject.close()
    assert calls == [[1, 0, 2], "closed"]
    assert data_of(result) == [2, 5, 3]


@pytest.mark.parametrize("model", ["Model", "AsyncModel"])
def test_batch_form_that_raises_is_called_one_by_one(model: str) -> None:
    """The innocent go on, in order; the guilty has its attempts alone."""
    result = run(transformer((model, {"poison": 2})), *(entry(n, n) for n in (1, 2, 3)))
    assert calls == [[1, 2, 3], [1], [2], [3], "sleep 0.1", [2], "sleep 0.2", [2]]
    assert data_of(result) == [2, 4]
    assert [(dead.data, dead.attempts) for dead in result.dead] == [("2", 3)]


def test_batch_form_with_the_wrong_number_of_results() -> None:
    """Results could not be told apart: none is used."""
    result = run(transformer(("Model", {"short": True})), entry(1), entry(2, 2))
    assert [dead.error for dead in result.dead] == ["batch returned 0 results for 1 messages"] * 2


@pytest.mark.parametrize(
    "use",
    ["hang_on", "hang_on_async", "block_on_async", "HangingModel", "LazyModel", "AsyncLazyModel"],
)
def test_message_that_takes_too_long_dies_and_the_rest_goes_on(use: str) -> None:
    """Every attempt has the stage's limit; order is kept."""
    subject = transformer((use, {"value": 2}), "add_one", attempts=2, time_limit_s=0.05)
    result = run(subject, entry(1, 1), entry(2, 2), entry(3, 3))
    assert data_of(result) == [2, 4]
    (dead,) = result.dead
    assert (dead.data, dead.attempts) == ("2", 2)
    assert "longer than 0.05 s" in dead.error
    # The transformer is as good as new.
    assert data_of(run(subject, entry(7, 7))) == [8]


def test_message_that_blocks_the_event_loop_dies_alone() -> None:
    """The others under way are as late as it is, and innocent: they are tried alone."""
    subject = transformer(("block_on_async", {"value": 2}), attempts=1, time_limit_s=0.05)
    result = run(subject, *(entry(n, n) for n in (1, 2, 3)))
    assert data_of(result) == [1, 3]
    assert [(dead.data, dead.attempts) for dead in result.dead] == [("2", 1)]


def test_conflate_keeps_what_is_kept() -> None:
    """A message that skips the history does not take the place of one that does not."""
    kept, shown = entry(1), entry(2, 2, meta=Meta(skip_history=True))
    assert run(transformer("conflate"), kept, shown).entries == [kept, shown]


def test_conflate_in_a_batch() -> None:
    """The last of each key is kept, as it came; who waited for another is answered."""
    subject = transformer(("conflate", {"key": "k"}))
    last = entry({"k": 1, "n": 2}, 2)
    result = run(subject, entry({"k": 1, "n": 1}, 1, meta=Meta(wait="t")), last)
    assert (result.entries, result.acks) == ([last], [Ack(2, "t")])


# --- set-up, numbers


def test_set_up_that_fails_shows_the_users_line() -> None:
    """A model that cannot be loaded is an error of the settings, with the place."""
    with pytest.raises(SettingsError, match=r"(?s)set_up failed: OSError: no model.*raise OSError"):
        transformer("Unready")


def test_numbers_are_counted() -> None:
    """In, out, dropped, dead, retries, batches, and the time of each batch."""
    numbers = Numbers("transformer")
    subject = transformer(
        ("fail_on", {"value": 2}), ("filter", {"field": "x", "exists": False}), numbers=numbers
    )
    run(subject, entry(1), entry(2, 2), entry({"x": 1}, 3))
    shot = numbers.snapshot()
    assert shot["counters"] == {
        "batches": 1, "in": 3, "out": 1, "dropped": 1, "dead": 1, "retries": 2,
    }  # fmt: skip
    assert shot["latencies"]["transform"]["count"] == 1
