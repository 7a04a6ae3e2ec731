"""`raywire publish` as a process, on a real Valkey."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.message import Entry
from actors.partition import Keys, partition_of
from actors.store.redis.pipeline import RedisQueueReader
from tests.conftest import free_port, raywire

pytestmark = pytest.mark.redis

# What a display that is drawn again and again begins with.
_HIDE_CURSOR = b"\x1b[?25l"
PARTITION = partition_of("news", 8)


async def _queued(url: str) -> list[Entry]:
    reader = RedisQueueReader(url, Keys(), read_bytes_max=2**30)
    try:
        found = await reader.read({PARTITION: "0-0"}, limit=1_000_000, block_s=0.01)
    finally:
        await reader.close()
    return found[0] if found else []


async def _wait_for(url: str, count: int) -> None:
    """Wait until so many entries are queued, blocked in the server and not in a loop of sleeps."""
    reader = RedisQueueReader(url, Keys())
    last = "0-0"
    try:
        while count > 0:
            for entries in await reader.read({PARTITION: last}, limit=count, block_s=1):
                count -= len(entries)
                last = entries[-1].id
    finally:
        await reader.close()


def _args(url: str, tmp_path: Path) -> list[str]:
    return ["publish", "news", "--redis", url, "--data", str(tmp_path / "data")]


async def test_a_log_arrives_whole_and_in_order(valkey_url: str, tmp_path: Path) -> None:
    """20,000 lines of text and JSON: each once, in order."""
    lines = [
        json.dumps({"n": n, "text": "ä" * 50}) if n % 3 else f'{n} GET "/{"x" * 80}" 200'
        for n in range(20_000)
    ]
    done = raywire(*_args(valkey_url, tmp_path), "--tag", "a=b", input="\n".join(lines) + "\n")

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["accepted"] == 20_000
    assert summary["refused"] == 0
    assert summary["per_s"] > 1000
    entries = await _queued(valkey_url)
    texts = [json.loads(entry.data) for entry in entries]
    assert texts == [json.loads(line) if line[0] == "{" else line for line in lines]
    assert json.loads(entries[0].meta) == {"tags": {"a": "b"}}


async def test_bad_lines_are_named_and_the_rest_goes_on(valkey_url: str, tmp_path: Path) -> None:
    """Exit code 4 says that some lines were not published."""
    (tmp_path / "in").write_bytes(b"one\n\n\xff\n" + b"x" * 70_000 + b"\nlast")
    with (tmp_path / "in").open() as file:
        done = raywire(*_args(valkey_url, tmp_path), stdin=file)

    assert done.returncode == 4
    summary = json.loads(done.stdout)
    assert (summary["accepted"], summary["refused"], summary["lines"]) == (2, 3, 5)
    for expected in ("line 2: empty", "line 3: not UTF-8", "line 4: longer than 65536"):
        assert expected in done.stderr
    assert [entry.data for entry in await _queued(valkey_url)] == [b'"one"', b'"last"']


async def test_one_message_needs_no_input(valkey_url: str, tmp_path: Path) -> None:
    """`--message` leaves standard input alone."""
    done = raywire(*_args(valkey_url, tmp_path), "-m", '{"a": 1}', stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert [entry.data for entry in await _queued(valkey_url)] == [b'{"a": 1}']


def test_a_bad_channel_is_one_clear_line(valkey_url: str, tmp_path: Path) -> None:
    """Nothing is read or written."""
    args = _args(valkey_url, tmp_path)
    args[1] = "no blanks"
    done = raywire(*args, "-m", "x")
    assert done.returncode == 4
    assert "blanks" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_absent_server_ends_it_with_how_to_go_on(tmp_path: Path) -> None:
    """Exit code 3, the line and the producer's name, and no password."""
    url = f"redis://:hidden@127.0.0.1:{free_port()}/0"
    done = raywire(*_args(url, tmp_path), "--timeout", "0.2", input="one\ntwo\n")
    assert done.returncode == 3
    summary = json.loads(done.stdout)
    assert summary["accepted"] == 0
    assert summary["go_on"]["skip"] == 0
    assert f"--skip 0 --producer {summary['go_on']['producer']}" in done.stderr
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


async def test_lines_of_an_open_pipe_are_sent_at_once_and_ctrl_c_ends_it(
    valkey_url: str, tmp_path: Path
) -> None:
    """`tail -f log | raywire publish` waits for no full block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serve.cli", *_args(valkey_url, tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert process.stdin is not None
    process.stdin.write(b"one\ntwo\nunfini")
    await process.stdin.drain()
    async with asyncio.timeout(20):
        await _wait_for(valkey_url, 2)
        process.send_signal(signal.SIGINT)
        # Not communicate(): it closes the pipe, and so might end the last line before the signal.
        assert process.stdout is not None
        out = await process.stdout.read()
        assert await process.wait() == 130
    process.stdin.close()
    summary = json.loads(out)
    assert summary["accepted"] == 2
    assert summary["interrupted"]


async def test_typing_is_not_painted_over(valkey_url: str, tmp_path: Path) -> None:
    """Where lines come from a terminal, nothing moves on it meanwhile."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serve.cli", *_args(valkey_url, tmp_path)),
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
        )
        os.write(ours, b"one\n")
        async with asyncio.timeout(20):
            await _wait_for(valkey_url, 1)
            os.write(ours, b"\x04")
            out, _ = await process.communicate()
        shown = os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert json.loads(out)["accepted"] == 1
    assert b"reading lines" in shown
    assert _HIDE_CURSOR not in shown


async def test_a_server_that_comes_back_is_used_again(valkey_url: str, tmp_path: Path) -> None:
    """A pause shorter than `--timeout` delays, and nothing is lost or repeated."""
    port = valkey_url.rpartition(":")[2].partition("/")[0]
    late = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serve.cli"),
        *_args(f"redis://127.0.0.1:{late}/0", tmp_path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"one\ntwo\n")
    process.stdin.close()
    async with asyncio.timeout(20):
        while b"waiting: " not in await process.stderr.readline():
            pass
        server = await asyncio.start_server(_forward_to(int(port)), "127.0.0.1", late)
        out, _ = await process.communicate()
        server.close()
    assert process.returncode == 0
    assert json.loads(out)["accepted"] == 2
    assert [entry.data for entry in await _queued(valkey_url)] == [b'"one"', b'"two"']


def _forward_to(port: int):  # type: ignore[no-untyped-def] # the type is asyncio's, and long
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    return serve_one
