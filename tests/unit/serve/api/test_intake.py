"""The intake accepts each message once, in order, and brings its result back."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.errors import MessageError, QueueFullError, UnavailableError
from actors.message import Ack, Meta, decode_json, decode_meta
from actors.pacing import Backoff
from actors.partition import partition_of
from actors.settings.tree import QueueSettings
from actors.store.interface import NewMessage
from actors.store.memory.store import MemoryStore
from serve.api.intake import Intake, NoResultError, Outgoing, UnknownChannelError


class RecordingStore(MemoryStore):
    """Keeps the calls of `enqueue`, and fails as told: after, or before, the call took effect."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.calls: list[tuple[int, list[str], int]] = []
        self.lose_answers = 0
        self.refuse_calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()

    async def enqueue(
        self,
        partition: int,
        messages: Sequence[NewMessage],
        *,
        entries_max: int,
        producer: str = "",
        first_number: int = 0,
        begins: bool = False,
    ) -> int:
        self.calls.append((partition, [m.data.decode() for m in messages], first_number))
        self.called.set()
        await self.gate.wait()
        if self.refuse_calls:
            self.refuse_calls -= 1
            raise UnavailableError("no connection")
        accepted = await super().enqueue(
            partition,
            messages,
            entries_max=entries_max,
            producer=producer,
            first_number=first_number,
            begins=begins,
        )
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("answer lost")
        return accepted

    async def until_queued(self, count: int, partition: int = 0) -> None:
        async with asyncio.timeout(2), self._news:
            await self._news.wait_for(lambda: len(self._queues[partition]) >= count)

    def queued(self, partition: int = 0) -> list[str]:
        return [entry.data.decode() for entry in self._queues[partition]]

    def tokens(self, partition: int = 0) -> list[str]:
        return [decode_meta(entry.meta).wait for entry in self._queues[partition]]


def intake(
    store: MemoryStore, *, partitions: int = 1, entries_max: int = 100, **more: Any
) -> Intake:
    options: dict[str, Any] = {"timeout_s": 2.0, "backoff": Backoff(0.0)} | more
    return Intake(
        store,
        QueueSettings(partitions=partitions, entries_max=entries_max, message_bytes_max=100),
        knows=lambda channel: not channel.startswith("unknown:"),
        **options,
    )


async def answer(store: RecordingStore, into: Intake, count: int, *, partition: int = 0) -> None:
    """Play the pipeline: wait until `count` entries are queued, and acknowledge them."""
    await store.until_queued(count, partition)
    into.resolve(
        Ack(partition, token, offset, "epoch")
        for offset, token in enumerate(store.tokens(partition), 1)
    )


async def test_publish_returns_the_result_of_the_commit() -> None:
    """The result is that of the message's own token; other tokens are passed over."""
    store = RecordingStore()
    into = intake(store)
    publishing = asyncio.create_task(into.publish("news", b'{"a": 1}', Meta(tags={"t": "x"})))

    async with asyncio.timeout(2):
        await store.until_queued(1)
        into.resolve([Ack(0, "of another edge:1", 9, "x")])
        assert not publishing.done()
        into.resolve([Ack(0, store.tokens()[0], 7, "abc")])
        ack = await publishing

    assert (ack.offset, ack.epoch) == (7, "abc")
    assert into.numbers()["api_waiting"] == 0


async def test_what_arrives_in_one_turn_goes_in_one_call() -> None:
    """Concurrent publishes are put together, in the order of the calls."""
    store = RecordingStore()
    into = intake(store)

    async with asyncio.timeout(2):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(into.publish("news", str(n).encode(), Meta())) for n in range(5)
            ]
            group.create_task(answer(store, into, 5))

    assert store.calls == [(0, ["0", "1", "2", "3", "4"], 1)]
    assert [task.result().offset for task in tasks] == [1, 2, 3, 4, 5]


async def test_what_arrives_during_a_call_goes_in_the_next() -> None:
    """One call at a time for each partition keeps the order."""
    store = RecordingStore()
    store.gate.clear()
    into = intake(store)

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(into.publish("news", b"1", Meta()))
        await store.called.wait()
        for data in (b"2", b"3"):
            group.create_task(into.publish("news", data, Meta()))
        await asyncio.sleep(0)
        store.gate.set()
        group.create_task(answer(store, into, 3))

    assert store.calls == [(0, ["1"], 1), (0, ["2", "3"], 2)]


