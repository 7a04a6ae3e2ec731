"""The publisher: what it makes of a batch, and that each entry takes effect once."""

from collections.abc import Sequence

import pytest

from actors.errors import GapError, UnavailableError
from actors.message import (
    FIRST_ID,
    WHOLE_BRACE,
    Ack,
    Batch,
    Entry,
    Meta,
    Span,
    decode_json,
    encode_batch,
    encode_json,
)
from actors.metrics import Numbers
from actors.partition import partition_of
from actors.publisher import Publisher
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import Commit, Committed
from actors.store.memory.store import MemoryStore

KEPT = ChannelSettings(history_size=100, history_ttl_s=60)
DELTAS = KEPT.model_copy(update={"allowed_delta_types": ("fossil",)})
SETTINGS = Settings(
    namespaces={
        "news": KEPT,
        "deltas": DELTAS,
        "asked": DELTAS.model_copy(update={"delta_publish": False}),
        "none": KEPT.model_copy(update={"delta_publish": False}),
    },
    channels=ChannelSettings(),
)
A = "news:a"
P = partition_of(A, 8)
# A channel of another partition.
B = next(f"news:{n}" for n in range(100) if partition_of(f"news:{n}", 8) != P)
Q = partition_of(B, 8)


def publisher(store: MemoryStore) -> Publisher:
    """A publisher as a new process would make it."""
    return Publisher(
        store,
        SETTINGS.channel_settings,
        Numbers("publisher"),
        partitions=8,
    )


def entry(n: int, channel: str = A, data: bytes = b"1", meta: Meta | None = None) -> Entry:
    """The n-th entry of the source partition."""
    return Entry(P, f"{n}-0", channel, data, b"" if meta is None else encode_json(meta))


def batch(*entries: Entry, after: int = 0) -> bytes:
    """A batch of one source partition."""
    first = f"{after}-0"
    return encode_batch(Batch([Span(P, first, entries[-1].id)], list(entries)))


async def bodies(store: MemoryStore, channel: str = A) -> list[bytes]:
    """What a channel's history has."""
    history = await store.history(channel, since=None, limit=None, meta_ttl_s=60)
    return [body for _, body in history.publications]


async def test_publication_is_data_with_tags_and_info() -> None:
    """The body is an object whose last member is the data, without raw newlines."""
    store = MemoryStore()
    meta = Meta(tags={"t": "1"}, info={"user": "u"})
    pretty = b'{\r\n "a": "x\\ny"\n}'
    publisher(store).commit(batch(entry(1, data=pretty), entry(2, meta=meta)), "r", 0)
    one, two = await bodies(store)
    assert b"\n" not in one
    assert b"\r" not in one
    assert decode_json(one) == {"data": {"a": "x\ny"}}
    assert two == b'{"tags":{"t":"1"},"info":{"user":"u"},"data":1}'


@pytest.mark.parametrize(
    ("namespace", "asked", "whole"),
    [
        ("asked", True, False),
        ("asked", False, True),
        ("deltas", False, False),
        ("none", False, False),
    ],
)
async def test_wish_for_no_deltas_is_marked(namespace: str, asked: bool, whole: bool) -> None:
    """Where there might be some; as JSON the publication is the same."""
    names = (f"{namespace}:{n}" for n in range(100))
    channel = next(name for name in names if partition_of(name, 8) == P)
    store = MemoryStore()
    plain = entry(1, channel, meta=Meta(delta=True) if asked else None)
    tagged = entry(2, channel, meta=Meta(delta=asked, tags={"t": "1"}))
    publisher(store).commit(batch(plain, tagged), "r", 0)
    found = await bodies(store, channel)
    assert [body.startswith(WHOLE_BRACE) for body in found] == [whole, whole]
    assert [decode_json(body) for body in found] == [{"data": 1}, {"tags": {"t": "1"}, "data": 1}]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (entry(2, data=b"{"), "not JSON"),
        (entry(2, channel="a b"), "channel"),
        (entry(2, channel="nowhere:a"), "unknown namespace"),
        (Entry(P, "2-0", A, b"1", b"{"), "field m"),
        (entry(2, meta=Meta(count={"a": 1})), "non-empty object"),
        (entry(2, data=b'{"a":1}', meta=Meta(count={"a": 2**53})), "beyond"),
    ],
)
async def test_bad_entry_becomes_a_dead_letter(bad: Entry, why: str) -> None:
    """The rest of the batch goes on, and the entry is kept with the reason."""
    store = MemoryStore()
    publisher(store).commit(batch(entry(1, data=b'"x"'), bad, entry(3, data=b'"y"')), "r", 0)
    assert await bodies(store) == [b'{"data":"x"}', b'{"data":"y"}']
    (letter,) = store.dead
    assert (letter.partition, letter.id, letter.stage) == (P, "2-0", "queue")
    assert why in letter.error


