"""The user's functions on a real edge, by real sockets; the manual's example among them."""

import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from actors.settings.authorise import AuthoriseSettings
from actors.settings.client import ClientSettings
from actors.settings.file import load
from actors.settings.tree import ChannelSettings, Settings
from actors.store.memory.store import MemoryStore
from serve.authorise import Deny, RefreshRequest
from serve.edge.edge import Edge
from tests.conftest import raywire
from tests.edge.test_edge import KEY, SETTINGS, command, publish, running_edge
from tests.in_process import pipeline

MANUAL: Final = Path(__file__).parents[2] / "docs" / "authorisation.md"


def opened(edge: Edge, path: str = "websocket", **headers: str) -> connect:
    return connect(f"ws://{edge.address}/connection/{path}", additional_headers=headers)


async def replies(client: ClientConnection, count: int) -> list[Any]:
    """Return the next messages, whatever their frames."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += map(json.loads, str(await client.recv()).split("\n"))
    return found


async def close_of(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


# --- the manual


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The manual's files, as a user would have them; returns the settings file."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["rules.py", "raywire.yaml"]
    for name, text in blocks:
        # A name of its own: Python remembers modules.
        path = tmp_path / name.replace("rules", "manual_rules")
        path.write_text(text.replace("rules:", "manual_rules:"))
    return tmp_path / "raywire.yaml"


@asynccontextmanager
async def manual_edge(example: Path) -> AsyncIterator[Edge]:
    """An edge with the example's settings."""
    given = load(example, {}, {}).settings
    here = {name: getattr(SETTINGS, name) for name in ("queue", "edge", "auth")}
    channels = {"channels": ChannelSettings(history_size=10, history_ttl_s=60)}
    store = MemoryStore(2)
    settings = given.model_copy(update={**here, **channels})
    async with pipeline(store, settings), running_edge(store, settings) as edge:
        yield edge


async def test_example_of_the_manual(example: Path) -> None:
    """Everything that it says of ann and her garden."""
    async with manual_edge(example) as edge:
        async with opened(edge) as stranger:
            await stranger.send(json.dumps({"id": 1, "connect": {}}))
            assert await close_of(stranger) == (4501, "log in first")
        async with opened(edge, cookie="session=7f3a") as ann:
            reply = await command(ann, id=1, connect={})
            assert set(reply["connect"]["subs"]) == {"news"}
            assert {"expires", "ttl"}.isdisjoint(reply["connect"])
            reply = await command(ann, id=2, subscribe={"channel": "room:garden"})
            assert reply["subscribe"]["data"] == {"topic": "roses"}
            reply = await command(ann, id=3, subscribe={"channel": "room:cellar"})
            assert reply["error"] == {"code": 403, "message": "you are not in this room"}
            text = {"channel": "room:garden", "data": {"text": "hello"}}
            await ann.send(json.dumps({"id": 4, "publish": text}))
            said = await replies(ann, 2)
            assert {"id": 4, "publish": {}} in said
            (pub,) = [each["push"]["pub"] for each in said if "push" in each]
            assert pub["data"] == {"text": "hello", "by": "ann"}
            assert pub["info"]["chan_info"] == {"role": "guest"}
            long = {"channel": "room:garden", "data": {"text": "x" * 501}}
            assert (await command(ann, id=5, publish=long))["error"]["code"] == 400
            reply = await command(ann, id=6, rpc={"method": "rooms"})
            assert reply == {"id": 6, "rpc": {"data": ["garden"]}}
            reply = await command(ann, id=7, rpc={"method": "none"})
            assert reply["error"] == {"code": 104, "message": "method not found"}
            await publish(edge, channel="news", data=1)
            assert (await replies(ann, 1))[0]["push"]["channel"] == "news"
        async with httpx.AsyncClient(base_url=f"http://{edge.address}", headers=KEY) as http:
            called = await http.post("/api/rpc", json={"method": "rooms"})
        assert called.json() == {"result": {"data": []}}


async def test_manual_prolongs_who_is_still_logged_in(example: Path) -> None:
    """And no other."""
    async with manual_edge(example):
        refresh = module("manual_rules").refresh
        here = refresh(RefreshRequest(client="c", user="ann"))
        assert time.time() + 50 < here.expire_at_s < time.time() + 70
        assert refresh(RefreshRequest(client="c", user="bob")) == Deny()


