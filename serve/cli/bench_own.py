"""A system of a benchmark's own: `raywire up` as a process, on temporary data."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from actors.errors import UnavailableError

_STOP_WITHIN_S: Final = 60.0


def own_settings(*, replicas: int, nozzles: int) -> dict[str, Any]:
    """Return settings like the demo's: a transform, and history."""
    return {
        "channels": {"history_size": 1000, "history_ttl_s": 300, "force_recovery": True},
        "stages": [
            {
                "name": "measure",
                "replicas": replicas,
                "transforms": [{"use": "serve.cli.bench_transform:measure"}],
            }
        ],
        "nozzle": {"count": nozzles},
        "edge": {"listen": _free_address(), "serve_listen": _free_address()},
    }


@contextlib.contextmanager
def own_system(
    settings: Path | None, *, replicas: int, nozzles: int
) -> Iterator[tuple[Path, Path]]:
    """Run a system until the context ends; yields its settings file and its data directory.

    Args:
        settings: Instead of our own.
        replicas: Transformers.
        nozzles: Nozzles.

    Raises:
        UnavailableError: It did not start. What it said is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="raywire-bench-") as directory:
        file, data = Path(directory) / "raywire.yaml", Path(directory) / "data"
        # JSON is YAML.
        file.write_text(json.dumps(own_settings(replicas=replicas, nozzles=nozzles)))
        used = settings or file
        # In a group of its own: Ctrl-C is for us, and we stop it in an orderly way.
        options = ["--settings", str(used), "--data", str(data), "--json"]
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [sys.executable, "-m", "serve.cli", "up", *options],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _until_ready(process)
            yield used, data
        finally:
            _stop(process)


def _until_ready(process: subprocess.Popen[bytes]) -> None:
    for line in process.stdout or ():
        with contextlib.suppress(ValueError):
            if json.loads(line).get("event") == "ready":
                return
    raise UnavailableError("a system of our own did not start: see above")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        # It is the leader of its group, and Ray's processes are in that.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