async def test_dead_letter_answers_who_waits() -> None:
    """The one who published learns why."""
    store = MemoryStore()
    publisher(store).commit(batch(entry(1, data=b"{", meta=Meta(wait="w"))), "r", 0)
    (record,) = await store.read_feed({P: FIRST_ID}, limit=9, block_s=0)
    assert [(ack.token, "not JSON" in ack.error) for ack in record.acks] == [("w", True)]


async def test_probe_makes_no_publication() -> None:
    """It only answers who waits, whatever its channel."""
    store = MemoryStore()
    probe = entry(1, channel="no such:channel", meta=Meta(probe=True, wait="w"))
    publisher(store).commit(batch(probe), "r", 0)
    (record,) = await store.read_feed({P: FIRST_ID}, limit=9, block_s=0)
    assert (record.groups, record.acks, store.dead) == ([], [Ack(P, "w")], [])


async def test_batch_out_of_turn_is_refused() -> None:
    """A batch whose predecessor failed is not committed, and neither is another run's."""
    store = MemoryStore()
    one = publisher(store)
    one.commit(batch(entry(1)), "r", 0)
    for run, number in [("r", 2), ("other", 1), ("r", 1 + 1)]:
        with pytest.raises(GapError):
            one.commit(batch(entry(3), after=2), run, number)
    one.commit(batch(entry(2), after=1), "r", 1)
    assert len(await bodies(store)) == 2


async def test_new_publisher_refuses_to_begin_in_the_middle() -> None:
    """After a restart only the first batch of a run is taken."""
    with pytest.raises(GapError):
        publisher(MemoryStore()).commit(batch(entry(2), after=1), "r", 1)


async def test_overlapping_batch_applies_what_is_new() -> None:
    """What another publisher has committed already is left out, offsets go on."""
    store = MemoryStore()
    publisher(store).commit(batch(entry(1, data=b"1"), entry(2, data=b"2")), "r", 0)
    again = batch(entry(1, data=b"1"), entry(2, data=b"2"), entry(3, data=b"3"))
    publisher(store).commit(again, "s", 0)
    publisher(store).commit(again, "t", 0)
    assert await bodies(store) == [b'{"data":1}', b'{"data":2}', b'{"data":3}']


async def test_gap_below_the_checkpoint_is_refused() -> None:
    """A server that lost its last second is noticed: what is applied lies before the batch."""
    with pytest.raises(GapError, match="applied"):
        publisher(MemoryStore()).commit(batch(entry(6), after=5), "r", 0)


async def test_readdressed_message_takes_effect_once() -> None:
    """A batch that was half committed - the other partition's part - is completed, not repeated."""
    store = MemoryStore()
    work = batch(entry(1, B, b"1"), entry(2, A, b"2"), entry(3, B, b"3"))

    class Dying(MemoryStore):
        def commit(self, commits):  # type: ignore[no-untyped-def] # as in the protocol
            if commits[0].partition == P:
                raise ConnectionError
            return store.commit(commits)

    with pytest.raises(ConnectionError):
        publisher(Dying()).commit(work, "r", 0)
    assert (await bodies(store, B), await bodies(store, A)) == ([b'{"data":1}', b'{"data":3}'], [])
    publisher(store).commit(work, "s", 0)
    assert await bodies(store, B) == [b'{"data":1}', b'{"data":3}']
    assert await bodies(store, A) == [b'{"data":2}']
    assert await store.applied([P]) == {P: "3-0"}