def test_check_shows_the_users_line(example: Path) -> None:
    """`raywire config --check` imports the functions; right ones are ok."""
    done = raywire("config", "--check", str(example), cwd=example.parent)
    assert (done.returncode, done.stdout) == (0, "ok\n")
    rules = example.parent / "manual_rules.py"
    rules.write_text(rules.read_text() + "\n1 / 0\n")
    done = raywire("config", "--check", str(example), cwd=example.parent)
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr
    assert "manual_rules.py, line" in done.stderr


# --- functions of all sorts

RULES = """
import asyncio
import threading
from serve.authorise import AllowConnect, AllowRpc, Deny

gate, waiting = threading.Event(), threading.Event()

def connect(request):
    if "deny" in request.sent_headers:
        return Deny(400 + len(request.transport), request.transport)
    seen = {"name": request.name, "header": request.headers.get("x-who")}
    return AllowConnect(user="u", data={**seen, "transport": request.transport})

def rpc(request):
    if request.method == "wait":
        waiting.set()
        gate.wait(20)
    if request.method == "fail":
        raise OSError("the database is away")
    return AllowRpc(request.method)

async def stuck(request):
    if request.method == "await":
        waiting.set()
        await asyncio.to_thread(gate.wait, 20)
    if request.method == "block":
        waiting.set()
        gate.wait(20)
    return AllowRpc(request.method)
"""


