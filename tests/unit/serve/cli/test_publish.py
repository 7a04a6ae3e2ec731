"""`raywire publish`: how lines become messages, and what happens to those that cannot."""

import asyncio
import io
import os
from collections.abc import Sequence

import pytest
from rich.console import Console

from actors.errors import MessageError, UnavailableError
from actors.partition import partition_of
from actors.store.interface import NewMessage
from actors.store.memory.store import MemoryStore
from serve.cli.publish_display import REFUSALS_SHOWN_MAX, Display
from serve.cli.publish_job import Order, Publishing
from serve.cli.publish_lines import Form, LineReader, Splitter, judge
from serve.cli.publish_sender import Sender

_PARTITION = partition_of("news", 8)


class _Lines:
    """Lines that are there already."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = list(lines)

    async def take(self, limit: int) -> list[bytes]:
        taken, self._lines = self._lines[:limit], self._lines[limit:]
        return taken


class _FlakyStore(MemoryStore):
    """Accepts, and then loses the answer, as often as told."""

    def __init__(self, lost_answers: int) -> None:
        super().__init__()
        self.lost_answers = lost_answers

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
        accepted = await super().enqueue(
            partition,
            messages,
            entries_max=entries_max,
            producer=producer,
            first_number=first_number,
            begins=begins,
        )
        if self.lost_answers > 0:
            self.lost_answers -= 1
            raise UnavailableError("the answer was lost")
        return accepted


class _Run:
    """Everything that one publishing needs."""

    def __init__(
        self,
        store: MemoryStore,
        order: Order,
        *,
        entries_max: int = 5000,
        timeout_s: float = 5.0,
        producer: str = "",
    ) -> None:
        self.stopping = asyncio.Event()
        self.said = io.StringIO()
        self.display = Display(Console(file=self.said, width=200), live=False)
        self.sender = Sender(
            store,
            self.display.waits,
            partition=_PARTITION,
            entries_max=entries_max,
            timeout_s=timeout_s,
            stopping=self.stopping,
            producer=producer,
        )
        self.job = Publishing(order, self.sender, self.display, store, partition=_PARTITION)

    async def publish(self, lines: Sequence[bytes]) -> None:
        async with asyncio.timeout(5):
            await self.job.run(_Lines(lines), self.stopping)


async def _queued(store: MemoryStore) -> list[bytes]:
    found = await store.read({_PARTITION: "0-0"}, limit=100_000, block_s=0)
    return [entry.data for entry in found[0]] if found else []


@pytest.mark.parametrize(
    ("line", "form", "data"),
    [
        (b'{"a": 1}\r', Form.AUTO, b'{"a": 1}'),
        (b"12", Form.AUTO, b"12"),
        (b"12", Form.TEXT, b'"12"'),
        (b"hello \xc3\xa4", Form.AUTO, '"hello ä"'.encode()),
        (b'  say "x"\t\r', Form.AUTO, b'"  say \\"x\\"\\t"'),
        (b"NaN", Form.AUTO, b'"NaN"'),
        (b" [1] ", Form.JSON, b"[1]"),
    ],
)
def test_a_line_becomes_data(line: bytes, form: Form, data: bytes) -> None:
    """JSON is sent as it is, other text as a JSON string."""
    assert judge(line, form, bytes_max=100) == data


@pytest.mark.parametrize(
    ("line", "form", "why"),
    [
        (b"  \r", Form.AUTO, "empty line"),
        (b"", Form.TEXT, "empty line"),
        (b"ab\xff", Form.AUTO, "not UTF-8: byte 3"),
        (b"{]", Form.JSON, "not JSON"),
        (b"x" * 101, Form.AUTO, "longer than 100 bytes"),
        (b'"' * 60, Form.TEXT, "longer than 100 bytes as JSON"),
    ],
)
def test_a_line_that_cannot_be_published_is_refused(line: bytes, form: Form, why: str) -> None:
    """The reason is named."""
    with pytest.raises(MessageError, match=why):
        judge(line, form, bytes_max=100)


def test_chunks_are_cut_into_lines_wherever_they_break() -> None:
    """Where a chunk ends does not matter, not even within the byte order mark."""
    text = b"\xef\xbb\xbfone\ntwo\n\nlast"
    for size in range(1, len(text) + 1):
        splitter = Splitter(line_bytes_max=100)
        lines = [
            line
            for start in range(0, len(text), size)
            for line in splitter.feed(text[start : start + size])
        ]
        assert lines + splitter.end() == [b"one", b"two", b"", b"last"]


def test_a_line_without_end_takes_no_more_memory_than_its_limit() -> None:
    """What exceeds the limit is thrown away as it comes; the next line is whole again."""
    splitter = Splitter(line_bytes_max=10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
        assert len(splitter._rest) <= 10
    assert splitter.feed(b"x\nnext\n") == [b"x" * 10, b"next"]


async def test_reader_hands_out_what_is_there_without_waiting_for_more() -> None:
    """`tail -f log | raywire publish` sends each line at once."""
    source, sink = os.pipe()
    reader = LineReader(source, line_bytes_max=100)
    reader.start()
    async with asyncio.timeout(5):
        os.write(sink, b"one\ntwo\nthr")
        assert await reader.take(500) == [b"one", b"two"]
        os.write(sink, b"ee\n")
        assert await reader.take(500) == [b"three"]
        os.write(sink, b"last")
        os.close(sink)
        assert await reader.take(500) == [b"last"]
        assert await reader.take(500) == []
    os.close(source)


async def test_reader_that_is_stopped_hands_out_nothing_more() -> None:
    """Ctrl-C ends a wait for input."""
    source, sink = os.pipe()
    reader = LineReader(source, line_bytes_max=100)
    reader.start()
    waiting = asyncio.ensure_future(reader.take(10))
    await asyncio.sleep(0)
    reader.stop()
    async with asyncio.timeout(5):
        assert await waiting == []
    os.close(sink)


async def test_reader_waits_when_nobody_takes() -> None:
    """Endless input takes bounded memory."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    reader = LineReader(source, line_bytes_max=100)
    reader.start()
    written = 0
    # The pipe takes no more once the reader's room is full and the pipe is, too.
    async with asyncio.timeout(10):
        stuck = 0
        while stuck < 50:
            try:
                written += os.write(sink, b"line\n" * 1000)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                await asyncio.sleep(0.001)
    assert written < 4 * 2**20
    os.close(sink)
    taken = 0
    async with asyncio.timeout(10):
        while lines := await reader.take(1000):
            taken += sum(len(line) + 1 for line in lines)
    # The last line may have no end.
    assert written <= taken <= written + 1
    os.close(source)