class Away(MemoryStore):
    """A store that goes away before the own part of a commit, as often as told."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def commit(self, commits: Sequence[Commit]) -> list[Committed]:
        if self.times and commits[0].own:
            self.times -= 1
            raise UnavailableError("away")
        return super().commit(commits)


async def test_readdressed_message_is_not_repeated_by_the_same_publisher() -> None:
    """What it knows to be applied elsewhere is left out of a batch that comes again, or longer."""
    store = Away(2)
    one = publisher(store)
    two = batch(entry(1, B, b"1"), entry(2, B, b"2"))
    three = batch(entry(1, B, b"1"), entry(2, B, b"2"), entry(3, B, b"3"))
    for run, work in enumerate([two, three]):
        with pytest.raises(UnavailableError):
            one.commit(work, str(run), 0)
    one.commit(two, "again", 0)
    one.commit(batch(entry(3, B, b"3"), after=2), "again", 1)
    assert await bodies(store, B) == [b'{"data":1}', b'{"data":2}', b'{"data":3}']
    assert await store.applied([P]) == {P: "3-0"}


async def test_server_that_lost_what_a_publisher_knows_is_noticed() -> None:
    """The hint is checked: what is gone is committed again, after a new beginning."""
    store = Away(1)
    one = publisher(store)
    work = batch(entry(1, B, b"1"))
    with pytest.raises(UnavailableError):
        one.commit(work, "r", 0)
    store._applied.clear()
    store._channels.clear()
    with pytest.raises(GapError):
        one.commit(work, "s", 0)
    one.commit(work, "t", 0)
    assert await bodies(store, B) == [b'{"data":1}']


async def test_overlapping_batch_buries_once() -> None:
    """A dead letter that another publisher has stored is not stored again."""
    store = MemoryStore()
    bad = entry(1, data=b"{")
    publisher(store).commit(batch(bad), "r", 0)
    publisher(store).commit(batch(bad, entry(2), entry(3, data=b"{")), "s", 0)
    assert [letter.id for letter in store.dead] == ["1-0", "3-0"]


async def test_readdressed_message_answers_on_the_source() -> None:
    """Its result stands in the feed of the partition it was queued in."""
    store = MemoryStore()
    publisher(store).commit(batch(entry(1, B, b"1", Meta(wait="w"))), "r", 0)
    (record,) = await store.read_feed({P: FIRST_ID}, limit=9, block_s=0)
    assert [(ack.partition, ack.token, ack.offset) for ack in record.acks] == [(P, "w", 1)]


async def test_batch_that_comes_again_is_not_stale() -> None:
    """Nor is what is new in one that overlaps: each version is held against those before it."""
    store = MemoryStore()
    entries = [entry(n, data=b"%d" % n, meta=Meta(version=n)) for n in (1, 2, 3)]
    publisher(store).commit(batch(*entries[:2]), "r", 0)
    publisher(store).commit(batch(*entries[:2]), "s", 0)
    publisher(store).commit(batch(*entries), "t", 0)
    publisher(store).commit(batch(entry(4, meta=Meta(version=3)), after=3), "u", 0)
    assert await bodies(store) == [b'{"data":1}', b'{"data":2}', b'{"data":3}']


async def test_stale_version_in_another_partition_answers_on_the_source() -> None:
    """With the top position of the channel that it would have gone to."""
    store = MemoryStore()
    entries = [entry(n, B, meta=Meta(version=3 - n, wait=f"{n}")) for n in (1, 2)]
    publisher(store).commit(batch(*entries), "r", 0)
    (record,) = await store.read_feed({P: FIRST_ID}, limit=9, block_s=0)
    assert [(ack.token, ack.offset) for ack in record.acks] == [("1", 1), ("2", 1)]


async def test_version_does_not_count_without_history() -> None:
    """It neither stops a publication nor is it remembered."""
    store = MemoryStore()
    skips = Meta(version=5, skip_history=True)
    publisher(store).commit(
        batch(
            entry(1, meta=skips),
            entry(2, meta=skips),
            entry(3, "plain", meta=Meta(version=5)),
            entry(4, "plain", meta=Meta(version=5)),
            entry(5, meta=Meta(version=1)),
        ),
        "r",
        0,
    )
    assert await bodies(store) == [b'{"data":1}']
    records = await store.read_feed(dict.fromkeys(range(8), FIRST_ID), limit=9, block_s=0)
    assert sum(len(record.bodies) for record in records) == 5


async def test_skipping_history_keeps_the_order() -> None:
    """A publication that skips the history is delivered in its place, without an offset."""
    store = MemoryStore()
    work = batch(entry(1), entry(2, meta=Meta(skip_history=True)), entry(3))
    publisher(store).commit(work, "r", 0)
    (record,) = await store.read_feed({P: FIRST_ID}, limit=9, block_s=0)
    assert [(g.first, g.count) for g in record.groups] == [(1, 1), (0, 1), (2, 1)]


async def test_dropped_entries_move_the_checkpoint() -> None:
    """A batch whose every entry a transform dropped is applied all the same."""
    store = MemoryStore()
    publisher(store).commit(encode_batch(Batch([Span(P, FIRST_ID, "7-0")], [])), "r", 0)
    assert await store.applied([P]) == {P: "7-0"}
