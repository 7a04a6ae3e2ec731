"""The running system from outside: publishing, following, both ways in, stopping, going on."""

import asyncio
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from actors.partition import partition_of
from serve.edge.prometheus import NO_HELP
from tests.conftest import System, raywire
from tests.protobuf_speech import from_protobuf, to_protobuf

pytestmark = pytest.mark.ray

SOCKET = "/connection/websocket"
PROTOBUF = Subprotocol("centrifuge-protobuf")


def channel() -> str:
    """A channel that no other test uses."""
    return f"discussion:{uuid.uuid4().hex[:8]}"


async def command(socket: ClientConnection, **what: Any) -> dict[str, Any]:
    """Send one command and return its reply; answers pings, passes over pushes."""
    await socket.send(json.dumps(what))
    async with asyncio.timeout(10):
        async for frame in socket:
            for line in str(frame).split("\n"):
                reply: dict[str, Any] = json.loads(line) if line else {}
                if reply.get("id") == what["id"]:
                    return reply
    raise AssertionError("the socket was closed")


async def publications(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next publications."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            for line in str(await socket.recv()).split("\n"):
                push = (json.loads(line) if line else {}).get("push", {})
                if "pub" in push:
                    found.append(push["pub"])
    return found


def websocket(url: str) -> str:
    """The address of the sockets."""
    return url.replace("http", "ws", 1) + SOCKET


def test_health_is_good(system: System) -> None:
    """A system that says it is ready is healthy, on both ways in."""
    for url in (system.url, system.serve_url):
        for ask in (httpx.get, httpx.head):
            assert ask(f"{url}/health", timeout=10).status_code == 200


@pytest.mark.parametrize("way", ["listen", "serve"])
async def test_publication_reaches_a_websocket(system: System, way: str) -> None:
    """From the API through all actors to a client, on both ways in, after a transform."""
    url = system.url if way == "listen" else system.serve_url
    name = channel()
    async with connect(websocket(url)) as socket:
        connected = await command(socket, id=1, connect={})
        assert connected["connect"]["ping"] == 25
        subscribed = await command(socket, id=2, subscribe={"channel": name, "recoverable": True})
        data = {"author": "Ann", "text": "I <b>love</b> it<script>alert(1)</script>"}
        answer = await asyncio.to_thread(system.api, "publish", url, channel=name, data=data)
        (publication,) = await publications(socket, 1)
    assert answer["result"]["offset"] == publication["offset"] == 1
    assert answer["result"]["epoch"] == subscribed["subscribe"]["epoch"]
    assert "script" not in publication["data"]["text"]
    assert publication["data"]["mood"] > 0


@pytest.mark.parametrize("way", ["listen", "serve"])
async def test_publication_reaches_a_protobuf_client(system: System, way: str) -> None:
    """Binary frames and their subprotocol pass both ways in, too."""
    url = websocket(system.url if way == "listen" else system.serve_url)
    name, heard = channel(), list[Any]()
    async with asyncio.timeout(20), connect(url, subprotocols=[PROTOBUF]) as socket:
        assert socket.subprotocol == PROTOBUF
        await socket.send(
            to_protobuf({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": name}})
        )
        while len(heard) < 2:
            heard += from_protobuf(await socket.recv(decode=False))
        await asyncio.to_thread(system.api, "publish", channel=name, data={"text": "hello"})
        # The channel tells its subscribers who joins, too.
        while not (found := [m["push"]["pub"] for m in heard if "pub" in m.get("push", {})]):
            heard += from_protobuf(await socket.recv(decode=False))
    assert ["connect" in heard[0], "subscribe" in heard[1]] == [True, True]
    assert found[0]["data"]["text"] == "hello"


@pytest.mark.parametrize("way", ["listen", "serve"])
def test_publication_reaches_an_event_source(system: System, way: str) -> None:
    """The same over Server-Sent Events, with what was missed first."""
    url = system.url if way == "listen" else system.serve_url
    name = channel()
    system.api("publish", channel=name, data={"author": "Ann", "text": "one"})
    wishes = json.dumps({"subs": {name: {"recover": True}}})
    found: list[dict[str, Any]] = []
    with httpx.stream(
        "GET", f"{url}/connection/uni_sse", params={"cf_connect": wishes}, timeout=20
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "connect" in event:
                found += event["connect"]["subs"][name]["publications"]
                system.api("publish", channel=name, data={"author": "Bob", "text": "two"})
            elif "pub" in event:
                found.append(event["pub"])
                break
    assert [(p["offset"], p["data"]["text"]) for p in found] == [(1, "one"), (2, "two")]


async def test_two_channels_do_not_mix(system: System) -> None:
    """A client gets what it subscribed to, and nothing else."""
    mine, other = channel(), channel()
    async with connect(websocket(system.url)) as socket:
        await command(socket, id=1, connect={})
        await command(socket, id=2, subscribe={"channel": mine})
        for name in (other, mine):
            data = {"author": "Ann", "text": name}
            await asyncio.to_thread(system.api, "publish", channel=name, data=data)
        (publication,) = await publications(socket, 1)
    assert publication["data"]["text"] == mine


def test_raw_xadd_is_enough_to_publish(system: System) -> None:
    """A producer in any language needs XADD alone."""
    name = channel()
    with redis.Redis.from_url(system.redis_url) as client:
        queue = f"raywire:{{{partition_of(name, 8)}}}:queue"
        client.xadd(queue, {"c": name, "d": '{"author":"Ann","text":"hi"}'})
        end_s = time.monotonic() + 10
        while client.xlen(queue):
            assert time.monotonic() < end_s
            time.sleep(0.01)
    history = system.api("history", channel=name, limit=10)["result"]
    assert [p["data"]["text"] for p in history["publications"]] == ["hi"]


async def test_client_that_does_not_read_is_closed_and_misses_nothing(system: System) -> None:
    """Too slow (3008), it comes back with its last position and gets all that it missed, once."""
    name = f"slow-{uuid.uuid4().hex[:8]}"  # no transform shortens it
    url = websocket(system.url)
    text = "x" * 60_000
    published = 0
    async with connect(url, compression=None, max_queue=None, max_size=None) as slow:
        await command(slow, id=1, connect={})
        start = (await command(slow, id=2, subscribe={"channel": name}))["subscribe"]
        slow.transport.pause_reading()
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(slow_clients, system):
                commands = [
                    {"publish": {"channel": name, "data": {"author": "Ann", "text": text}}}
                ] * 10
                await asyncio.to_thread(system.api, "batch", commands=commands, parallel=True)
                published += len(commands)
        slow.transport.resume_reading()
        seen: list[int] = []
        with pytest.raises(ConnectionClosed) as closed:
            await collect(slow, seen)
    assert closed.value.rcvd is None or closed.value.rcvd.code == 3008
    position = {"recover": True, "epoch": start["epoch"], "offset": len(seen)}
    async with connect(url, max_size=None) as again:
        await command(again, id=1, connect={})
        reply = await command(again, id=2, subscribe={"channel": name, **position})
    recovered = [p["offset"] for p in reply["subscribe"]["publications"]]
    assert reply["subscribe"]["recovered"]
    assert seen + recovered == list(range(1, published + 1))


async def collect(socket: ClientConnection, offsets: list[int]) -> None:
    """Note the offsets of all publications until the socket is closed."""
    while True:
        for line in str(await socket.recv()).split("\n"):
            push = json.loads(line).get("push", {}) if line else {}
            if "pub" in push:
                offsets.append(push["pub"]["offset"])


def slow_clients(system: System) -> int:
    """Return how many clients were closed as too slow, as the edges have written it."""
    with redis.Redis.from_url(system.redis_url) as server:
        parts = server.hgetall("raywire:stats")
    found = [json.loads(numbers) for numbers in parts.values()]
    return sum(each.get("counters", {}).get("slow", 0) for each in found)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"channel": "nowhere:a", "data": {}}, 102),
        ({"channel": "", "data": {}}, 107),
        ({"channel": "a b", "data": {}}, 107),
        ({"channel": "discussion:x", "data": {"text": "x" * 70_000}}, 107),
    ],
)
def test_bad_publishes_are_refused(system: System, body: dict[str, Any], code: int) -> None:
    """Each gets the protocol's error, and nothing is queued."""
    assert system.api("publish", **body)["error"]["code"] == code


