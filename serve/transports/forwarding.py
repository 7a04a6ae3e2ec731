"""Brings what clients send by requests of their own to their sessions, at whichever edge those are.

A client of a one-way transport (SSE, HTTP streaming) names edge and session, both of which it was
told when it connected (https://centrifugal.dev/docs/transports/overview). The request may come to
any edge; this one leaves it in the box of the edge in question (`actors.store.interface_box`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from actors.errors import UnavailableError
from actors.pacing import Backoff
from actors.store.interface_box import Boxes

log = logging.getLogger(__name__)

SENDING_MAX: Final = 1_000
"""Frames of other edges' sessions that may wait here; one more is refused."""
_TTL_S: Final = 30.0
"""How long an edge that died is still known."""
_TAKE: Final = 100
"""Notes in one call."""
_BLOCK_S: Final = 1.0
_NODE_LENGTH_MAX: Final = 64


class Receiver(Protocol):
    """A session, as far as frames can be sent to it."""

    def offer(self, frame: bytes) -> None:
        """Take a frame. Does not block or raise."""
        ...


class _Note(msgspec.Struct, array_like=True, gc=False):
    session: str
    frame: bytes


class _Sending(msgspec.Struct, eq=False):
    node: str
    note: bytes
    done: asyncio.Future[bool]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Note).decode


class Emulation:
    """The sessions of this edge that are sent to by name, and the way to those of other edges.

    Frames that came to one edge for one session are taken in the order in which they came, each
    at most once: one that was accepted is lost where its session has ended, or its edge or Valkey
    died with it. The client's own time limit for replies covers that.
    """

    def __init__(
        self,
        boxes: Boxes,
        node: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            boxes: Of all edges. The store is closed by whoever made it.
            node: This edge's name.
            clock: Monotonic seconds.
            backoff: Waits while Valkey is away.
        """
        self.node = node
        self._boxes = boxes
        self._clock = clock
        self._backoff = Backoff() if backoff is None else backoff
        self._sessions: dict[str, Receiver] = {}
        self._sending: list[_Sending] = []
        self._news = asyncio.Event()
        self._renew_at = 0.0
        self._why = ""
        """Why the last frames could not be passed on; empty: they could."""
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    # --- life

    def start(self) -> None:
        """Begin to exchange frames with other edges, in tasks that `close` ends."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow(), name="emulation: take"),
            loop.create_task(self._send(), name="emulation: send"),
        ]

    def check(self) -> None:
        """Make sure that it lives.

        Raises:
            Exception: What ended one of its tasks.
        """
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def close(self) -> None:
        """Stop. Frames that still wait to be sent are refused, those in the box are gone."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        waiting, self._sending = self._sending, []
        _refuse(waiting, "the edge is closing")
        try:
            await self._boxes.close(self.node)
        except UnavailableError as error:
            log.debug("box not closed, it will expire", extra={"why": str(error)})

    # --- sessions

    def add(self, session: str, receiver: Receiver) -> None:
        """Know a session from now on, until `remove`."""
        self._sessions[session] = receiver

    def remove(self, session: str) -> None:
        """Forget a session: frames for it are dropped."""
        self._sessions.pop(session, None)

    async def send(self, node: str, session: str, frame: bytes) -> bool:
        """Give a frame to a session and return when it is accepted; False: there is no such edge.

        A session that the edge does not know makes no difference, as with Centrifugo.

        Raises:
            UnavailableError: Valkey is away, or too much waits already. The text is for clients.
        """
        if node == self.node:
            self._deliver(session, frame)
            return True
        if not node.isalnum() or len(node) > _NODE_LENGTH_MAX:
            return False
        if self._closing or len(self._sending) >= SENDING_MAX:
            raise UnavailableError("too many commands wait for other edges")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._sending.append(_Sending(node, _encode(_Note(session, frame)), done))
        self._news.set()
        return await done

    def _deliver(self, session: str, frame: bytes) -> None:
        receiver = self._sessions.get(session)
        if receiver is not None:
            receiver.offer(frame)

    # --- other edges

    async def _send(self) -> None:
        """Send what waits, one call at a time: two side by side could change places."""
        while not self._closing:
            await self._news.wait()
            self._news.clear()
            waiting, self._sending = self._sending, []
            nodes: dict[str, list[_Sending]] = {}
            for each in waiting:
                nodes.setdefault(each.node, []).append(each)
            try:
                for node, group in nodes.items():
                    for start in range(0, len(group), _TAKE):
                        await self._post(node, group[start : start + _TAKE])
            finally:
                _refuse(waiting, "the edge is closing")

    async def _post(self, node: str, group: Sequence[_Sending]) -> None:
        try:
            accepted = await self._boxes.post(node, [each.note for each in group])
        except UnavailableError as error:
            if str(error) != self._why:
                self._why = str(error)
                log.warning("commands cannot be passed on", extra={"why": self._why})
            # Not why: clients hear it, and it names the server.
            _refuse(group, "commands cannot be passed on now")
            return
        self._why = ""
        count = len(group) if accepted is None else accepted
        for each in group[:count]:
            if not each.done.done():
                each.done.set_result(accepted is not None)
        _refuse(group[count:], "that edge does not keep up")

    async def _follow(self) -> None:
        failures = 0
        # The flag as well: see `FeedFollower`.
        while not self._closing:
            try:
                await self._renew()
                notes = await self._boxes.take(self.node, limit=_TAKE, block_s=_BLOCK_S)
            except UnavailableError as error:
                failures += 1
                if failures == 1 and not self._closing:
                    log.warning("commands cannot be taken", extra={"why": str(error)})
                self._renew_at = 0.0  # The server that comes back may have forgotten us.
                await asyncio.sleep(self._backoff.wait_s(failures))
                continue
            failures = 0
            for note in notes:
                self._take(note)

    async def _renew(self) -> None:
        now = self._clock()
        if now >= self._renew_at:
            await self._boxes.open(self.node, ttl_s=_TTL_S)
            self._renew_at = now + _TTL_S / 3

    def _take(self, note: bytes) -> None:
        try:
            found = _decode(note)
        except msgspec.DecodeError as error:
            log.warning("note not understood", extra={"why": str(error)})
            return
        self._deliver(found.session, found.frame)


def _refuse(group: Sequence[_Sending], why: str) -> None:
    for each in group:
        if not each.done.done():
            each.done.set_exception(UnavailableError(why))
