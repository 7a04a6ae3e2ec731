"""The way to ask a running `raywire up` for something: a Unix socket that its owner may use.

One JSON object a line. The request: `{"ask": "reload"}`. The answers, in this order: any number of
`{"event": "progress", "text": ...}`, then one `{"event": "done", ...}` or
`{"event": "error", "kind": "settings" or "unavailable", "text": ...}`, then the end.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from actors.errors import SettingsError, UnavailableError

log = logging.getLogger(__name__)

BUSY: Final = "a reload is under way: ask again when it has ended"
_LOOK_EVERY_S: Final = 0.2
_PEER_S: Final = 2.0
"""How long a peer may take to send its line, or to take one of ours."""
_LINE_BYTES_MAX: Final = 65_536
# The shortest limit of the systems we run on is 104 bytes, the final zero among them.
_PATH_BYTES_MAX: Final = 100


class Ask:
    """A request under way. Whoever takes it ends it, with `done` or `fail`.

    An asker that has gone away is not missed: its request goes on.
    """

    def __init__(self, request: dict[str, Any], connection: socket.socket) -> None:
        self.request = request
        self._connection = connection
        self.ended = threading.Event()

    def tell(self, text: str) -> None:
        """Say what is being done now."""
        self._send({"event": "progress", "text": text})

    def done(self, facts: dict[str, Any]) -> None:
        """End it with what came of it."""
        self._end({"event": "done", **facts})

    def fail(self, error: Exception) -> None:
        """End it with an error, which the asker raises again."""
        kind = "settings" if isinstance(error, SettingsError) else "unavailable"
        self._end({"event": "error", "kind": kind, "text": str(error)})

    def _end(self, event: dict[str, Any]) -> None:
        if not self.ended.is_set():
            self._send(event)
            self._connection.close()
            self.ended.set()

    def _send(self, event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(event).encode() + b"\n")


class Control:
    """Listens, in a thread of its own, and holds one request at a time for `take`.

    Others are refused at once while it is under way. Leaving the context ends the thread, and the
    request that is not ended yet with an error.

    Attributes:
        path: Of the socket; only the owner may use it.
    """

    def __init__(self, data: Path) -> None:
        """Prepare. Enter it under the directory's `DataLock`.

        Args:
            data: Where the socket is made; in a temporary directory where that path is too long.
        """
        self.path = data / "control.sock"
        self._temporary: Path | None = None
        self._stopping = threading.Event()
        self._ask: Ask | None = None
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Listen."""
        if len(os.fsencode(self.path)) > _PATH_BYTES_MAX:
            self._temporary = Path(tempfile.mkdtemp(prefix="raywire-"))
            self.path = self._temporary / "control.sock"
        # One that a process left which died; ours is the lock.
        self.path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(str(self.path))
            self.path.chmod(0o600)
            listening.listen(8)
        except BaseException:
            listening.close()
            raise
        listening.settimeout(_LOOK_EVERY_S)
        self._thread = threading.Thread(
            target=self._listen, args=(listening,), name="control", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, and what is under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.path.unlink(missing_ok=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if self._ask is not None:
            self._ask.fail(UnavailableError("the system is stopping"))

    def take(self) -> Ask | None:
        """Return a request that has come, once; None: there is none."""
        if not self._waiting.is_set():
            return None
        self._waiting.clear()
        return self._ask

    def _listen(self, listening: socket.socket) -> None:
        with listening:
            while not self._stopping.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                except OSError as error:
                    log.warning("control socket failed", extra={"why": str(error)})
                    self._stopping.wait(_LOOK_EVERY_S)
                    continue
                connection.settimeout(_PEER_S)
                self._receive(connection)

    def _receive(self, connection: socket.socket) -> None:
        request = _read_request(connection)
        ask = Ask(request or {}, connection)
        if request is None or request.get("ask") != "reload":
            ask.fail(SettingsError("this `raywire up` does not know the request: use its version"))
        elif self._ask is not None and not self._ask.ended.is_set():
            ask.fail(UnavailableError(BUSY))
        else:
            self._ask = ask
            self._waiting.set()


def ask(path: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Send a request; give the `progress` events as they come, and `done` at the end.

    Raises:
        SettingsError: What was asked for is refused.
        UnavailableError: Nobody answers, or not now.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    event: dict[str, Any] = json.loads(line)
                    _raise_error(event)
                    yield event
                    if event["event"] == "done":
                        return
    except OSError as error:
        raise UnavailableError(
            f"`raywire up` cannot be asked by {path} ({error.strerror})"
        ) from error
    raise UnavailableError("`raywire up` ended before it answered")


def _raise_error(event: dict[str, Any]) -> None:
    if event["event"] == "error":
        kind = SettingsError if event["kind"] == "settings" else UnavailableError
        raise kind(event["text"])


def _read_request(connection: socket.socket) -> dict[str, Any] | None:
    text = b""
    try:
        while b"\n" not in text:
            part = connection.recv(4096)
            if not part or len(text) > _LINE_BYTES_MAX:
                return None
            text += part
        request = json.loads(text)
    except (OSError, ValueError):
        return None
    return request if isinstance(request, dict) else None