def test_api_wants_its_key(system: System) -> None:
    """A missing or wrong key is a bare 401."""
    for headers in ({}, {"X-API-Key": "wrong"}):
        answer = httpx.post(f"{system.url}/api/info", json={}, headers=headers)
        assert (answer.status_code, answer.headers.get("content-type")) in (
            (401, None),
            (401, "text/plain; charset=utf-8"),
        )


def test_metrics_name_every_part(system: System) -> None:
    """`/metrics` of any edge has the numbers of the whole pipeline."""
    text = httpx.get(f"{system.url}/metrics").text
    for kind in ("nozzle", "transformer", "publisher", "edge"):
        assert f'kind="{kind}"' in text
    assert NO_HELP not in text
    assert 'raywire_partition_dead_letters{partition="7"}' in text


def test_status_is_one_json_object_in_a_pipe(system: System) -> None:
    """Queue, stages, actors and edges of the running system."""
    status = system.raywire("status")
    assert status.returncode == 0, status.stderr
    assert isinstance(json.loads(status.stdout), dict)


def test_config_shows_the_redis_in_use(system: System) -> None:
    """Of a running system, with its password hidden."""
    shown = system.raywire("config")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["running"]["redis_url"].startswith("redis://")
    assert system.secrets["redis_password"] not in shown.stdout


