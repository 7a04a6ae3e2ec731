"""The server API's `rpc`: it calls the function that answers clients."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.settings.authorise import AuthoriseSettings
from actors.settings.tree import Settings
from tests.api_client import SETTINGS, Api, idle_api

RULES = """
from serve.authorise import AllowRpc, Deny, Disconnect

def rpc(request):
    if request.method == "nothing":
        return AllowRpc()
    if request.method == "who":
        who = [request.transport, request.client, request.user, request.info, request.meta]
        return AllowRpc(who)
    if request.method == "deny":
        return Deny(request.data, "not so")
    if request.method == "disconnect":
        return Disconnect(4500, "go away")
    if request.method == "fail":
        raise OSError("the database is away")
    return AllowRpc({"method": request.method, "data": request.data})
"""
TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that name the function; its module has a name of its own, as Python remembers."""
    name = f"api_rpc_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(RULES)
    functions = AuthoriseSettings(rpc=f"{name}:rpc")
    return SETTINGS.model_copy(update={"code": tmp_path, "authorise": functions})


async def post(api: Api, headers: dict[str, str] | None = None, **request: Any) -> tuple[int, Any]:
    response = await api.http.post("/api/rpc", json=request, headers=headers)
    return response.status_code, response.json()


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        ({"method": "m", "params": {"a": [1]}}, {"data": {"method": "m", "data": {"a": [1]}}}),
        ({"method": "m", "params": None}, {"data": {"method": "m", "data": None}}),
        ({"method": "m"}, {"data": {"method": "m", "data": None}}),
        ({"method": "who"}, {"data": ["server_api", "", "", None, None]}),
        ({"method": "nothing"}, {}),
    ],
)
async def test_function_answers(settings: Settings, request_: Any, result: Any) -> None:
    """It sees the method, the argument, and that the API calls; no client, and no user."""
    async with idle_api(settings=settings) as api:
        assert await api.call("rpc", **request_) == {"result": result}


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"method": "deny", "params": 403}, 400, {"code": 403, "message": "not so"}),
        ({"method": "deny", "params": 103}, 403, {"code": 103, "message": "not so"}),
        ({"method": "deny", "params": 104}, 404, {"code": 104, "message": "not so"}),
        ({"method": "disconnect"}, 400, {"code": 4500, "message": "go away"}),
        ({"method": ""}, 400, {"code": 107, "message": "bad request: method is missing"}),
    ],
)
async def test_refusal_is_an_error(
    settings: Settings, request_: Any, status: int, error: Any
) -> None:
    """With code and words of the function; the mode `transport` has a status for each."""
    async with idle_api(settings=settings) as api:
        assert await post(api, **request_) == (200, {"error": error})
        assert await post(api, TRANSPORT, **request_) == (status, error)


async def test_refusal_because_of_too_much_is_tried_again_later(settings: Settings) -> None:
    """A function may say 111: status 429, with Retry-After, as of a full queue."""
    async with idle_api(settings=settings) as api:
        response = await api.http.post("/api/rpc", json={"method": "deny", "params": 111})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    assert response.json()["error"] == {"code": 111, "message": "not so"}


async def test_failure_is_an_internal_error(settings: Settings) -> None:
    """100, with the status of every 100; what went wrong is in the log alone."""
    async with idle_api(settings=settings) as api:
        assert await post(api, method="fail") == (
            503,
            {"error": {"code": 100, "message": "internal server error"}},
        )


@pytest.mark.parametrize("parallel", [False, True])
async def test_batch_calls_it_too(settings: Settings, parallel: bool) -> None:
    """Each call has a reply of its own."""
    commands = [
        {"rpc": {"method": "m", "params": 1}},
        {"rpc": {"method": "deny", "params": 403}},
        {"rpc": {"method": "fail"}},
        {"rpc": {"method": "nothing"}},
    ]
    async with idle_api(settings=settings) as api:
        answer = await api.call("batch", commands=commands, parallel=parallel)
    assert answer["replies"] == [
        {"rpc": {"data": {"method": "m", "data": 1}}},
        {"error": {"code": 403, "message": "not so"}},
        {"error": {"code": 100, "message": "internal server error"}},
        {"rpc": {}},
    ]


async def test_old_endpoint_calls_it_too(settings: Settings) -> None:
    """A line each."""
    lines = [
        {"id": 1, "method": "rpc", "params": {"method": "m", "params": [1]}},
        {"id": 2, "method": "rpc", "params": {"method": "deny", "params": 403}},
    ]
    async with idle_api(settings=settings) as api:
        response = await api.http.post("/api", content="\n".join(map(json.dumps, lines)))
    assert [json.loads(line) for line in response.content.splitlines()] == [
        {"id": 1, "result": {"data": {"method": "m", "data": [1]}}},
        {"id": 2, "error": {"code": 403, "message": "not so"}},
    ]


async def test_without_a_function_nothing_answers() -> None:
    """108, whatever the method."""
    async with idle_api() as api:
        for method in ("m", ""):
            error = (await api.call("rpc", method=method))["error"]
            assert error == {"code": 108, "message": f"not available: nothing answers {method!r}"}
