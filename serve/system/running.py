"""What a system that runs leaves in its data directory: its secrets, its address, its lock.

Everything here is readable by the owner only. Linux and macOS.
"""

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from actors.errors import SettingsError
from actors.settings.tree import Settings

_LOCK_WAIT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be known to others. The text form hides the values."""

    api_key: str = field(repr=False)
    token_secret: str = field(repr=False)
    redis_password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Running:
    """Where a system that runs can be reached.

    Attributes:
        pid: Of `raywire up`.
        listen: `host:port` of the edges' own listener.
        serve_listen: `host:port` of Ray Serve's HTTP.
        redis_url: With the password.
        app: First part of every key.
        partitions: Of the queue.
        started_at_s: Seconds since the epoch.
        control: Path of the socket by which it is asked for things; see `serve.system.control`.
    """

    pid: int
    listen: str
    serve_listen: str
    redis_url: str = field(repr=False)
    app: str
    partitions: int
    started_at_s: float
    control: str = ""


def ensure_secrets(settings: Settings) -> Secrets:
    """Return the secrets in force: those of the settings, else those kept in `data`.

    The first call for a data directory makes them; of two at the same time, one wins and both
    return the same.

    Raises:
        SettingsError: The directory cannot be written, or the file in it is damaged.
    """
    kept = _kept_secrets(settings.data)
    given = settings.auth
    return Secrets(
        api_key=given.api_key.get_secret_value() if given.api_key else kept.api_key,
        token_secret=(
            given.token_secret.get_secret_value() if given.token_secret else kept.token_secret
        ),
        redis_password=kept.redis_password,
    )


def write_running(data: Path, running: Running) -> None:
    """Tell other commands where the system is. Call it under the directory's `DataLock`."""
    _make_directory(data)
    made = _write_aside(data, json.dumps(asdict(running)))
    made.replace(data / "run.json")


def remove_running(data: Path) -> None:
    """Take back what `write_running` told."""
    (data / "run.json").unlink(missing_ok=True)


def was_killed(data: Path) -> bool:
    """Return whether the last system of a data directory ended without a word.

    Call it under the directory's `DataLock`: else it may just be running.
    """
    return (data / "run.json").exists()


def read_running(data: Path) -> Running | None:
    """Return where the system of a data directory runs; None: it does not.

    What a process that died has left is not believed: the lock dies with its holder.
    """
    try:
        text = (data / "run.json").read_text("utf-8")
        found = json.loads(text)
        running = Running(**{each.name: found[each.name] for each in fields(Running)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return running if _is_locked(data / "lock") else None


class DataLock:
    """The right to run on a data directory, held by one process at a time.

    The kernel gives it back when the process ends, however it ends.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            SettingsError: Another process has it; the text names it.
        """
        _make_directory(self._data)
        fd = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(fd)
        except BaseException:
            os.close(fd)
            raise
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back. The file stays: removing it would open a race."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _take(self, fd: int) -> None:
        # `read_running` holds the lock shared for a moment, so one refusal says nothing.
        give_up_at = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= give_up_at:
                    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                    raise SettingsError(
                        f"data: {self._data} is in use by another `raywire up` (pid {pid}): "
                        f"stop that one (kill {pid}), or give another directory with --data"
                    ) from error
                time.sleep(0.02)
            else:
                return


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _kept_secrets(data: Path) -> Secrets:
    path = data / "secrets.json"
    with contextlib.suppress(FileNotFoundError):
        return _read_secrets(path)
    _make_directory(data)
    new = Secrets(*(secrets.token_urlsafe(32) for _ in fields(Secrets)))
    made = _write_aside(data, json.dumps(asdict(new)))
    try:
        # A link, not a rename: it fails where another process was faster.
        os.link(made, path)
    except FileExistsError:
        return _read_secrets(path)
    finally:
        made.unlink()
    return new


def _read_secrets(path: Path) -> Secrets:
    remedy = "mend or delete it (deleting it makes new secrets, and old client tokens void)"
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        values = [found[each.name] for each in fields(Secrets)]
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise SettingsError(f"data: {path.parent} is no directory: give one with --data") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"data: {path} cannot be read ({type(error).__name__}): {remedy}"
        ) from error
    if not all(isinstance(value, str) and value for value in values):
        raise SettingsError(f"data: {path} holds something other than secrets: {remedy}")
    return Secrets(*values)


def _make_directory(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"data: {data} cannot be made ({error.strerror}): give a directory you may write, "
            "with --data"
        ) from error
    if not os.access(data, os.W_OK | os.X_OK):
        raise SettingsError(f"data: {data} cannot be written: give another with --data")


def _write_aside(data: Path, text: str) -> Path:
    """Write a file of its own name, 0600, that a rename or link then puts in its place."""
    made: Path | None = None
    try:
        fd, name = tempfile.mkstemp(dir=data, prefix=".new-")
        made = Path(name)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if made is not None:
            made.unlink(missing_ok=True)
        raise SettingsError(
            f"data: {data} cannot be written ({error.strerror}): free space, or give another "
            "directory with --data"
        ) from error
    return made
