"""The system stops when it is told to, loses nothing by it, and goes on at the next start."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from typing import Any, Final

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from actors.store.embedded import EmbeddedValkey
from tests.conftest import System, raywire, running_system
from tests.system.answered import assert_kept
from tests.system.changing_site import Site

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

BURST: Final = 3000


def publish_lines(system: System, channel: str, count: int) -> int:
    """Publish with `raywire publish`, return how many were accepted."""
    publishing = system.raywire(
        "publish", channel, input='{"n":0}\n' * count, cwd=system.data.parent
    )
    assert publishing.returncode == 0, publishing.stderr
    accepted: int = json.loads(publishing.stdout)["accepted"]
    return accepted


async def publish_until_refused(
    system: System, channel: str, answered: list[int], refused: list[int]
) -> None:
    """Publish n = 0, 1, ... one after the other until nobody listens; note what becomes of each."""
    headers = {"X-API-Key": system.api_key}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=30) as client:
        for n in range(900):
            try:
                answer = await client.post(
                    "/api/publish", json={"channel": channel, "data": {"n": n}}
                )
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                # It was sent when the connection ended: HTTP cannot avoid it (RFC 9112, 9.3.1),
                # and nothing was promised.
                continue
            if answer.status_code == 200 and "result" in answer.json():
                answered.append(n)
            else:
                refused.append(answer.status_code)


async def stopped_while_published_to(
    system: System, answered: dict[str, list[int]], refused: list[int]
) -> None:
    """Stop a system that publishers and clients use; see what becomes of the clients."""
    direct_url, serve_url = (
        url.replace("http", "ws", 1) + "/connection/websocket"
        for url in (system.url, system.serve_url)
    )
    async with (
        connect(direct_url) as direct,
        connect(serve_url) as through_serve,
        asyncio.TaskGroup() as tasks,
    ):
        for socket in (direct, through_serve):
            await socket.send(json.dumps({"id": 1, "connect": {"headers": {"User": "ann"}}}))
            assert "connect" in json.loads(await socket.recv())
        for channel, found in answered.items():
            tasks.create_task(publish_until_refused(system, channel, found, refused))
        async with asyncio.timeout(30):
            while min(map(len, answered.values())) < 5:
                await asyncio.sleep(0.01)
        stopping = tasks.create_task(asyncio.to_thread(system.ends_by, signal.SIGTERM))
        for socket in (direct, through_serve):
            async with asyncio.timeout(30):
                # Nothing is subscribed to, so nothing but the end comes.
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 3001
        await stopping


def start_reload(system: System) -> "subprocess.Popen[str]":
    """Start `raywire reload`."""
    return subprocess.Popen(
        [sys.executable, "-m", "serve.cli", "reload", "--data", str(system.data)],
        stderr=subprocess.PIPE,
        text=True,
    )


async def stopped_during_reload(site: Site) -> None:
    """Start a reload that takes long; see another one refused, and a signal end all."""
    reading, going = site.directory / "reading", site.directory / "going"
    (site.directory / "my_code.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(reading)!r}).touch()\n"
        f"while not pathlib.Path({str(going)!r}).exists(): time.sleep(0.05)\n"
    )
    first = start_reload(site.system)
    async with asyncio.timeout(30):
        while not reading.exists():
            await asyncio.sleep(0.05)
    second = await asyncio.to_thread(raywire, "reload", "--data", str(site.system.data))
    assert second.returncode == 3
    assert "a reload is under way" in second.stderr
    await asyncio.to_thread(site.system.ends_by, signal.SIGHUP)  # its terminal was closed
    _, told = first.communicate(timeout=30)
    assert first.returncode == 3
    assert "the system is stopping" in told


async def test_stop_loses_nothing_and_leaves_no_process(site: Site) -> None:
    """By SIGHUP after a burst, by SIGTERM while publishers go on: the next start goes on.

    The first stop comes while a reload is under way. While publishers go on, each success is in the
    history later; others are 503; clients get 3001.
    """
    burst, keyed_channel, versioned_channel, *_ = site.channels
    names = [f"{burst}-{n}" for n in range(8)]
    keyed: dict[str, Any] = {"channel": keyed_channel, "data": {"n": 0}, "idempotency_key": "k"}
    versioned: dict[str, Any] = {"channel": versioned_channel, "data": {"n": 0}}
    result = site.system.api("publish", **keyed)["result"]
    top = site.system.api("publish", **versioned, version=2)["result"]
    assert publish_lines(site.system, burst, BURST) == BURST
    await stopped_during_reload(site)
    site.write_code("'after the stop'")
    answered: dict[str, list[int]] = {name: [] for name in names}
    refused: list[int] = []
    with running_system(site.system.data) as system:
        end_s = time.monotonic() + 30
        while (answer := system.api("history", channel=burst, limit=0)["result"])["offset"] < BURST:
            assert time.monotonic() < end_s, answer
            await asyncio.sleep(0.05)
        # The key holds across the restart, so the first result comes again.
        assert system.api("publish", **keyed)["result"] == result
        # So does the version, through the transforms: an older one changes nothing.
        assert system.api("publish", **versioned, version=1)["result"] == top
        assert system.api("publish", **versioned, version=3)["result"]["offset"] == 2
        await stopped_while_published_to(system, answered, refused)
        password = system.secrets["redis_password"]
    assert max(map(len, answered.values())) < 900, "the publishers had ended before the stop"
    assert set(refused) <= {503}
    valkey = EmbeddedValkey(site.system.data / "valkey", password)
    valkey.start()
    try:
        await assert_kept(valkey.url, answered)
    finally:
        valkey.stop()
