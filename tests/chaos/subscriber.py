"""A subscriber over a real WebSocket, which comes back and recovers after every break.

It speaks Centrifugo's client protocol v2 in JSON
(https://centrifugal.dev/docs/transports/client_protocol), and keeps all that comes.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from actors.pacing import Backoff
from tests.chaos.pulse import Pulse
from tests.chaos.trail import Trail, mark

_SILENCE_MAX_S: Final = 8.0
"""More than two pings, and the longest freeze."""
_TEMPORARY: Final = frozenset({100, 111})
_BACKOFF: Final = Backoff(first_s=0.05, max_s=1.0)


class _Data(msgspec.Struct, rename={"source": "from"}):
    source: str
    n: int
    due_s: float


class _Publication(msgspec.Struct):
    data: _Data
    offset: int = 0


class _Unsubscribe(msgspec.Struct):
    code: int


class _Push(msgspec.Struct):
    channel: str = ""
    pub: _Publication | None = None
    unsubscribe: _Unsubscribe | None = None


class _Subscribed(msgspec.Struct):
    offset: int = 0
    epoch: str = ""
    recovered: bool = False
    publications: list[_Publication] = []


class _Error(msgspec.Struct):
    code: int


class _Reply(msgspec.Struct):
    id: int = 0
    error: _Error | None = None
    push: _Push | None = None
    connect: dict[str, msgspec.Raw] | None = None
    subscribe: _Subscribed | None = None


_decode: Final = msgspec.json.Decoder(_Reply).decode
_encode: Final = msgspec.json.Encoder().encode


class _BreakError(Exception):
    """Connect again."""


class Subscriber:
    """Follows channels, connection after connection.

    Attributes:
        trails: What came, by channel.
        told: How often the server said that it could not recover a channel.
        breaks: How often the connection was lost.
        troubles: What no server should say.
    """

    def __init__(self, name: str, channels: Sequence[str], url: str, pulse: Pulse) -> None:
        self.name = name
        self.trails = {channel: Trail() for channel in channels}
        self.told = 0
        self.breaks = 0
        self.troubles: list[str] = []
        self._url = url
        self._pulse = pulse
        self._asked: dict[int, str] = {}
        self._next_id = 1
        self._socket: ClientConnection | None = None
        self._failures = 0
        self._moved = asyncio.Event()
        for channel in channels:
            if channel.startswith("probe."):
                pulse.expect(name, channel)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with connect(
                    self._url,
                    open_timeout=5,
                    close_timeout=1,
                    max_size=None,
                    ping_interval=None,
                    compression=None,
                ) as self._socket:
                    await self._follow(self._socket)
            except (OSError, WebSocketException, TimeoutError, EOFError, _BreakError) as error:
                self._judge(error)
            self._socket = None
            self.breaks += 1
            self._failures += 1
            await asyncio.sleep(_BACKOFF.wait_s(self._failures))

    def cut(self) -> None:
        """Break the connection without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def reach(self, tops: dict[str, int]) -> None:
        """Wait until every channel has come as far as to these offsets."""
        while self.behind(tops):
            self._moved.clear()
            await self._moved.wait()

    def behind(self, tops: dict[str, int]) -> list[str]:
        """Return the channels that have not come so far."""
        return [c for c, trail in self.trails.items() if (trail.position or (-1, ""))[0] < tops[c]]

    # --- one connection

    async def _follow(self, socket: ClientConnection) -> None:
        self._asked.clear()
        await socket.send(_encode({"id": self._id(), "connect": {}}), text=True)
        while True:
            async with asyncio.timeout(_SILENCE_MAX_S):
                frame = await socket.recv(decode=False)
            for line in frame.split(b"\n"):
                if line.strip():
                    for command in self._take(_decode(line)):
                        await socket.send(command, text=True)

    def _take(self, reply: _Reply) -> list[bytes]:
        """Note what came, and return what is to be sent."""
        self._moved.set()
        if reply.push is not None:
            return self._pushed(reply.push)
        if reply.connect is not None:
            return [self._subscribe(channel) for channel in self.trails]
        if reply.subscribe is not None:
            self._subscribed(self._asked.pop(reply.id), reply.subscribe)
            self._failures = 0
            return []
        if reply.error is not None:
            if reply.error.code not in _TEMPORARY:
                self.troubles.append(f"{self.name}: error {reply.error.code}")
            raise _BreakError
        return [b"{}"]

    def _pushed(self, push: _Push) -> list[bytes]:
        if push.pub is not None:
            self._came(push.channel, push.pub)
        elif push.unsubscribe is not None:
            return [self._subscribe(push.channel)]
        return []

    def _subscribe(self, channel: str) -> bytes:
        position = self.trails[channel].position
        request: dict[str, object] = {"channel": channel}
        if position is not None:
            request |= {"recover": True, "offset": position[0], "epoch": position[1]}
        number = self._id()
        self._asked[number] = channel
        return _encode({"id": number, "subscribe": request})

    def _subscribed(self, channel: str, answer: _Subscribed) -> None:
        trail = self.trails[channel]
        if not answer.recovered:
            self.told += trail.position is not None
            trail.begin(answer.offset, answer.epoch)
        for publication in answer.publications:
            self._came(channel, publication)

    def _came(self, channel: str, publication: _Publication) -> None:
        data = publication.data
        self.trails[channel].add(publication.offset, mark(data.source, data.n))
        if channel.startswith("probe."):
            self._pulse.note(self.name, channel, data.due_s)

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _judge(self, error: Exception) -> None:
        if not isinstance(error, ConnectionClosed) or error.rcvd is None:
            return
        code = error.rcvd.code
        # Those after which a client must not come back.
        if 3500 <= code < 4000 or 4500 <= code < 5000:
            self.troubles.append(f"{self.name}: closed with {code} {error.rcvd.reason}")
