"""The server API's calls that concern clients: what they tell the edges, and what they refuse."""

import base64
from typing import Any

import httpx
import pytest
from msgspec import Raw

from actors.store.interface import Claim, Commit, Group
from actors.store.memory.store import MemoryStore
from serve.directives.directive import (
    Directive,
    DisconnectClients,
    RefreshClients,
    SubscribeClients,
    UnsubscribeClients,
    decode,
)
from serve.protocol.messages import StreamPosition
from tests.api_client import Api, idle_api

TELLING = ("subscribe", "unsubscribe", "disconnect", "refresh")


async def told(api: Api) -> list[Directive | None]:
    """Return all that was told to the edges."""
    records = await api.store.control.read("0-0", limit=100, block_s=0)
    return [decode(record) for _, record in records]


async def test_calls_tell_the_edges() -> None:
    """Each call becomes one directive, and its result is empty."""
    base64_json = base64.b64encode(b'{\n"b": 1}').decode()
    async with idle_api() as api:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("subscribe", {"user": "u", "channel": "a"}),
            (
                "subscribe",
                {
                    "user": "u",
                    "client": "c",
                    "session": "s",
                    "channel": "a",
                    "b64info": base64_json,
                    "data": {"n": 12345678901234567890123},
                    "recover_since": {"offset": 3, "epoch": "e"},
                    "expire_at": 99,
                    "override": {"presence": {"value": True}, "join_leave": None},
                },
            ),
            ("unsubscribe", {"user": "u", "channel": "a"}),
            ("disconnect", {"user": "u"}),
            ("disconnect", {"user": "u", "whitelist": ["x"], "disconnect": {"code": 4000}}),
            ("refresh", {"user": "u", "expired": True}),
            ("refresh", {"client": "c", "expire_at": 99, "info": [1]}),
        ]
        for method, request in calls:
            assert await api.call(method, **request) == {"result": {}}
        assert await told(api) == [
            SubscribeClients(user="u", channel="a"),
            SubscribeClients(
                user="u",
                client="c",
                session="s",
                channel="a",
                info=Raw(b'{ "b": 1}'),
                data=Raw(b'{"n":12345678901234567890123}'),
                since=StreamPosition(3, "e"),
                expire_at_s=99,
                override={"presence": True},
            ),
            UnsubscribeClients(user="u", channel="a"),
            DisconnectClients(user="u", code=3503, reason="force disconnect"),
            DisconnectClients(user="u", code=4000, whitelist=["x"]),
            RefreshClients(user="u", expired=True),
            RefreshClients(client="c", expire_at_s=99, info=Raw(b"[1]")),
        ]


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        *((method, {"channel": "a"}, 107) for method in TELLING),
        *((method, {"user": "u", "channel": ""}, 107) for method in TELLING[:2]),
        *((method, {"user": "u", "channel": "nowhere:a"}, 102) for method in TELLING[:2]),
        ("subscribe", {"user": "u", "channel": "a", "b64data": "?"}, 107),
        ("subscribe", {"user": "u", "channel": "a", "b64info": "Pw=="}, 107),
        ("disconnect", {"user": "u", "disconnect": {"code": 2999}}, 107),
        ("disconnect", {"user": "u", "disconnect": {"code": 5000}}, 107),
        ("subscribe", {"user": "u", "channel": "a", "data": "x" * 65_536}, 107),
        ("disconnect", {"user": "u", "whitelist": ["x" * 36] * 2_000}, 107),
        ("history_remove", {"channel": ""}, 107),
        ("history_remove", {"channel": "nowhere:a"}, 102),
        ("history_remove", {"channel": "plain:a"}, 108),
        ("rpc", {"method": "x"}, 108),
    ],
)
async def test_what_cannot_be_is_refused(method: str, request_: dict[str, Any], code: int) -> None:
    """The error says why, and nobody is told."""
    async with idle_api() as api:
        answer = await api.call(method, **request_)
        assert answer["error"]["code"] == code
        assert await told(api) == []


@pytest.mark.parametrize(
    "more",
    [{"expire_at": -1}, {"expire_at": 2**60}, {"recover_since": {"offset": -1}}, {"user": 7}],
)
async def test_what_is_not_of_the_shape_is_a_400(more: dict[str, Any]) -> None:
    """Numbers that no edge could read are refused where they come in."""
    async with idle_api() as api:
        request = {"user": "u", "channel": "a", **more}
        assert (await api.http.post("/api/subscribe", json=request)).status_code == 400
        assert await told(api) == []