async def test_partitions_do_not_wait_for_one_another() -> None:
    """Each partition has a call of its own."""
    store = RecordingStore(4)
    into = intake(store, partitions=4)
    channels = [f"c{n}" for n in range(20)]

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        for channel in channels:
            group.create_task(into.publish(channel, b"1", Meta()))
        for partition in range(4):
            count = sum(partition_of(c, 4) == partition for c in channels)
            group.create_task(answer(store, into, count, partition=partition))

    assert sorted(call[0] for call in store.calls) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("channel", "data", "kind"),
    [
        ("", b"1", MessageError),
        ("with blank", b"1", MessageError),
        ("unknown:x", b"1", UnknownChannelError),
        ("news", b"{", MessageError),
        ("news", b'"\xff"', MessageError),
        ("news", b"", MessageError),
        ("news", b'"' + b"x" * 100 + b'"', MessageError),
    ],
)
async def test_message_that_breaks_a_rule_is_refused(
    channel: str, data: bytes, kind: type[MessageError]
) -> None:
    """What can never be accepted does not reach the store."""
    store = RecordingStore()

    with pytest.raises(kind):
        await intake(store).publish(channel, data, Meta())

    assert store.calls == []


async def test_data_loses_its_raw_newlines() -> None:
    """Newlines between tokens become blanks; escaped ones stay."""
    store = RecordingStore()
    into = intake(store)

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(into.publish("news", b'{\r\n"a":\n"x\\ny"}', Meta()))
        group.create_task(answer(store, into, 1))

    assert store.queued() == ['{  "a": "x\\ny"}']


async def test_each_message_of_many_stands_alone() -> None:
    """A refused message does not keep the others out; results come in the order asked."""
    store = RecordingStore()
    into = intake(store)
    many = [Outgoing("news", b"1"), Outgoing("unknown:x", b"2"), Outgoing("news", b"3")]

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        publishing = group.create_task(into.publish_many(many))
        group.create_task(answer(store, into, 2))

    first, second, third = publishing.result()
    assert isinstance(first, Ack)
    assert isinstance(second, UnknownChannelError)
    assert isinstance(third, Ack)
    assert (first.offset, third.offset) == (1, 2)


async def test_full_queue_refuses_the_rest() -> None:
    """What finds no room is refused at once, and the numbering survives it."""
    store = RecordingStore()
    into = intake(store, entries_max=2)
    many = [Outgoing("news", str(n).encode()) for n in range(4)]

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        publishing = group.create_task(into.publish_many(many))
        group.create_task(answer(store, into, 2))
    assert [type(result) for result in publishing.result()] == [
        Ack, Ack, QueueFullError, QueueFullError
    ]  # fmt: skip

    store._queues[0].clear()
    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(into.publish("news", b"5", Meta()))
        group.create_task(answer(store, into, 1))
    assert store.queued() == ["5"]


async def test_lost_answer_does_not_queue_twice() -> None:
    """A call whose answer is lost is repeated with the same numbers."""
    store = RecordingStore()
    store.lose_answers = 2
    into = intake(store)

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(into.publish("news", b"1", Meta()))
        group.create_task(answer(store, into, 1))

    async with asyncio.timeout(2):
        task = into._lanes[0].task
        if task is not None:
            await task

    assert store.queued() == ["1"]
    assert [first for _, _, first in store.calls] == [1, 1, 1]


async def test_refused_messages_use_no_numbers() -> None:
    """After a full queue the numbers go on where those accepted ended."""
    store = RecordingStore()
    into = intake(store, entries_max=2, timeout_s=0.05)
    async with asyncio.timeout(2):
        await into.publish_many([Outgoing("news", b"%d" % n) for n in (1, 2, 3)])
        store._queues[0].clear()
        await into.publish_many([Outgoing("news", b"4")])
    assert [first for _, _, first in store.calls] == [1, 3]
    assert store.queued() == ["4"]


async def test_given_up_call_that_arrives_late_changes_nothing() -> None:
    """What comes after it has been accepted under the numbers that follow: it is not appended."""
    store = RecordingStore()
    store.refuse_calls = 1
    into = intake(store, timeout_s=0.05, backoff=Backoff(9.0))
    async with asyncio.timeout(2):
        await into.publish_many([Outgoing("news", b"1")])
        await into.publish_many([Outgoing("news", b"2")])
        late = [NewMessage("news", b"1")]
        assert await store.enqueue(0, late, entries_max=9, producer=into._producer, first_number=1)
    assert store.queued() == ["2"]


async def test_server_that_was_emptied_gets_what_follows() -> None:
    """It knows no numbers any more: the intake begins them anew, once."""
    store = RecordingStore()
    into = intake(store, timeout_s=0.05)
    async with asyncio.timeout(2):
        await into.publish_many([Outgoing("news", b"1"), Outgoing("news", b"2")])
        store._producers.clear()
        store._queues[0].clear()
        store.lose_answers = 1
        await into.publish_many([Outgoing("news", b"3")])
        await into.publish_many([Outgoing("news", b"4")])
    assert store.queued() == ["3", "4"]


async def test_result_that_comes_before_the_answer_counts() -> None:
    """The feed may be faster than the store's answer."""
    store = RecordingStore()
    store.gate.clear()
    into = intake(store)
    publishing = asyncio.create_task(into.publish("news", b"1", Meta()))

    async with asyncio.timeout(2):
        await store.called.wait()
        into.resolve([Ack(0, next(iter(into._waiters)), 3, "e")])
        ack = await publishing
        store.gate.set()
        await into.close()

    assert ack.offset == 3


