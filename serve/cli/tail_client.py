"""The connection of `raywire tail`: WebSocket, and another one when it breaks."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from actors.errors import RaywireError, SettingsError, UnavailableError
from actors.pacing import Backoff
from serve.cli.tail_print import Printer
from serve.cli.tail_protocol import Position, Step, Subscriber

Read = Callable[[str, int | None], Awaitable[Position]]
"""Channel, offset -> what comes after it, or the first part of that; None -> the position alone."""

PATH: Final = "/connection/websocket"
"""Where edges have the client protocol."""

_BACKOFF: Final = Backoff(first_s=0.2, max_s=10.0)
_OPEN_TIMEOUT_S: Final = 10.0
_TOO_BIG: Final = 1009
_HTTP_SERVER_ERROR: Final = 500


class Tail:
    """Shows what a subscriber receives, over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        subscriber: Subscriber,
        printer: Printer,
        *,
        count: int | None,
        token: Callable[[], str],
        read: Read | None = None,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            url: `ws://` or `wss://`.
            subscriber: What to follow.
            printer: Where publications go.
            count: End after so many publications; None: never.
            token: Makes a client token, or an empty one, for each connection.
            read: Reads history where the server does not let the client, but we may.
            notify: Told what the user should know.
            clock: Monotonic.
        """
        self._url = url
        self._subscriber = subscriber
        self._printer = printer
        self._left = count
        self._token = token
        self._read = read
        self._notify = notify
        self._clock = clock
        self._begun = False

    async def run(self) -> None:
        """Show as many publications as wanted. Cancel it to end earlier.

        Raises:
            UnavailableError: The first connection failed. Later ones are tried without end.
            MessageError, SettingsError: The server refuses for good.
            ReaderGoneError, OutputError: Nobody reads what is shown, or it cannot be written.
        """
        attempt = 0
        while self._left != 0:
            connected_at_s = self._clock()
            try:
                await self._follow()
            except UnavailableError as error:
                if not self._begun:
                    raise
                if self._clock() - connected_at_s > _OPEN_TIMEOUT_S:
                    attempt = 0
                wait_s = _BACKOFF.wait_s(attempt + 1)
                attempt += 1
                self._notify(f"{error}; connecting again in {wait_s:.1f} s")
                await asyncio.sleep(wait_s)

    async def _follow(self) -> None:
        """Live through one connection."""
        try:
            async with connect(
                self._url,
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=1,
                max_size=None,
                ping_interval=None,
                compression=None,
            ) as socket:
                await socket.send(self._subscriber.connect(self._token()), text=True)
                while self._left != 0:
                    await self._receive(socket)
        except ConnectionClosed as error:
            raise _closed(error) from error
        except InvalidStatus as error:
            status = error.response.status_code
            kind = UnavailableError if status >= _HTTP_SERVER_ERROR else SettingsError
            raise kind(f"{self._url} answered with HTTP status {status}{self._hint()}") from error
        except InvalidURI as error:
            raise SettingsError(f"--url {self._url}: write it as ws://host:port") from error
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            text = str(error) or type(error).__name__
            raise UnavailableError(f"{self._url} cannot be reached: {text}") from error

    def _hint(self) -> str:
        path = urlsplit(self._url).path
        return "" if path == PATH else f": {path} may be the wrong path, an edge's own is {PATH}"

    async def _receive(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.timeout(self._subscriber.silence_max_s):
                frame = await socket.recv()
        except TimeoutError as error:
            raise UnavailableError("the server is silent") from error
        await self._do(socket, self._subscriber.receive(frame))
        self._begun = True

    async def _do(self, socket: ClientConnection, step: Step) -> None:
        """Show and send what a step says, and what follows from reading history."""
        reads: deque[tuple[str, int | None]] = deque()
        while True:
            self._show(step)
            for command in step.send:
                await socket.send(command, text=True)
            reads += step.reads
            if self._read is None or not reads:
                return
            channel, offset = reads.popleft()
            step = self._subscriber.was_read(channel, await self._read(channel, offset))

    def _show(self, step: Step) -> None:
        for notice in step.notices:
            self._notify(notice)
        publications = step.publications[: self._left]
        if publications:
            self._printer.show(publications)
            if self._left is not None:
                self._left -= len(publications)


def _closed(error: ConnectionClosed) -> RaywireError:
    """Judge a close by its code: 3500-3999, 4500-4999 and 1009 are for good."""
    if error.rcvd is None:
        return UnavailableError("the connection broke")
    code, reason = error.rcvd.code, error.rcvd.reason
    text = f"the server closed the connection: {reason or 'no reason given'} ({code})"
    if 3500 <= code < 4000 or 4500 <= code < 5000 or code == _TOO_BIG:
        return SettingsError(text)
    return UnavailableError(text)
