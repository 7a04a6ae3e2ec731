"""A bounded queue of blocks between a session and a sender that may wait."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from serve.protocol.messages import Close
from serve.session.connection import Connection

log = logging.getLogger(__name__)

_SEND_TIMEOUT_S: Final = 3.0
"""How long a client may take to read what is before the end."""


class Outlet:
    """The `Sink` of clients whose transport is written to by a task.

    While a send is under way, at most `bytes_max` bytes wait behind it; a client that lets more
    gather is too slow, and what waits is dropped. A sender that is free is given any amount: what
    one turn of the event loop brings says nothing about how the client reads.
    """

    def __init__(self, bytes_max: int) -> None:
        self.connection: Connection | None = None
        """To be set by whoever makes the outlet."""
        self.ended: Close | None = None
        self._bytes_max = bytes_max
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._sending = False
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()

    def write(self, block: bytes) -> None:
        """See `Sink.write`."""
        if self.ended is not None:
            return
        if self._sending and self.connection is not None:
            self._bytes += len(block)
            if self._bytes > self._bytes_max:
                self._blocks.clear()
                self.connection.slow()
                return
        self._blocks.append(block)
        self._news.set()

    def close(self, close: Close) -> None:
        """See `Sink.close`."""
        if self.ended is None:
            self.ended = close
            self._end.set()
            self._news.set()
            self._readable.set()

    def pause(self) -> None:
        """See `Sink.pause`."""
        self._readable.clear()

    def resume(self) -> None:
        """See `Sink.resume`."""
        self._readable.set()

    async def end(self) -> None:
        """Wait until it has `ended`."""
        await self._end.wait()

    async def readable(self) -> None:
        """Wait until more may be read from the client."""
        await self._readable.wait()

    async def take(self) -> list[bytes]:
        """Wait for blocks, and return all there are, in order. Empty: it has `ended`.

        They count as being sent until the next call.
        """
        self._sending = False
        while not self._blocks and self.ended is None:
            self._news.clear()
            await self._news.wait()
        blocks, self._blocks = self._blocks, []
        self._bytes = 0
        self._sending = True
        return blocks


async def run(
    outlet: Outlet,
    connection: Connection,
    *,
    send: Coroutine[Any, Any, None],
    receive: Coroutine[Any, Any, None],
) -> None:
    """Run a connection's two directions until it is over.

    Args:
        outlet: Its outlet.
        connection: The connection; is told that it is `lost` before this returns.
        send: Sends what the outlet has, and its end; it then gets some seconds to finish.
        receive: Returns when the client is gone. A side that only sends would not notice.
    """
    loop = asyncio.get_running_loop()
    sender, receiver = loop.create_task(send), loop.create_task(receive)
    ended = loop.create_task(outlet.end())
    tasks = (sender, receiver, ended)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not (sender.done() or receiver.done()):
            await asyncio.wait((sender,), timeout=_SEND_TIMEOUT_S)
    finally:
        connection.lost()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                # Mostly a client that went while it was written to.
                log.info("connection broke off", extra={"why": repr(result)})