async def test_server_that_stays_away_is_told_in_time() -> None:
    """Without an answer the caller learns that the message may still take effect."""
    store = RecordingStore()
    store.refuse_calls = 10**9
    into = intake(store, timeout_s=0.05, backoff=Backoff(0.01, 0.01))

    async with asyncio.timeout(2):
        with pytest.raises(UnavailableError, match="may still take effect"):
            await into.publish("news", b"1", Meta())
        await into.close()

    assert 1 < len(store.calls) < 10
    assert into.numbers()["api_waiting"] == 0


async def test_untried_message_is_not_queued_after_its_time() -> None:
    """A message whose turn did not come before its time ended never enters the queue."""
    store = RecordingStore()
    store.gate.clear()
    into = intake(store, timeout_s=0.05)
    first = asyncio.create_task(into.publish("news", b"1", Meta()))

    async with asyncio.timeout(2):
        await store.called.wait()
        with pytest.raises(UnavailableError, match="nothing was accepted"):
            await into.publish("news", b"2", Meta())
        with pytest.raises(UnavailableError, match="may still take effect"):
            await first
        store.gate.set()
        await into.close()

    assert "2" not in store.queued()


async def test_accepted_message_without_result_says_so() -> None:
    """When the pipeline stands still, the caller learns that the message is accepted."""
    store = RecordingStore()
    into = intake(store, timeout_s=0.05)

    async with asyncio.timeout(2):
        with pytest.raises(NoResultError, match="is accepted"):
            await into.publish("news", b"1", Meta())

    assert store.queued() == ["1"]


@pytest.mark.parametrize("limit", [{"waiting_max": 2}, {"waiting_bytes_max": 50}])
async def test_more_than_may_wait_is_refused(limit: dict[str, int]) -> None:
    """The number of messages that wait, and all their bytes, are bounded; the newest is refused.

    Such a message takes about 30 bytes: its data, and the token of whoever waits for it.
    """
    store = RecordingStore()
    into = intake(store, timeout_s=0.05, **limit)

    async with asyncio.timeout(2):
        results = await into.publish_many([Outgoing("news", b"1")] * 3)

    assert isinstance(results[2], QueueFullError)
    assert len(store.queued()) == 2
    assert into._waiting_bytes == 0


async def test_data_that_messages_share_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be large, and the messages many."""
    checked: list[bytes | str] = []

    def check(text: bytes | str) -> Any:
        checked.append(text)
        return decode_json(text)

    monkeypatch.setattr("serve.api.intake.decode_json", check)
    store = RecordingStore()
    into = intake(store, timeout_s=0.05)
    shared, other, bad = b"[\n1]", b"2", b"{"

    async with asyncio.timeout(2):
        results = await into.publish_many(
            [Outgoing("news", data) for data in (shared, shared, other, bad, bad, shared)]
        )

    assert checked == [shared, other, bad, shared]
    assert store.queued() == ["[ 1]", "[ 1]", "2", "[ 1]"]
    assert [isinstance(result, MessageError) for result in results] == [False] * 3 + [True] * 2 + [
        False
    ]


async def test_data_that_finds_no_room_is_not_looked_at() -> None:
    """What is refused costs little: a place first, then the check."""
    into = intake(RecordingStore(), waiting_max=0)

    with pytest.raises(QueueFullError):
        await into.publish("news", b"{", Meta())


async def test_cancelled_caller_leaves_nothing_behind() -> None:
    """A caller that goes away is forgotten."""
    store = RecordingStore()
    into = intake(store)
    publishing = asyncio.create_task(into.publish("news", b"1", Meta()))

    async with asyncio.timeout(2):
        await store.called.wait()
        publishing.cancel()
        await asyncio.wait([publishing])
        await asyncio.sleep(0)

    assert into.numbers()["api_waiting"] == 0


async def test_drained_intake_refuses_but_finishes() -> None:
    """What was taken before gets its result; what comes later is refused."""
    store = RecordingStore()
    into = intake(store)
    publishing = asyncio.create_task(into.publish("news", b"1", Meta()))

    async with asyncio.timeout(2):
        await store.called.wait()
        into.drain()
        with pytest.raises(UnavailableError, match="shutting down"):
            await into.publish("news", b"2", Meta())
        await answer(store, into, 1)
        assert (await publishing).offset == 1


async def test_probe_reaches_its_partition() -> None:
    """A probe is marked as such and goes to the partition asked for."""
    store = RecordingStore(4)
    into = intake(store, partitions=4)

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        probing = group.create_task(into.probe([2], timeout_s=2))
        group.create_task(answer(store, into, 1, partition=2))

    assert isinstance(probing.result()[0], Ack)
    assert decode_meta(store._queues[2][0].meta).probe
