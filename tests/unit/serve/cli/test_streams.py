"""Standard streams that are closed, full, or read by nobody, of commands as processes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

FULL = Path("/dev/full")
ENVIRON = {"PYTHONPATH": str(Path(__file__).parents[4]), "PATH": "/usr/bin:/bin"}
_needs_full = pytest.mark.skipif(not FULL.exists(), reason="only Linux has a full device")


def _shell(redirection: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with the redirections that a shell would make of this text."""
    line = f'exec "$@" {redirection}'
    return subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, "-m", "serve.cli", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=ENVIRON,
    )


@pytest.mark.parametrize(
    ("redirection", "args", "code"),
    [
        ("<&-", ["token", "--check", "-"], 4),
        (">&-", ["version"], 0),
        ("2>&-", ["version"], 0),
        ("<&- >&- 2>&-", ["version"], 0),
        ("<&-", ["dead", "drop", "--all", "--redis", "redis://127.0.0.1:1"], 2),
    ],
)
def test_a_closed_stream_is_an_empty_one(
    redirection: str, args: Sequence[str], code: int, tmp_path: Path
) -> None:
    """As if it were /dev/null: no traceback."""
    done = _shell(redirection, *args, cwd=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@_needs_full
@pytest.mark.parametrize("args", [["version"], ["token", "--user", "a"], ["config"], ["--help"]])
def test_a_result_that_cannot_be_written_is_one_line(args: Sequence[str], tmp_path: Path) -> None:
    """It says which stream, and why; exit code 1."""
    done = _shell(f"> {FULL}", *args, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: stdout: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [["version"], ["--help"]])
def test_a_reader_that_is_gone_is_no_error(args: Sequence[str], tmp_path: Path) -> None:
    """As in `raywire --help | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serve.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRON,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(60) == 0


@_needs_full
async def test_tail_ends_when_its_output_cannot_be_written(tmp_path: Path) -> None:
    """It is not taken for trouble with the network, which another connection would end."""
    connections = 0

    async def serve_one(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await socket.recv()
        await socket.send('{"id": 1, "connect": {}}')
        command = json.loads(await socket.recv())
        await socket.send(f'{{"id": {command["id"]}, "subscribe": {{}}}}')
        await socket.send('{"push": {"channel": "news", "pub": {"data": 1}}}')
        await socket.wait_closed()

    full = os.open(FULL, os.O_WRONLY)
    try:
        async with asyncio.timeout(30), serve(serve_one, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "serve.cli", "tail", "news"),
                *("--url", f"127.0.0.1:{port}", "--token", "t"),
                stdout=full,
                stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
                env=ENVIRON,
            )
            _, stderr = await process.communicate()
    finally:
        os.close(full)
    assert stderr.decode().splitlines() == ["error: stdout: No space left on device"]
    assert process.returncode == 1
    assert connections == 1