async def test_history_remove_empties_the_channel() -> None:
    """The position stays."""
    store = MemoryStore(4)
    group = Group("news", [b'{"data":1}'], [(0, "1-0")], history_size=9, history_ttl_s=9)
    store.commit([Commit(0, [Claim(0, "0-0", "1-0")], [group], [], [])])
    async with idle_api(store) as api:
        assert await api.call("history_remove", channel="news") == {"result": {}}
        found = (await api.call("history", channel="news", limit=-1))["result"]
    assert (found["offset"], found["publications"]) == (1, [])


async def test_channels_are_listed_without_a_body() -> None:
    """Nothing has to be asked."""
    async with idle_api() as api:
        response = await api.http.post("/api/channels")
        assert response.json() == {"result": {"channels": {"like ": {"num_clients": 2}}}}


async def old(api: Api, body: bytes, **headers: str) -> httpx.Response:
    """Call the old single endpoint."""
    return await api.http.post("/api", content=body, headers=headers)


async def test_old_endpoint_answers_line_by_line() -> None:
    """Each command has its reply, in order, with its id where it had one."""
    body = b"""{"id": 1, "method": "unsubscribe", "params": {"user": "u", "channel": "a"}}

{"method":"info","params":{}}
{"id":3,"method":"info","params":null}
{"id":3,"method":"info"}
{"id":4,"method":"dance","params":{}}
{"id":5,"method":"presence","params":{"channel":"news"}}
{"id":6,"method":"presence","params":{"channel":7}}
"""
    async with idle_api() as api:
        response = await old(api, body)
    assert response.status_code == 200
    replies = [httpx.Response(200, content=line).json() for line in response.content.splitlines()]
    assert replies[:4] == [
        {"id": 1, "result": {}},
        {"result": {"nodes": []}},
        {"id": 3, "result": {"nodes": []}},
        {"id": 3, "result": {"nodes": []}},
    ]
    assert [(r["id"], r["error"]["code"]) for r in replies[4:]] == [(4, 104), (5, 108), (6, 107)]


async def test_old_endpoint_refuses_what_is_no_command() -> None:
    """A line that cannot be read is a 400, and nothing is done; a wrong key is a 401."""
    line = b'{"method":"disconnect","params":{"user":"u"}}\n'
    async with idle_api() as api:
        assert (await old(api, line + b"{")).status_code == 400
        assert (await old(api, line * 10_001)).status_code == 400
        assert (await old(api, b" \n")).status_code == 400
        refused = await old(api, line, **{"X-API-Key": "wrong"})
        assert (refused.status_code, refused.content) == (401, b"")
        assert (await api.http.get("/api")).status_code == 405
        assert await told(api) == []


@pytest.mark.parametrize(
    ("method", "request_", "status"),
    [
        ("unsubscribe", {"user": "u", "channel": "nowhere:a"}, 404),
        ("unsubscribe", {"channel": "a"}, 400),
        ("rpc", {}, 400),
    ],
)
async def test_error_mode_transport_has_a_status_for_each_code(
    method: str, request_: dict[str, Any], status: int
) -> None:
    """The error is the body itself."""
    headers = {"X-Centrifugo-Error-Mode": "transport"}
    async with idle_api() as api:
        response = await api.http.post(f"/api/{method}", json=request_, headers=headers)
    assert response.status_code == status
    assert set(response.json()) == {"code", "message"}


async def test_openapi_describes_every_call() -> None:
    """Each has its shape, and what must be given is marked."""
    async with idle_api() as api:
        document = (await api.http.get("/openapi.json")).json()
    names = {path.removeprefix("/api/") for path in document["paths"] if path.startswith("/api/")}
    assert names >= {
        "publish", "broadcast", "batch", "subscribe", "unsubscribe", "disconnect", "refresh",
        "presence", "presence_stats", "history", "history_remove", "channels", "info", "rpc",
    }  # fmt: skip
    schema = document["components"]["schemas"]["SubscribeRequest"]
    assert schema["required"] == ["channel"]
