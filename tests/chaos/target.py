"""The system that is struck: `raywire up` as a user starts it, and its processes."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos import chaos_moves
from tests.chaos.schedule import Kind
from tests.chaos.victims import Process, descendants, listing, titled
from tests.conftest import free_port

PARTITIONS: Final = 8
_READY_WITHIN_S: Final = 150.0
_STOP_WITHIN_S: Final = 90.0
# After a crash Ray's agents say at once that their raylet is dead, and have been seen to take
# another minute to end.
_GONE_WITHIN_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.1
_STARTS_MAX: Final = 5

_SETTINGS: Final[dict[str, Any]] = {
    "queue": {"partitions": PARTITIONS},
    # Paced down: two cores carry the system, the load, and the comparison.
    "nozzle": {"count": 2, "pace_s": 0.02},
    "channels": {
        "history_size": 100_000,
        "history_ttl_s": 86_400,
        "force_recovery": True,
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
    },
    "client": {
        "allow_anonymous": True,
        "channels_max": 1_000,
        "ping_interval_s": 3,
        # What a long interruption has made wait is still recovered.
        "recovery_max": 5_000,
        "outbox_bytes_max": 8 * 2**20,
    },
    "edge": {"replicas": 2},
    "stages": [
        {
            "name": "double",
            "replicas": 2,
            "transforms": [{"channels": "*", "use": "chaos_moves:double"}],
        },
        {
            "name": "move",
            "replicas": 2,
            "transforms": [{"channels": "moving.*", "use": "chaos_moves:move"}],
        },
    ],
}

EXPECTED: Final = {
    Kind.KILL_NOZZLE: 2,
    Kind.KILL_TRANSFORMER: 4,
    Kind.KILL_PUBLISHER: 2,
    Kind.KILL_SUPERVISOR: 1,
    Kind.KILL_EDGE: 2,
    Kind.KILL_CONTROLLER: 1,
    Kind.KILL_PROXY: 1,
}
"""How many processes of each kind there are while all is well."""


class TargetError(Exception):
    """The system does not start, stop, or clean up as it promises."""


class Target:
    """One system over all its starts, on the same data and the same addresses.

    Attributes:
        failed_starts: What `raywire up` said where it did not start after a crash.
    """

    def __init__(self, work: Path) -> None:
        """Write the settings into an empty directory; nothing is started."""
        self.failed_starts: list[str] = []
        self.data = work / "data"
        self._listen, self._serve_listen = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._work = work
        self._log = work / "up.log"
        self._process: asyncio.subprocess.Process | None = None
        self._seen: dict[int, Process] = {}
        settings = work / "raywire.yaml"
        settings.write_text(json.dumps(_SETTINGS))  # JSON is YAML
        shutil.copy(str(chaos_moves.__file__), work)

    @property
    def api_url(self) -> str:
        """Where the edges listen."""
        return f"http://{self._listen}"

    @property
    def socket_url(self) -> str:
        """Where subscribers connect."""
        return f"ws://{self._listen}/connection/websocket"

    @property
    def api_key(self) -> str:
        """The key of the server API."""
        key: str = json.loads((self.data / "secrets.json").read_text())["api_key"]
        return key

    def redis_url(self) -> str | None:
        """Return where Valkey is, or was before a crash; None: not known at the moment."""
        try:
            url: str = json.loads((self.data / "run.json").read_text())["redis_url"]
        except (OSError, ValueError):
            return None
        return url

    def log_tail(self) -> str:
        """Return the end of what `raywire up` has said."""
        return self._log.read_text()[-3000:]

    # --- as a user starts and stops it

    async def start(self) -> None:
        """Start it, and return when it is ready. Where it fails after a crash, try again.

        Raises:
            TargetError: It does not start.
        """
        why: str | None = None
        for _ in range(_STARTS_MAX if self._seen else 1):
            why = await self._try_to_start()
            if why is None:
                return
            self.failed_starts.append(why)
        raise TargetError(f"raywire up does not start: {why}")

    async def _try_to_start(self) -> str | None:
        with self._log.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "serve.cli", "up", "--data", str(self.data)),
                *("--settings", str(self._work / "raywire.yaml")),
                *("--listen", self._listen, "--serve-listen", self._serve_listen),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._work,
                # As from a shell: Ctrl-C in a terminal would reach the whole group.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            await self.crash()
            return f"not ready after {_READY_WITHIN_S} s: {self.log_tail()}"
        if line:
            assert json.loads(line)["event"] == "ready"
            return None
        await self._process.wait()
        return self.log_tail()

    async def stop(self) -> None:
        """Stop it as Ctrl-C does.

        Raises:
            TargetError: It did not end well, or left processes.
        """
        await self.processes()
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(_STOP_WITHIN_S):
                code = await self._process.wait()
        except TimeoutError:
            await self.crash()
            raise TargetError(f"it does not stop: {self.log_tail()}") from None
        if code != 0:
            raise TargetError(f"it ended with {code}: {self.log_tail()}")

    async def crash(self) -> None:
        """Kill `raywire up` alone; what it has started is left as it is."""
        await self.processes()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    # --- its processes

    async def processes(self) -> list[Process]:
        """Return what `raywire up` has started and what lives of it."""
        if self._process is None or self._process.returncode is not None:
            return []
        found = descendants(await asyncio.to_thread(listing), self._process.pid)
        self._seen |= {process.pid: process for process in found}
        return found

    async def victims(self, kind: Kind) -> list[Process]:
        """Return the processes that a kind of strike may choose from, by pid."""
        found = await self.processes()
        if kind in (Kind.KILL_VALKEY, Kind.FREEZE_VALKEY):
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.data / "valkey" / "valkey.pid").read_text())
                return [process for process in found if process.pid == pid]
            return []
        return titled(found, kind)

    async def wait_whole(self, within_s: float) -> str:
        """Wait until all processes are there; return which kinds are not, empty: none."""
        end_s = time.monotonic() + within_s
        while True:
            found = await self.processes()
            short = [k for k, count in EXPECTED.items() if len(titled(found, k)) < count]
            if not short or time.monotonic() > end_s:
                return ", ".join(kind.value.removeprefix("kill ") for kind in short)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def leftovers(self) -> Sequence[Process]:
        """Return processes of ours that outlived the system, after a while; end them."""
        end_s = time.monotonic() + _GONE_WITHIN_S
        while True:
            # With its title: the number may belong to somebody else by now.
            found = [p for p in await asyncio.to_thread(listing) if self._is_ours(p)]
            if not found or time.monotonic() > end_s:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return found

    def _is_ours(self, process: Process) -> bool:
        seen = self._seen.get(process.pid)
        # A worker of Ray's changes its title, but for the beginning.
        return seen is not None and seen.title[:5] == process.title[:5]
