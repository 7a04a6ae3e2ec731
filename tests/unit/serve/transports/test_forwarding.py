"""Frames that find their session by name, at this edge or at another one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from actors.errors import UnavailableError
from actors.pacing import Backoff
from actors.store.interface_box import NOTES_MAX
from actors.store.memory.box import MemoryBoxes
from actors.store.memory.store import MemoryStore
from serve.transports.forwarding import SENDING_MAX, Emulation

QUICK = Backoff(0.001, 0.001)


class Session:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.changed = asyncio.Event()

    def offer(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.changed.set()

    async def until(self, count: int) -> list[bytes]:
        """Wait for so many frames."""
        async with asyncio.timeout(5):
            while len(self.frames) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.frames


class Boxes(MemoryBoxes):
    """Boxes whose server can be away, emptied, or slow to answer."""

    def __init__(self) -> None:
        store = MemoryStore()
        super().__init__(clock=lambda: 0.0, wait_for=store._wait_for, tell=store._tell)
        self.away = False
        self.open_calls = asyncio.Semaphore(0)
        self.answering = asyncio.Event()
        self.answering.set()

    async def open(self, edge: str, *, ttl_s: float) -> None:
        await super().open(edge, ttl_s=ttl_s)
        self.open_calls.release()

    async def post(self, edge: str, notes: Sequence[bytes]) -> int | None:
        await self.answering.wait()
        if self.away:
            raise UnavailableError("away")
        return await super().post(edge, notes)

    async def take(self, edge: str, *, limit: int, block_s: float) -> list[bytes]:
        if self.away:
            raise UnavailableError("away")
        return await super().take(edge, limit=limit, block_s=min(block_s, 0.01))

    def forget(self) -> None:
        """Lose everything."""
        self._open_until.clear()
        self._notes.clear()


@asynccontextmanager
async def running(
    boxes: Boxes, *nodes: str, clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[list[Emulation]]:
    """One for each edge, all of them known."""
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        found = []
        for node in nodes:
            emulation = Emulation(boxes, node, clock=clock, backoff=QUICK)
            emulation.start()
            stack.push_async_callback(emulation.close)
            await boxes.open_calls.acquire()
            found.append(emulation)
        yield found


async def test_own_session_gets_a_frame_at_once() -> None:
    """Without a round trip, and before the call returns."""
    emulation, session = Emulation(Boxes(), "e1"), Session()
    emulation.add("s", session)
    assert await emulation.send("e1", "s", b"1")
    emulation.remove("s")
    assert await emulation.send("e1", "s", b"2")
    assert session.frames == [b"1"]


async def test_frames_reach_the_session_of_another_edge_in_order() -> None:
    """Also those that are sent while others are under way, and more than go into one call."""
    boxes, session = Boxes(), Session()
    async with running(boxes, "e1", "e2") as (one, two):
        two.add("s", session)
        frames = [b"%d" % number for number in range(250)]
        boxes.answering.clear()
        sending = [asyncio.create_task(one.send("e2", "s", frame)) for frame in frames[:10]]
        await asyncio.sleep(0)
        sending += [asyncio.create_task(one.send("e2", "s", frame)) for frame in frames[10:]]
        boxes.answering.set()
        assert await asyncio.gather(*sending) == [True] * 250
        assert await session.until(250) == frames


@pytest.mark.parametrize("node", ["e9", "", "e{1}", "x" * 65])
async def test_unknown_edge_is_told(node: str) -> None:
    """Whatever a client may write there."""
    async with running(Boxes(), "e1") as (one,):
        assert not await one.send(node, "s", b"1")


async def test_unknown_session_makes_no_difference() -> None:
    """Nor does a note that no edge of ours has written: what comes next is taken."""
    boxes, session = Boxes(), Session()
    async with running(boxes, "e1", "e2") as (one, two):
        two.add("s", session)
        assert await one.send("e2", "who", b"1")
        await boxes.post("e2", [b"nonsense"])
        assert await one.send("e2", "s", b"2")
        assert await session.until(1) == [b"2"]
        two.check()


async def test_edge_that_has_ended_is_unknown() -> None:
    """At once, if it could say so."""
    async with running(Boxes(), "e1", "e2") as (one, two):
        await two.close()
        assert not await one.send("e2", "s", b"1")


async def test_server_that_is_away_is_told_and_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever sends meanwhile may try again; what comes afterwards is taken.

    Which server it is stands in the log alone, once for each time that it goes away.
    """
    boxes, session = Boxes(), Session()
    async with running(boxes, "e1", "e2") as (one, two):
        two.add("s", session)
        for _ in range(2):
            boxes.away = True
            for _ in range(3):
                with pytest.raises(UnavailableError) as told:
                    await one.send("e2", "s", b"1")
                assert str(told.value) == "commands cannot be passed on now"
            boxes.away = False
            assert await one.send("e2", "s", b"2")
        assert await session.until(2) == [b"2", b"2"]
    logged = [r for r in caplog.records if r.message == "commands cannot be passed on"]
    assert [vars(record)["why"] for record in logged] == ["away", "away"]


async def test_server_that_was_emptied_is_told_again_who_is_there() -> None:
    """After it was away at once, and in any case at the next renewal."""
    boxes, now = Boxes(), [0.0]
    async with running(boxes, "e1", clock=lambda: now[0]) as (one,):
        boxes.forget()
        now[0] += 10.0
        await boxes.open_calls.acquire()
        boxes.forget()
        boxes.away = True
        while one._renew_at != 0.0:
            await asyncio.sleep(0)
        boxes.away = False
        await boxes.open_calls.acquire()


async def test_full_box_refuses() -> None:
    """Nothing that was accepted before is lost for it."""
    boxes = Boxes()
    async with running(boxes, "e1") as (one,):
        await boxes.open("slow", ttl_s=60)
        await boxes.post("slow", [b"x"] * (NOTES_MAX - 1))
        first, second = await asyncio.gather(
            one.send("slow", "s", b"1"), one.send("slow", "s", b"2"), return_exceptions=True
        )
    assert first is True
    assert isinstance(second, UnavailableError)


async def test_only_so_many_frames_wait_here() -> None:
    """One more is refused, and so are those that wait when the edge closes."""
    boxes = Boxes()
    async with running(boxes, "e1") as (one,):
        boxes.answering.clear()
        first = asyncio.create_task(one.send("e2", "s", b"x"))
        while not one._sending:
            await asyncio.sleep(0)
        while one._sending:  # Until it is under way.
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(one.send("e2", "s", b"x")) for _ in range(SENDING_MAX)]
        while len(one._sending) < SENDING_MAX:
            await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="too many"):
            await one.send("e2", "s", b"x")
        await one.close()
        results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)


async def test_broken_one_fails_its_check() -> None:
    """What cannot be foreseen ends the task, and is told to whoever checks."""

    class Broken(Boxes):
        async def take(self, edge: str, *, limit: int, block_s: float) -> list[bytes]:
            raise RuntimeError("broken")

    async with running(Broken(), "e1") as (one,):
        await asyncio.wait(one._tasks, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(RuntimeError, match="broken"):
            one.check()