async def test_lines_are_queued_in_order_and_bad_ones_are_counted() -> None:
    """What cannot be published does not hold up the rest."""
    store = MemoryStore()
    run = _Run(store, Order("news"))
    await run.publish([b"one", b"", b'{"n":2}', b"\xff", b"three"])

    assert await _queued(store) == [b'"one"', b'{"n":2}', b'"three"']
    assert run.job.accepted == 3
    assert run.job.line == 5
    assert run.display.refused == 2
    assert "line 2: empty line" in run.said.getvalue()
    assert "line 4: not UTF-8" in run.said.getvalue()


async def test_a_strict_order_ends_at_the_first_bad_line() -> None:
    """What came before it is published, what comes after it is not."""
    store = MemoryStore()
    run = _Run(store, Order("news", strict=True))
    with pytest.raises(MessageError, match="line 2"):
        await run.publish([b"one", b"", b"three"])
    assert await _queued(store) == [b'"one"']


async def test_a_lost_answer_repeats_nothing() -> None:
    """Messages are numbered: what was appended before is not appended again."""
    store = _FlakyStore(lost_answers=3)
    run = _Run(store, Order("news"))
    await run.publish([b"%d" % number for number in range(1200)])

    assert await _queued(store) == [b"%d" % number for number in range(1200)]
    assert run.job.accepted == 1200


