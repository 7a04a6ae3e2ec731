"""`raywire bench`: its account of what arrived must be beyond doubt."""

import asyncio
import json
import os
import subprocess
import sys
import time
from array import array

import pytest
from websockets.asyncio.server import ServerConnection, serve

from actors.settings.tree import Settings
from serve.cli.bench import _is_good, _table
from serve.cli.bench_own import own_settings
from serve.cli.bench_payload import Account, make_payload, padding_for, quantile
from serve.cli.bench_processes import family, is_supported, name_of, usage
from serve.cli.bench_receive import Socket
from serve.cli.bench_run import _cpu, _expected

needs_proc = pytest.mark.skipif(not is_supported(), reason="needs /proc")


def _message(number: int, *, channel: int = 0, stamp_ns: int = 0) -> bytes:
    return make_payload(channel, number, stamp_ns, b"x" * 20)


def _account() -> Account:
    return Account(frozenset({0}))


@pytest.mark.parametrize("size", [100, 200, 4000])
def test_a_message_is_json_of_the_size_asked_for(size: int) -> None:
    """Transforms of any kind can read it."""
    payload = make_payload(7, 12_345, 10**18, padding_for(size))
    assert len(payload) == pytest.approx(size, abs=5)
    assert json.loads(payload)["n"] == 12_345


def test_messages_are_found_wherever_the_stream_is_cut() -> None:
    """No message is missed or counted twice, whatever TCP makes of the frames."""
    stream = b"".join(b"\x81\x7e\x00\x50" + _message(number) for number in range(5))
    for size in range(1, len(stream)):
        account = _account()
        for start in range(0, len(stream), size):
            account.feed(stream[start : start + size], 5)
        assert (account.delivered, account.repeated, account.disordered) == (5, 0, 0)


def test_a_message_is_found_inside_a_json_string() -> None:
    """A server may escape quotes; the token has nothing to escape."""
    account = _account()
    account.feed(json.dumps({"data": _message(0).decode()}).encode(), 5)
    assert account.delivered == 1


def test_loss_repeats_and_disorder_are_told_apart() -> None:
    """Late is not lost, and again is not late."""
    account = _account()
    for number in (0, 1, 4, 3, 3, 0, 5):
        account.feed(_message(number), 5)
    account.feed(_message(0, channel=1), 5)
    assert account.delivered == 5
    assert account.disordered == 1
    assert account.repeated == 2
    assert account.strange == 1


def test_only_messages_after_warming_up_are_measured() -> None:
    """They are all counted."""
    account = _account()
    account.warm_ns = 1000
    account.feed(_message(0, stamp_ns=999) + _message(1, stamp_ns=1000), 1500)
    assert list(account.latencies_ns) == [500]
    assert account.delivered == 2


def test_quantiles_are_exact() -> None:
    """Of a hundred values, the 99th is the p99."""
    ordered = array("q", [value * 1_000_000 for value in range(1, 101)])
    assert quantile(ordered, 0.5) == 50
    assert quantile(ordered, 0.99) == 99
    assert quantile(ordered, 1.0) == 100
    assert quantile(array("q"), 0.5) is None


def test_expected_deliveries_follow_the_share_of_each_channel() -> None:
    """Messages go round the channels; subscriber i follows channel i."""
    assert _expected(10, channels=1, subs=1) == 10
    assert _expected(10, channels=3, subs=3) == 10
    assert _expected(10, channels=3, subs=4) == 14
    assert _expected(10, channels=3, subs=1) == 4


def test_settings_of_an_own_system_are_valid() -> None:
    """With a transform and history, as the figures in the README are meant."""
    settings = Settings.model_validate(own_settings(replicas=2, nozzles=1))
    assert settings.channels.has_history
    assert settings.stages[0].replicas == 2


@pytest.mark.parametrize("wrong", ["lost", "repeated", "out_of_order", "strange"])
def test_anything_wrong_fails_the_run(wrong: str) -> None:
    """The exit code says so."""
    good = {"lost": 0, "repeated": 0, "out_of_order": 0, "strange": 0, "producer_error": ""}
    assert _is_good(good)
    assert not _is_good(good | {wrong: 1})
    assert not _is_good(good | {"producer_error": "-OOM"})
    assert _table(good | {"cpu": {"nozzle:0": 0.1}}).row_count > 5


@needs_proc
def test_cpu_of_a_process_and_its_children_is_measured() -> None:
    """What a child burns counts."""
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        before = usage([])
        assert child.stdout is not None
        child.stdout.readline()
        pids = family([os.getpid()])
        assert child.pid in pids
        used = usage(pids).since(before)
        assert used[child.pid] >= 0.15
        parts = {"nozzle:0": {"pid": child.pid}}
        assert _cpu({child.pid: 0.2}, 2.0, parts) == {"nozzle:0": 0.1}
        assert name_of(child.pid, {}) != "other"
        child.communicate(b"\n")
    assert usage([child.pid]).seconds == {}


async def test_a_subscriber_connects_counts_and_answers_pings() -> None:
    """The receiver speaks just enough of the protocol, and keeps its connection."""
    heard: list[str] = []
    answered = asyncio.Event()

    async def serve_one(socket: ServerConnection) -> None:
        heard.append(str(await socket.recv()))
        await socket.send('{"id":1,"connect":{"subs":{"bench0":{}}}}')
        for number in range(3):
            await socket.send(_message(number, stamp_ns=time.monotonic_ns()).decode())
        await socket.send("{}")
        heard.append(str(await socket.recv()))
        answered.set()

    account = _account()
    async with asyncio.timeout(5), serve(serve_one, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        _, socket = await asyncio.get_running_loop().create_connection(
            lambda: Socket(f"ws://127.0.0.1:{port}/x", account), "127.0.0.1", port
        )
        await socket.opened
        socket.send(b'{"id":1,"connect":{}}')
        await socket.subscribed
        await answered.wait()
        socket.close()
    assert heard == ['{"id":1,"connect":{}}', "{}"]
    assert account.delivered == 3
