"""Lines on their way in: read without blocking the loop, cut, and judged one by one."""

import asyncio
import codecs
import enum
import os
import threading
from collections import deque
from typing import Final

from actors.errors import MessageError
from actors.message import decode_json, encode_json

_CHUNK_BYTES: Final = 1 << 16
_CHUNKS_MAX: Final = 16


class Form(enum.Enum):
    """How a line becomes the data of a message."""

    AUTO = "auto"
    """JSON as it is; anything else becomes a JSON string."""
    JSON = "json"
    """JSON as it is; anything else is refused."""
    TEXT = "text"
    """Every line becomes a JSON string, also one that looks like JSON."""


def judge(line: bytes, form: Form, *, bytes_max: int) -> bytes:
    """Return the data that a line stands for, as JSON text.

    Blanks around JSON, and a carriage return at the line's end, are not part of it.

    Raises:
        MessageError: The line is empty, not UTF-8, not JSON where it must be, or too long.
    """
    text = line.strip()
    if not text:
        raise MessageError("empty line")
    if len(text) > bytes_max:
        raise MessageError(f"longer than {bytes_max} bytes (queue.message_bytes_max)")
    data = None if form is Form.TEXT else _as_json(text, required=form is Form.JSON)
    if data is None:
        data = _as_string(line.rstrip(b"\r\n"))
    if len(data) > bytes_max:
        raise MessageError(f"longer than {bytes_max} bytes as JSON (queue.message_bytes_max)")
    return data


def _as_json(text: bytes, *, required: bool) -> bytes | None:
    try:
        decode_json(text)
    except MessageError as error:
        if required:
            raise MessageError(f"not JSON: {error.__cause__ or error}") from error
        return None
    return text


def _as_string(line: bytes) -> bytes:
    try:
        return encode_json(line.decode())
    except UnicodeDecodeError as error:
        raise MessageError(f"not UTF-8: byte {error.start + 1} of the line") from error


class Splitter:
    """Cuts chunks of a byte stream into lines, keeping at most `line_bytes_max` bytes of each.

    The rest of a longer line is thrown away as it comes, so that input without any line break
    takes no more memory than that. A byte order mark at the start is dropped.
    """

    def __init__(self, *, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = b""
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without their ends."""
        if not self._begun:
            chunk = self._rest + chunk
            self._rest = b""
            if len(chunk) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(chunk):
                self._rest = chunk
                return []
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
            self._begun = True
        first, *others = chunk.split(b"\n")
        # Joined to what is kept already, then cut: at most one chunk more than the limit.
        lines = [(self._rest + first)[: self._line_bytes_max], *others]
        self._rest = lines.pop()[: self._line_bytes_max]
        return lines

    def end(self) -> list[bytes]:
        """Return the last line, where it has no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class LineReader:
    """Lines of a file descriptor, read by a thread of its own.

    The thread waits when 1 MiB is not taken yet. It is a daemon: it may hang in a read of a
    terminal or a silent pipe, and must not keep the process. Belongs to one event loop.
    """

    def __init__(self, descriptor: int, *, line_bytes_max: int) -> None:
        self._descriptor = descriptor
        self._splitter = Splitter(line_bytes_max=line_bytes_max)
        self._lines: deque[bytes] = deque()
        self._chunks: deque[bytes] = deque()
        self._room = threading.Semaphore(_CHUNKS_MAX)
        self._arrived = asyncio.Event()
        self._ended = False
        self._stopped = False
        self._error: OSError | None = None

    def start(self) -> None:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="read lines", daemon=True).start()

    def stop(self) -> None:
        """Let `take` return nothing from now on."""
        self._stopped = True
        self._arrived.set()

    async def take(self, limit: int) -> list[bytes]:
        """Return what is there, at least one line and at most `limit`; none: the input has ended.

        Raises:
            OSError: The descriptor cannot be read; what came before it has been returned.
        """
        self._cut_up_to(limit)
        while not (self._lines or self._ended or self._stopped):
            self._arrived.clear()
            await self._arrived.wait()
            self._cut_up_to(limit)
        if self._stopped:
            return []
        if self._ended and not self._lines and self._error is not None:
            raise self._error
        return [self._lines.popleft() for _ in range(min(limit, len(self._lines)))]

    def _cut_up_to(self, limit: int) -> None:
        while len(self._lines) < limit and self._chunks:
            self._cut(self._chunks.popleft())

    def _cut(self, chunk: bytes) -> None:
        if chunk:
            self._lines.extend(self._splitter.feed(chunk))
            self._room.release()
        else:
            self._lines.extend(self._splitter.end())
            self._ended = True

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        chunk = b"-"
        while chunk:
            self._room.acquire()
            try:
                chunk = os.read(self._descriptor, _CHUNK_BYTES)
            except OSError as error:
                self._error = error
                chunk = b""
            try:
                loop.call_soon_threadsafe(self._take_over, chunk)
            except RuntimeError:
                return  # the loop is closed: nobody wants more

    def _take_over(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._arrived.set()