@pytest.fixture
def rules(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The name of a module with these functions."""
    name = "edge_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    (tmp_path / f"{name}.py").write_text(RULES)
    return name


def settings(code: Path, rules: str, rpc: str = "rpc", **limits: Any) -> Settings:
    functions = {"connect": f"{rules}:connect", "rpc": f"{rules}:{rpc}", **limits}
    return authorised(code, functions, ChannelSettings(allow_subscribe_for_client=True))


def authorised(code: Path, functions: dict[str, Any], channels: ChannelSettings) -> Settings:
    return SETTINGS.model_copy(
        update={
            "code": code,
            "client": ClientSettings(),
            "authorise": AuthoriseSettings.model_validate(functions),
            "channels": channels,
        }
    )


def module(name: str) -> Any:

    return sys.modules[name]


@pytest.mark.parametrize("kind", ["sse", "http_stream", "uni_sse", "uni_http_stream"])
async def test_every_stream_is_asked_about(tmp_path: Path, rules: str, kind: str) -> None:
    """The function sees transport and headers, and its data comes with the reply to connect."""
    wish = {"name": "me"}
    text = json.dumps(wish if kind.startswith("uni_") else {"id": 1, "connect": wish})
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules)) as edge,
        httpx.AsyncClient(base_url=f"http://{edge.address}", timeout=10) as http,
        http.stream(
            "POST", f"/connection/{kind}", content=text, headers={"X-Who": "ann"}
        ) as response,
    ):
        lines = (line async for line in response.aiter_lines() if line)
        reply = json.loads((await anext(lines)).removeprefix("data: "))
        data = {"name": "me", "header": "ann", "transport": kind}
        assert reply["connect"]["data"] == data


@pytest.mark.parametrize("kind", ["websocket", "uni_websocket"])
async def test_every_socket_is_asked_about(tmp_path: Path, rules: str, kind: str) -> None:
    """The same."""
    wish = {"name": "me"}
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules)) as edge,
        opened(edge, kind, **{"X-Who": "ann"}) as client,
    ):
        await client.send(
            json.dumps(wish if kind == "uni_websocket" else {"id": 1, "connect": wish})
        )
        (reply,) = await replies(client, 1)
        data = {"name": "me", "header": "ann", "transport": kind}
        assert reply["connect"]["data"] == data


async def test_function_that_fails_harms_its_caller_alone(tmp_path: Path, rules: str) -> None:
    """Error 100, temporary; the connection goes on, as do all others."""
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules)) as edge,
        opened(edge) as one,
        opened(edge) as two,
    ):
        for client in (one, two):
            await command(client, id=1, connect={})
        reply = await command(one, id=2, rpc={"method": "fail"})
        assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
        for client in (one, two):
            assert (await command(client, id=3, rpc={"method": "m"}))["rpc"]["data"] == "m"


@pytest.mark.parametrize(("rpc", "method"), [("rpc", "wait"), ("stuck", "block")])
async def test_function_that_hangs_holds_up_no_other(
    tmp_path: Path, rules: str, rpc: str, method: str
) -> None:
    """In a thread, or blocking the event loop of the async ones: messages go on, calls time out."""
    store = MemoryStore(2)
    given = settings(tmp_path, rules, rpc, time_limit_s=0.5)
    async with (
        pipeline(store, SETTINGS),
        running_edge(store, given) as edge,
        opened(edge) as one,
        opened(edge) as two,
    ):
        for client in (one, two):
            await command(client, id=1, connect={})
        await command(two, id=2, subscribe={"channel": "news"})
        await one.send(json.dumps({"id": 2, "rpc": {"method": method}}))
        async with asyncio.timeout(10):
            await asyncio.to_thread(module(rules).waiting.wait, 10)
        await publish(edge, channel="news", data=7)
        (push,) = await replies(two, 1)
        assert push["push"]["pub"]["data"] == 7
        (late,) = await replies(one, 1)
        assert (late["id"], late["error"]["code"]) == (2, 100)
        module(rules).gate.set()


async def test_commands_keep_their_order_behind_a_call(tmp_path: Path, rules: str) -> None:
    """What comes after a slow call is answered after it."""
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules)) as edge,
        opened(edge) as client,
    ):
        await command(client, id=1, connect={})
        commands = [{"id": 2, "rpc": {"method": "wait"}}]
        commands += [{"id": number, "rpc": {"method": str(number)}} for number in range(3, 20)]
        for each in commands:
            await client.send(json.dumps(each))
        await asyncio.to_thread(module(rules).waiting.wait, 10)
        module(rules).gate.set()
        assert [reply["id"] for reply in await replies(client, 18)] == list(range(2, 20))


async def test_calls_beyond_the_limit_are_refused(tmp_path: Path, rules: str) -> None:
    """Error 111, temporary; the client may try again."""
    given = settings(tmp_path, rules, calls_max=1)
    async with (
        running_edge(MemoryStore(2), given) as edge,
        opened(edge) as one,
        opened(edge) as two,
    ):
        for client in (one, two):
            await command(client, id=1, connect={})
        await one.send(json.dumps({"id": 2, "rpc": {"method": "wait"}}))
        await asyncio.to_thread(module(rules).waiting.wait, 10)
        reply = await command(two, id=2, rpc={"method": "m"})
        assert (reply["error"]["code"], reply["error"]["temporary"]) == (111, True)
        module(rules).gate.set()
        assert (await replies(one, 1))[0]["rpc"]["data"] == "wait"


async def test_edge_closes_while_a_function_hangs(tmp_path: Path, rules: str) -> None:
    """The client is sent away; the thread is left behind."""
    given = settings(tmp_path, rules, time_limit_s=0.5)
    async with running_edge(MemoryStore(2), given) as edge, opened(edge) as client:
        await command(client, id=1, connect={})
        await client.send(json.dumps({"id": 2, "rpc": {"method": "wait"}}))
        await asyncio.to_thread(module(rules).waiting.wait, 10)
        await edge.close()
        assert (await close_of(client))[0] == 3001
    module(rules).gate.set()
    for thread in threading.enumerate():
        if thread.name == "authorise":
            thread.join(10)


async def test_call_of_the_api_finishes_while_closing(tmp_path: Path, rules: str) -> None:
    """What was taken before the end has its answer, as a publication has."""
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules, "stuck")) as edge,
        httpx.AsyncClient(base_url=f"http://{edge.address}", headers=KEY, timeout=10) as http,
    ):
        calling = asyncio.create_task(http.post("/api/rpc", json={"method": "await"}))
        await asyncio.to_thread(module(rules).waiting.wait, 10)
        closing = asyncio.create_task(edge.close())
        while not edge._listener._server.should_exit:
            await asyncio.sleep(0.005)
        module(rules).gate.set()
        assert (await calling).json() == {"result": {"data": "await"}}
        await closing


async def test_calls_are_in_the_metrics(tmp_path: Path, rules: str) -> None:
    """By function and outcome, with their durations, and how many are under way."""
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules)) as edge,
        httpx.AsyncClient(base_url=f"http://{edge.address}", headers=KEY, timeout=10) as http,
        opened(edge) as client,
    ):
        await command(client, id=1, connect={})
        await command(client, id=2, rpc={"method": "fail"})
        await http.post("/api/rpc", json={"method": "m"})
        await client.send(json.dumps({"id": 3, "rpc": {"method": "wait"}}))
        await asyncio.to_thread(module(rules).waiting.wait, 10)
        found: dict[tuple[str, str | None, str | None], float] = {}
        under_way = "raywire_authorise_calls_under_way"
        while not found.get((under_way, "rpc", None)):  # written each second
            await asyncio.sleep(0.02)
            found = {
                (sample.name, sample.labels.get("function"), sample.labels.get("outcome")): (
                    sample.value
                )
                for family in text_string_to_metric_families((await http.get("/metrics")).text)
                for sample in family.samples
            }
        calls = "raywire_authorise_calls_total"
        assert found[calls, "connect", "allowed"] == 1
        assert found[calls, "connect", "denied"] == 0
        assert found[calls, "rpc", "allowed"] == 1
        assert found[calls, "rpc", "failed"] == 1
        assert found["raywire_authorise_seconds_count", "rpc", None] == 2
        assert found[under_way, "rpc", None] == 1
        assert found[under_way, "connect", None] == 0
        module(rules).gate.set()


async def test_own_refusal_reaches_the_client(tmp_path: Path, rules: str) -> None:
    """Code and reason as the function gave them."""
    async with (
        running_edge(MemoryStore(2), settings(tmp_path, rules)) as edge,
        opened(edge) as client,
    ):
        reply = await command(client, id=1, connect={"headers": {"Deny": "1"}})
        assert reply["error"] == {"code": 409, "message": "websocket"}


# --- what is prolonged

LASTING = """
import time
from serve.authorise import AllowConnect, AllowRefresh, AllowSubRefresh, AllowSubscribe, Deny

asked = []

def soon():
    return time.time() + 1  # not over before the answer is read, however slow the machine

def connect(request):
    ends = soon() if request.name == "ends" else None
    return AllowConnect(user="ann", meta=[1], expire_at_s=ends)

async def refresh(request):
    asked.append([request.user, request.transport, request.meta])
    return AllowRefresh(expire_at_s=soon()) if len(asked) < 2 else Deny()

def subscribe(request):
    return AllowSubscribe(expire_at_s=soon())

def sub_refresh(request):
    asked.append([request.user, request.channel])
    return AllowSubRefresh(expire_at_s=soon(), info=len(asked)) if len(asked) < 2 else Deny()
"""


def lasting(code: Path, name: str) -> Settings:
    """Settings whose functions give little time, and prolong it once."""
    (code / f"{name}.py").write_text(LASTING)
    uses = {use: f"{name}:{use}" for use in ("connect", "refresh", "subscribe", "sub_refresh")}
    return authorised(code, uses, ChannelSettings(authorise_subscribe=True))


@pytest.mark.parametrize("kind", ["websocket", "uni_websocket"])
async def test_connection_is_prolonged_until_it_is_not(tmp_path: Path, kind: str) -> None:
    """The client hears nothing but the end; one way or two."""
    name = f"lasting_{kind}"
    async with (
        running_edge(MemoryStore(2), lasting(tmp_path, name)) as edge,
        opened(edge, kind) as client,
    ):
        wish = {"name": "ends"}
        await client.send(json.dumps({"id": 1, "connect": wish} if kind == "websocket" else wish))
        (reply,) = await replies(client, 1)
        assert {"expires", "ttl"}.isdisjoint(reply["connect"])
        if kind == "uni_websocket":
            (push,) = await replies(client, 1)
            assert push["disconnect"]["code"] == 3005
        assert await close_of(client) == (3005, "connection expired")
        assert module(name).asked == [["ann", kind, [1]]] * 2


async def test_connection_by_token_is_prolonged(tmp_path: Path) -> None:
    """Without new tokens."""
    name = "lasting_token"
    given = lasting(tmp_path, name)
    async with running_edge(MemoryStore(2), given) as edge, opened(edge) as client:
        made = jwt.encode({"sub": "bob", "exp": time.time() + 2}, "s" * 32, algorithm="HS256")
        reply = await command(client, id=1, connect={"token": made})
        assert {"expires", "ttl"}.isdisjoint(reply["connect"])
        assert await close_of(client) == (3005, "connection expired")
        assert module(name).asked == [["bob", "websocket", None]] * 2


async def test_subscription_is_prolonged_until_it_is_not(tmp_path: Path) -> None:
    """The client hears nothing but the end, and the edge knows of it, too."""
    name = "lasting_subscription"
    given = lasting(tmp_path, name)
    async with running_edge(MemoryStore(2), given) as edge, opened(edge) as client:
        await command(client, id=1, connect={})
        reply = await command(client, id=2, subscribe={"channel": "news"})
        assert {"expires", "ttl"}.isdisjoint(reply["subscribe"])
        (push,) = await replies(client, 1)
        assert push["push"]["unsubscribe"]["code"] == 2501
        assert module(name).asked == [["ann", "news"]] * 2
        while edge._hub.numbers()["num_subs"]:
            await asyncio.sleep(0.005)
        assert "subscribe" in await command(client, id=3, subscribe={"channel": "news"})
