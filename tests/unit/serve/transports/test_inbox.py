"""Frames of clients that nobody can hold back."""

import asyncio
import json
from typing import Any

from actors.message import Ack, Meta
from actors.settings.client import ClientSettings
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import History
from actors.store.memory.store import MemoryStore
from serve.hub.hub import Hub
from serve.transports.inbox import INBOX_BYTES_MAX, Inbox
from serve.transports.sse import SSE

SETTINGS = Settings(
    client=ClientSettings(insecure=True),
    channels=ChannelSettings(history_size=10, history_ttl_s=60),
)


class Store(MemoryStore):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = asyncio.Event()

    async def history(self, channel: str, **options: Any) -> History:
        await self.answering.wait()
        return await super().history(channel, **options)


async def refuse(channel: str, data: bytes, meta: Meta) -> Ack:
    raise AssertionError


def frame(number: int) -> bytes:
    return json.dumps({"id": number, "history": {"channel": "a"}}).encode()


class Client:
    """One whose session waits for the answer to its first command."""

    def __init__(self) -> None:
        self.store = Store()
        self.inbox = Inbox(2**20)
        self.hub = Hub(SETTINGS, self.store, refuse, node="e1")
        self.inbox.connection = self.hub.connect(self.inbox, SSE.wire, emulated=True)

    async def hear(self, count: int) -> list[Any]:
        """Return the next messages."""
        found: list[Any] = []
        async with asyncio.timeout(5):
            while len(found) < count:
                for block in await self.inbox.take():
                    found += [json.loads(event[6:]) for event in block.decode().split("\n\n")[:-1]]
        return found

    async def wait(self) -> None:
        """Connect, and have two commands wait."""
        self.inbox.offer(b'{"id":1,"connect":{}}')
        (reply,) = await self.hear(1)
        assert reply["connect"]["node"] == "e1"
        assert reply["connect"]["session"] not in ("", reply["connect"]["client"])
        self.inbox.offer(frame(2) + b"\n" + frame(3))

    async def end(self) -> None:
        assert self.inbox.connection is not None
        self.inbox.connection.lost()
        self.store.answering.set()
        await self.hub.close()


async def test_frames_wait_while_the_session_is_busy() -> None:
    """Then they are taken in the order in which they came."""
    client = Client()
    await client.wait()
    for number in range(4, 100):
        client.inbox.offer(frame(number))
    client.store.answering.set()
    assert [reply["id"] for reply in await client.hear(98)] == list(range(2, 100))
    client.inbox.offer(frame(100))
    assert (await client.hear(1))[0]["id"] == 100
    await client.end()


async def test_client_that_sends_too_much_is_closed() -> None:
    """3013: it may come back."""
    client = Client()
    await client.wait()
    size = INBOX_BYTES_MAX // 20
    for _ in range(19):
        client.inbox.offer(b"x" * size)
    assert client.inbox.ended is None
    client.inbox.offer(b"x" * size)
    assert client.inbox.ended is not None
    assert client.inbox.ended.code == 3013
    client.inbox.offer(frame(4))
    assert not client.inbox._frames
    await client.end()


async def test_bad_frame_among_those_that_wait_ends_the_session() -> None:
    """As soon as it is looked at; those behind it are dropped."""
    client = Client()
    await client.wait()
    client.inbox.offer(b"nonsense")
    client.inbox.offer(frame(4))
    client.store.answering.set()
    assert [reply["id"] for reply in await client.hear(1)] == [2]
    assert await client.inbox.take() == []
    assert client.inbox.ended is not None
    assert client.inbox.ended.code == 3501
    await client.end()
