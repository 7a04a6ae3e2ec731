"""An outlet whose client is heard, too: by requests of their own, which a session takes in turn."""

from collections import deque
from typing import Final

from serve.protocol.messages import Close, DisconnectCode
from serve.transports.outlet import Outlet

INBOX_BYTES_MAX: Final = 2**20
"""Bytes of frames that may wait while a client's session is busy."""
_FRAME_COST: Final = 64
"""Counted for each frame beside its bytes."""


class Inbox(Outlet):
    """The `Sink` of clients that send by requests of their own.

    No such request can be held back, for it is answered at once. So frames wait here while the
    session is busy; a client that sends more than `INBOX_BYTES_MAX` meanwhile is closed (3013).
    """

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self._frames: deque[bytes] = deque()
        self._frames_bytes = 0
        self._busy = False

    def offer(self, frame: bytes) -> None:
        """Take a frame, in the order of the calls. Dropped once the connection has ended."""
        if self.connection is None or self.ended is not None:
            return
        if not self._busy:
            self.connection.receive(frame)
            return
        self._frames.append(frame)
        self._frames_bytes += len(frame) + _FRAME_COST
        if self._frames_bytes > INBOX_BYTES_MAX:
            self.connection.shut(DisconnectCode.TOO_MANY_REQUESTS)

    def close(self, close: Close) -> None:
        """See `Sink.close`."""
        super().close(close)
        self._frames.clear()

    def pause(self) -> None:
        """See `Sink.pause`."""
        super().pause()
        self._busy = True

    def resume(self) -> None:
        """See `Sink.resume`."""
        super().resume()
        self._busy = False
        while self._frames and not self._busy and self.connection is not None:
            frame = self._frames.popleft()
            self._frames_bytes -= len(frame) + _FRAME_COST
            self.connection.receive(frame)