async def test_a_full_queue_is_waited_for() -> None:
    """Backpressure delays messages, and neither loses nor reorders them."""
    store = MemoryStore()
    run = _Run(store, Order("news"), entries_max=10)
    lines = [b"%d" % number for number in range(35)]
    publishing = asyncio.ensure_future(run.publish(lines))
    got: list[bytes] = []
    async with asyncio.timeout(5):
        while len(got) < 35:
            found = await store.read({_PARTITION: "0-0"}, limit=7, block_s=1)
            got += [entry.data for entry in found[0]]
            del store._queues[_PARTITION][: len(found[0])]
        await publishing
    assert got == lines
    assert "waiting: the queue is full" in run.said.getvalue()


async def test_a_server_that_stays_away_ends_it_with_the_place_to_go_on() -> None:
    """The line and the producer's name are what a second call needs."""
    store = _FlakyStore(lost_answers=0)
    first = _Run(store, Order("news"), producer="p", timeout_s=0)
    await first.publish([b"one", b"", b"two"])
    store.lost_answers = 100
    lines = [b"one", b"", b"two", b"three", b"four"]
    broken = _Run(store, Order("news", skip=3, keep_numbers=True), producer="p", timeout_s=0)
    with pytest.raises(UnavailableError):
        await broken.publish(lines)
    assert broken.job.line == 3
    assert broken.sender.uncertain

    store.lost_answers = 0
    again = _Run(store, Order("news", skip=3, keep_numbers=True), producer="p")
    await again.publish(lines)
    assert await _queued(store) == [b'"one"', b'"two"', b'"three"', b'"four"']
    assert again.job.accepted == 2


async def test_the_same_input_under_the_same_name_is_published_once() -> None:
    """Numbers count good lines from the start of the input."""
    store = MemoryStore()
    for _ in range(2):
        await _Run(store, Order("news", keep_numbers=True), producer="p").publish([b"a", b"b"])
    assert await _queued(store) == [b'"a"', b'"b"']


async def test_a_name_that_is_forgotten_goes_on() -> None:
    """After an hour, or with an emptied server, the numbers begin where the lines go on."""
    store = _FlakyStore(lost_answers=1)
    run = _Run(store, Order("news", skip=2, keep_numbers=True), producer="p")
    await run.publish([b"one", b"two", b"three", b"four"])
    assert await _queued(store) == [b'"three"', b'"four"']
    assert run.sender.number == 5


async def test_an_interruption_keeps_what_was_accepted() -> None:
    """A full queue does not keep us from ending."""
    store = MemoryStore()
    run = _Run(store, Order("news"), entries_max=2)
    publishing = asyncio.ensure_future(run.publish([b"one", b"", b"two", b"three", b"four"]))
    await store.read({_PARTITION: "0-0"}, limit=10, block_s=5)
    run.stopping.set()
    await publishing
    assert run.job.accepted == 2
    assert run.job.line == 3


async def test_waiting_for_all_to_be_applied_sends_a_probe() -> None:
    """The probe takes no number: a second call with the same name goes on where this one ended."""
    store = MemoryStore()
    run = _Run(store, Order("news", wait=True), producer="p")
    publishing = asyncio.ensure_future(run.publish([b"one"]))
    async with asyncio.timeout(5):
        [[first, *_]] = await store.read({_PARTITION: "0-0"}, limit=10, block_s=5)
        [[probe]] = await store.read({_PARTITION: first.id}, limit=10, block_s=5)
    assert b'"probe":true' in probe.meta
    assert run.sender.number == 2
    run.stopping.set()
    await publishing


async def test_a_rate_holds_messages_back() -> None:
    """`--rate` offers no more than that, from the first message on."""
    store = MemoryStore()
    run = _Run(store, Order("news", rate=200))
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    await run.publish([b"%d" % number for number in range(41)])
    assert loop.time() - start_s >= 0.14


def test_refusals_are_shown_up_to_a_limit_and_all_counted() -> None:
    """A file of blank lines does not flood the terminal."""
    said = io.StringIO()
    display = Display(Console(file=said, width=200), live=False)
    for line in range(1, 1001):
        display.refuse(line, "empty line")
    assert display.refused == 1000
    assert said.getvalue().count("\n") == REFUSALS_SHOWN_MAX + 1