def test_benchmark_counts_what_each_subscriber_gets(system: System) -> None:
    """Each follows one channel, and gets what is published there and nothing else."""
    load = ["--rate", "500", "--secs", "1", "--warmup", "0.2"]
    ran = system.raywire("bench", *load, "--channels", "200", "--subs", "201")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["sent"] == 600
    # Three messages for each channel, of which one has a second subscriber.
    assert result["expected"] == result["delivered"] == 603
    assert result["lost"] == result["strange"] == 0
    assert 0 < result["mean_ms"] < result["max_ms"]


def test_published_file_comes_out_of_tail(system: System, tmp_path: Path) -> None:
    """Every line arrives once, in order: JSON as it is, other text as a JSON string."""
    name = f"log-{uuid.uuid4().hex[:8]}"
    lines = [f'line {n} \u00e9 "quoted"' if n % 2 else json.dumps({"n": n}) for n in range(5000)]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    with (tmp_path / "log").open() as stdin:
        publish = system.raywire("publish", name, stdin=stdin)
    assert publish.returncode == 0, publish.stderr
    assert json.loads(publish.stdout)["accepted"] == 5000
    tail = system.raywire("tail", name, "--all", "--count", "5000")
    assert tail.returncode == 0, tail.stderr
    found = [json.loads(line) for line in tail.stdout.splitlines()]
    assert [p["offset"] for p in found] == list(range(1, 5001))
    assert [p["data"] for p in found] == [
        line if n % 2 else {"n": n} for n, line in enumerate(lines)
    ]


def test_tail_ends_with_its_reader(system: System) -> None:
    """As in `raywire tail news --all | head -1`: not only at the next publication."""
    name = channel()
    system.api("publish", channel=name, data={"author": "Ann", "text": "one"})
    command = [sys.executable, "-m", "serve.cli", "tail", name, "--all", "--data", str(system.data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert json.loads(tail.stdout.readline())["offset"] == 1
        tail.stdout.close()
        assert tail.wait(20) == 0
        assert tail.stderr.read() == b""


def test_port_in_use_is_one_clear_line(system: System, tmp_path: Path) -> None:
    """A second system on the same port says which setting to change."""
    listen = system.url.removeprefix("http://")
    failed = raywire("up", "--data", str(tmp_path / "d"), "--listen", listen, cwd=tmp_path)
    assert failed.returncode == 2
    errors = [line for line in failed.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert "edge.listen" in errors[0]


def test_data_in_use_is_one_clear_line(system: System, tmp_path: Path) -> None:
    """A second system on the same data names the first."""
    failed = system.raywire("up", cwd=tmp_path)
    assert failed.returncode == 2
    assert f"pid {system.process.pid}" in failed.stderr


def test_unreachable_redis_is_one_clear_line(tmp_path: Path) -> None:
    """The error names the address and the remedy, and the exit code says: try again."""
    failed = raywire("up", "--redis", "redis://127.0.0.1:1", "--data", "d", cwd=tmp_path)
    assert failed.returncode == 3
    assert "127.0.0.1:1" in failed.stderr
    assert "Traceback" not in failed.stderr
