"""The server API in the shapes of Centrifugo's, with a pipeline of plain classes behind it."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.errors import UnavailableError
from actors.message import DeadLetter, Meta
from actors.metrics import Numbers
from actors.settings.tree import (
    EdgeSettings,
    QueueSettings,
)
from actors.store.memory.store import MemoryStore
from serve.api.shapes import BODY_BYTES_MAX
from tests.api_client import KEY, SETTINGS, Api, idle_api, pipeline


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """The API with a pipeline behind it."""
    async with idle_api() as made, pipeline(made.store):
        yield made


async def test_publish_answers_with_the_position(api: Api) -> None:
    """Offset and epoch of the commit are the result."""
    first = await api.call("publish", channel="news", data={"n": 1})
    second = await api.call("publish", channel="news", data={"n": 2})

    assert first["result"]["offset"] == 1
    assert second["result"] == {"offset": 2, "epoch": first["result"]["epoch"]}


async def test_publish_without_history_has_no_position(api: Api) -> None:
    """A channel without history gives no offset, and neither does `skip_history`."""
    assert await api.call("publish", channel="plain:x", data=1) == {"result": {}}
    assert await api.call("publish", channel="news", data=1, skip_history=True) == {"result": {}}


async def test_data_is_kept_byte_for_byte(api: Api) -> None:
    """Numbers keep all their digits, and newlines between tokens are gone."""
    body = b'{"channel":"news","data":{"n":\n12345678901234567890123.10}}'

    response = await api.http.post("/api/publish", content=body)
    history = await api.http.post("/api/history", json={"channel": "news", "limit": 1})

    assert response.json()["result"]["offset"] == 1
    assert b'"data":{"n": 12345678901234567890123.10}' in history.content


async def test_tags_base64_and_null_fields(api: Api) -> None:
    """Optional fields may be null; base64 data is JSON text."""
    b64data = base64.b64encode(b'{"a":1}').decode()

    await api.call("publish", channel="news", b64data=b64data, tags={"k": "v"}, delta=None)
    found = await api.call("history", channel="news", limit=-1)

    assert found["result"]["publications"] == [{"offset": 1, "tags": {"k": "v"}, "data": {"a": 1}}]


async def test_idempotency_key_takes_effect_once(api: Api) -> None:
    """The second publish with a key gets the first one's result."""
    first = await api.call("publish", channel="news", data=1, idempotency_key="k")
    again = await api.call("publish", channel="news", data=1, idempotency_key="k")

    assert first == again
    assert (await api.call("history", channel="news"))["result"]["offset"] == 1


async def test_stale_version_has_no_effect(api: Api) -> None:
    """Its result is the top position, alone, in a broadcast, in a batch and in the old form."""
    stale = {"data": 0, "version": 2**63, "version_epoch": "e"}
    fresh = await api.call("publish", channel="news", **{**stale, "version": 2**63 + 1})
    result = await api.call("publish", channel="news", **stale)
    assert result == fresh
    top = fresh["result"]

    broadcast = await api.call("broadcast", channels=["news", "other"], **stale)
    assert broadcast["result"]["responses"][0] == {"result": top}
    assert broadcast["result"]["responses"][1]["result"]["offset"] == 1
    commands = [{"publish": {"channel": "news", **stale}} for _ in range(2)]
    for parallel in (False, True):
        batch = await api.call("batch", commands=commands, parallel=parallel)
        assert batch["replies"] == [{"publish": top}, {"publish": top}]
    command = {"method": "publish", "params": {"channel": "news", **stale}}
    assert (await api.http.post("/api", json=command)).json() == {"result": top}

    anew = await api.call("publish", channel="news", data=1, version=1, version_epoch="f")
    assert anew["result"]["offset"] == 2
    assert (await api.call("history", channel="news", limit=-1))["result"]["offset"] == 2


async def test_version_means_nothing_without_history(api: Api) -> None:
    """There is nothing that it could be held against, as in Centrifugo."""
    for version in (2, 1):
        for where in ({"channel": "plain:x"}, {"channel": "news", "skip_history": True}):
            assert await api.call("publish", data=1, version=version, **where) == {"result": {}}
    ends = dict.fromkeys(range(4), "0-0")
    records = await api.store.read_feed(ends, limit=100, block_s=0)
    assert sum(len(record.bodies) for record in records) == 4


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"data": 1}, 107),
        ({"channel": "a b", "data": 1}, 107),
        ({"channel": "news"}, 107),
        ({"channel": "news", "b64data": "%"}, 107),
        ({"channel": "news", "b64data": base64.b64encode(b"{").decode()}, 107),
        ({"channel": "news", "data": "x" * 2000}, 107),
        ({"channel": "news", "data": 1, "tags": {"k": "x" * 2000}}, 107),
        ({"channel": "news", "data": 1, "idempotency_key": "k" * 256}, 107),
        ({"channel": "news", "data": 1, "version": -1}, 107),
        ({"channel": "news", "data": 1, "version": 2**64}, 107),
        ({"channel": "news", "data": 1, "version": 1, "version_epoch": "é" * 128}, 107),
        ({"channel": "nowhere:x", "data": 1}, 102),
        ({"channel": "poison", "data": 1}, 422),
    ],
)
async def test_message_that_cannot_be_published(
    api: Api, request_: dict[str, Any], code: int
) -> None:
    """What breaks a rule is answered with status 200 and an error."""
    answer = await api.call("publish", **request_)

    assert answer["error"]["code"] == code
    assert answer["error"]["message"]


async def test_broadcast_answers_for_each_channel(api: Api) -> None:
    """Responses come in the order of the channels; one that fails does not stop the others."""
    answer = await api.call("broadcast", channels=["a", "nowhere:x", "b", "poison"], data=1)

    responses = answer["result"]["responses"]
    assert [r.get("result", {}).get("offset") for r in responses] == [1, None, 1, None]
    assert [r.get("error", {}).get("code") for r in responses] == [None, 102, None, 422]


@pytest.mark.parametrize("parallel", [False, True])
async def test_batch_replies_in_order(api: Api, parallel: bool) -> None:
    """Each command has a reply under its own name, or an error; no result around them."""
    answer = await api.call(
        "batch",
        parallel=parallel,
        commands=[
            {"publish": {"channel": "news", "data": 1}},
            {"publish": {"channel": "news", "data": 2}},
            {"broadcast": {"channels": ["news"], "data": 3}},
            {"publish": {"channel": "nowhere:x", "data": 4}},
            {"publish": {"channel": "news", "data": 1, "version": -2}},
            {"presence_stats": {"channel": "room:1"}},
            {"presence": {"channel": "news"}},
            {"unknown": {"method": "x"}},
            {"info": {}},
            {"rpc": {"method": "x"}},
            {"channels": {"pattern": "n*"}},
            {"history_remove": {"channel": "news"}},
            {"unsubscribe": {"user": "u", "channel": "news"}},
        ],
    )

    replies = answer["replies"]
    assert [r["publish"]["offset"] for r in replies[:2]] == [1, 2]
    assert replies[2]["broadcast"]["responses"][0]["result"]["offset"] == 3
    assert [r["error"]["code"] for r in replies[3:5]] == [102, 107]
    assert replies[5] == {"presence_stats": {"num_clients": 0, "num_users": 0}}
    assert [r["error"]["code"] for r in replies[6:8]] == [108, 104]
    assert replies[8] == {"info": {"nodes": []}}
    assert replies[9]["error"]["code"] == 108
    assert replies[10:] == [
        {"channels": {"channels": {"like n*": {"num_clients": 2}}}},
        {"history_remove": {}},
        {"unsubscribe": {}},
    ]


async def test_batch_one_after_the_other_sees_its_own_effects(api: Api) -> None:
    """Without `parallel`, a command begins when the one before has its result."""
    answer = await api.call(
        "batch",
        commands=[
            {"publish": {"channel": "news", "data": 1}},
            {"history": {"channel": "news", "limit": 1}},
        ],
    )

    assert answer["replies"][1]["history"]["publications"][0]["data"] == 1


PUBLISHES = [{"publish": {"channel": "news", "data": n}} for n in range(3)]
LINES = b"\n".join(
    b'{"method": "publish", "params": {"channel": "news", "data": %d}}' % n for n in range(3)
)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/batch", json.dumps({"commands": PUBLISHES}).encode()), ("/api", LINES)],
)
async def test_what_has_not_begun_when_the_client_goes_is_left_out(
    api: Api, path: str, body: bytes
) -> None:
    """It would come after what the client sends again."""
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 1:
            return {"type": "http.request", "body": body}
        if asked == 2:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        del message

    headers = [(b"x-api-key", KEY.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    async with asyncio.timeout(5):
        await api.app({**scope, "headers": headers}, receive, send)
    history = await api.call("history", channel="news", limit=-1)

    assert [each["data"] for each in history["result"]["publications"]] == [0]


class AwayStore(MemoryStore):
    """Its queue cannot be reached; its histories can."""

    async def enqueue(self, *args: Any, **options: Any) -> int:
        raise UnavailableError("away")


BRIEF = SETTINGS.model_copy(update={"edge": EdgeSettings(publish_timeout_s=0.05)})


async def test_batch_one_after_the_other_waits_once_for_a_server_that_is_away() -> None:
    """What comes after is not tried: temporary errors, one for each command."""
    broadcast = {"broadcast": {"channels": ["news"], "data": 1}}
    history = {"history": {"channel": "news"}}
    for first in (PUBLISHES[0], broadcast):
        async with idle_api(AwayStore(4), BRIEF) as api:
            answer = await api.call("batch", commands=[history, first, broadcast, history])
        replies = answer["replies"]
        assert "history" in replies[0]
        assert '"code": 100' in json.dumps(replies[1])
        assert [reply["error"]["code"] for reply in replies[2:]] == [100, 100]
        assert "not tried" in replies[2]["error"]["message"]


async def test_old_form_waits_once_for_a_server_that_is_away() -> None:
    """As a batch does; each reply has the id of its line."""
    body = b"\n".join(
        b'{"id":%d,"method":"publish","params":{"channel":"news","data":1}}' % n for n in (1, 2)
    )
    async with idle_api(AwayStore(4), BRIEF) as api:
        response = await api.http.post("/api", content=body)
    replies = [json.loads(line) for line in response.content.splitlines()]
    assert [(reply["id"], reply["error"]["code"]) for reply in replies] == [(1, 100), (2, 100)]
    assert "not tried" in replies[1]["error"]["message"]


@pytest.mark.parametrize("parallel", [False, True])
async def test_channels_of_a_request_are_limited(api: Api, parallel: bool) -> None:
    """To 10,000, as are commands; in a batch each channel counts as a command."""
    publish = {"publish": {"channel": "news", "data": 1}}
    half = {"broadcast": {"channels": ["news"] * 5_000, "data": 1}}

    many = await api.call("broadcast", channels=["news"] * 10_001, data=1)
    most = await api.call("broadcast", channels=["nowhere:x"] * 10_000, data=1)
    batch = await api.call("batch", parallel=parallel, commands=[half, publish, half])

    old = [
        {"method": name, "params": given}
        for each in (half, publish, half)
        for name, given in each.items()
    ]
    lines = await api.http.post("/api", content="\n".join(map(json.dumps, old)))

    assert many["error"]["code"] == batch["error"]["code"] == 107
    assert lines.status_code == 400
    assert len(most["result"]["responses"]) == 10_000
    assert (await api.call("history", channel="news"))["result"]["offset"] == 0


async def test_large_parallel_batch_keeps_the_order(api: Api) -> None:
    """Publications of one channel are committed in the order of the commands."""
    commands = [{"publish": {"channel": "news", "data": n}} for n in range(20)]

    answer = await api.call("batch", parallel=True, commands=commands)

    assert [r["publish"]["offset"] for r in answer["replies"]] == list(range(1, 21))


async def test_history(api: Api) -> None:
    """Forward, backward, limited, from a position, or the position alone."""
    for n in range(1, 6):
        await api.call("publish", channel="news", data=n)

    async def data(**request: Any) -> list[int]:
        found = (await api.call("history", channel="news", **request))["result"]
        assert found["offset"] == 5
        return [p["data"] for p in found["publications"]]

    assert await data() == []
    assert await data(limit=-1) == [1, 2, 3, 4, 5]
    assert await data(limit=2) == [1, 2]
    assert await data(limit=2, reverse=True) == [5, 4]
    assert await data(limit=-1, since={"offset": 3}) == [4, 5]
    assert await data(limit=-1, since={"offset": 3}, reverse=True) == [2, 1]


async def test_history_shows_who_published(api: Api) -> None:
    """What a client has published has its `info`, beside the rest; others have none."""
    info = {"user": "u", "client": "c1", "conn_info": {"name": "U"}}
    await api.intake.publish("news", b"1", Meta(info=info, tags={"k": "v"}))
    await api.call("publish", channel="news", data=2)
    found = (await api.call("history", channel="news", limit=-1))["result"]["publications"]
    assert found == [
        {"offset": 1, "data": 1, "tags": {"k": "v"}, "info": info},
        {"offset": 2, "data": 2},
    ]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "plain:x"}, 108),
        ({"channel": "nowhere:x"}, 102),
        ({"channel": ""}, 107),
        ({"channel": "news", "since": {"offset": 1, "epoch": "other"}}, 112),
        ({"channel": "news", "since": {"offset": 0}, "reverse": True}, 107),
    ],
)
async def test_history_that_cannot_be(api: Api, request_: dict[str, Any], code: int) -> None:
    """Each reason has its code."""
    assert (await api.call("history", **request_))["error"]["code"] == code


async def test_presence(api: Api) -> None:
    """Who is there, with their info as it was given; 108 where it is off."""
    info = {"user": "u", "client": "c1", "conn_info": {"name": "U"}}
    await api.store.enter("room:1", "c1", json.dumps(info).encode(), ttl_s=60, announce=False)

    found = await api.call("presence", channel="room:1")
    stats = await api.call("presence_stats", channel="room:1")

    assert found == {"result": {"presence": {"c1": info}}}
    assert stats == {"result": {"num_clients": 1, "num_users": 1}}
    assert (await api.call("presence_stats", channel="news"))["error"]["code"] == 108


async def test_info_lists_edges_that_live(api: Api) -> None:
    """Other parts, and edges that have fallen silent, are left out."""
    numbers = Numbers("edge").snapshot() | {"gauges": {"num_clients": 3, "uptime_s": 7.5}}
    api.store.write_stats("edge:e1", numbers)
    api.store.write_stats("edge:e2", numbers | {"at_s": 1.0})
    api.store.write_stats("nozzle:0", Numbers("nozzle").snapshot())

    nodes = (await api.call("info"))["result"]["nodes"]

    assert [(n["uid"], n["num_clients"], n["uptime"]) for n in nodes] == [("e1", 3, 7)]
    assert {"name", "version", "num_users", "num_channels", "num_subs"} <= set(nodes[0])


async def test_dead_letter_is_listed_shown_and_replayed(api: Api) -> None:
    """What died stands in the list, and goes through the queue again; then it is another letter."""
    await api.call("publish", channel="poison", data=1, tags={"k": "v"})
    api.store.dead_letters.append(
        0, [DeadLetter(0, "5000-0", "news", '{"n":1}', '{"wait":"x"}', "clean", "no", "tb", 3, 9.5)]
    )

    listed = (await api.call("dead_list", channel="news"))["result"]
    (letter,) = listed["letters"]
    shown = (await api.call("dead_show", id=letter["id"]))["result"]
    replayed = await api.call("dead_replay", ids=[letter["id"]])
    again = await api.call("dead_replay", ids=[letter["id"]])
    async with asyncio.timeout(5):
        while not (found := await api.call("history", channel="news", limit=1))["result"]["offset"]:
            await asyncio.sleep(0)

    assert listed["total"] == 2
    assert letter == {
        "id": letter["id"], "channel": "news", "stage": "clean", "error": "no", "attempts": 3,
        "queued_at_s": 5.0, "died_at_s": 9.5,
    }  # fmt: skip
    assert shown == letter | {
        "entry": "5000-0", "data": {"n": 1}, "is_json": True, "tags": {}, "info": None,
        "meta": {}, "traceback": "tb", "obstacle": None,
    }  # fmt: skip
    assert replayed["result"] == {
        "replayed": 1, "gone": 0, "refused": 0, "reasons": [], "full": [],
    }  # fmt: skip
    assert again["result"]["gone"] == 1
    assert found["result"]["publications"] == [{"offset": 1, "data": {"n": 1}}]


async def test_dead_letters_that_would_die_again_stay(api: Api) -> None:
    """Each has its reason: damaged, too large, or of a namespace that is not in the settings."""
    bad = {"{": "news", "1": "nowhere:x", '"' + "x" * 2000 + '"': "news"}
    letters = [DeadLetter(0, "5-0", c, d, "", "queue", "no", "", 1, 9.5) for d, c in bad.items()]
    api.store.dead_letters.append(0, letters)

    result = (await api.call("dead_replay", all=True))["result"]

    assert (result["replayed"], result["refused"]) == (0, 3)
    reasons = [each["reason"] for each in result["reasons"]]
    for reason, text in zip(reasons, ("not JSON", "unknown namespace", "larger"), strict=True):
        assert text in reason
    assert (await api.call("dead_drop", stage="queue"))["result"] == {"dropped": 3, "gone": 0}
    assert (await api.call("dead_list"))["result"] == {"letters": [], "total": 0}


async def test_dead_replay_into_a_full_queue_is_a_429() -> None:
    """Nothing happened; it may be tried again later."""
    full = SETTINGS.model_copy(update={"queue": QueueSettings(partitions=4, entries_max=1)})
    async with idle_api(settings=full) as api:
        letters = [DeadLetter(2, "5-0", "news", "1", "", "clean", "no", "", 1, 9.5)] * 2
        api.store.dead_letters.append(2, letters)
        first = await api.call("dead_replay", all=True)
        second = await api.http.post("/api/dead_replay", json={"all": True})

    assert (first["result"]["replayed"], first["result"]["full"]) == (1, [2])
    assert (second.status_code, second.json()["error"]["code"]) == (429, 111)


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("dead_show", {}, 107),
        ("dead_show", {"id": "oops"}, 107),
        ("dead_show", {"id": "0-1-1"}, 108),
        ("dead_list", {"limit": -1}, 107),
        ("dead_list", {"limit": 1001}, 107),
        ("dead_replay", {}, 107),
        ("dead_replay", {"all": False}, 107),
        ("dead_replay", {"ids": ["oops"]}, 107),
        ("dead_replay", {"ids": [], "all": True}, 107),
        ("dead_drop", {}, 107),
        ("dead_drop", {"channel": "a", "all": True}, 107),
        ("dead_drop", {"ids": ["0-1-1"] * 1001}, 107),
    ],
)
async def test_dead_call_that_is_wrong(
    api: Api, method: str, request_: dict[str, Any], code: int
) -> None:
    """Nothing is replayed or dropped by accident: the call says which."""
    assert (await api.call(method, **request_))["error"]["code"] == code


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"X-API-Key": ""}])
async def test_wrong_key_is_a_bare_401(api: Api, headers: dict[str, str]) -> None:
    """The body is not even read."""
    response = await api.http.post("/api/publish", headers=headers, content=b"{")

    assert (response.status_code, response.content) == (401, b"")


async def test_key_may_come_otherwise(api: Api) -> None:
    """In the header Authorization, or in the query."""
    del api.http.headers["X-API-Key"]
    apikey = {"Authorization": f"apikey {KEY}"}

    assert (await api.http.post("/api/info", headers=apikey)).status_code == 200
    assert (await api.http.post("/api/info", params={"api_key": KEY})).status_code == 200
    assert (await api.http.post("/api/info")).status_code == 401


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"channel": 7}', b"\xff", b"[" * 100_000])
async def test_body_that_cannot_be_read_is_a_400(api: Api, body: bytes) -> None:
    """Not JSON, or not of the shape: one line of text."""
    response = await api.http.post("/api/publish", content=body)

    assert response.status_code == 400
    assert response.headers["content-type"].startswith("text/plain")


async def test_body_over_the_limit_is_a_413(api: Api) -> None:
    """Whether it says its size or not."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 2**20

    said = await api.http.post("/api/batch", content=b" " * (BODY_BYTES_MAX + 1))
    unsaid = await api.http.post("/api/batch", content=chunks())

    assert (said.status_code, unsaid.status_code) == (413, 413)


async def test_unknown_method_and_verb(api: Api) -> None:
    """404 and 405."""
    assert (await api.http.post("/api/nothing", json={})).status_code == 404
    assert (await api.http.get("/api/publish")).status_code == 405


@pytest.mark.parametrize("path", ["/api/publish/", "/api/", "/health/"])
async def test_path_with_a_slash_too_many_is_a_404(api: Api, path: str) -> None:
    """A redirect would go to the scheme that the edge sees, with the key in its query."""
    for method in ("POST", "GET"):
        response = await api.http.request(method, path, params={"api_key": KEY}, json={})
        assert response.status_code == 404


async def test_transport_error_mode(api: Api) -> None:
    """On request the error is the body, with a status of its own."""
    mode = {"X-Centrifugo-Error-Mode": "transport"}

    unknown = await api.http.post(
        "/api/publish", json={"channel": "nowhere:x", "data": 1}, headers=mode
    )
    off = await api.http.post("/api/presence", json={"channel": "news"}, headers=mode)

    assert (unknown.status_code, unknown.json()["code"]) == (404, 102)
    assert (off.status_code, off.json()["code"]) == (400, 108)


async def test_full_queue_is_a_429() -> None:
    """With error 111, and when to try again."""
    full = SETTINGS.model_copy(update={"queue": QueueSettings(partitions=4, entries_max=1)})
    async with idle_api(settings=full) as api:
        waiting = asyncio.create_task(api.call("broadcast", channels=["news", "news"], data=1))
        async with asyncio.timeout(2):
            await api.store._wait_for(lambda: [q for q in api.store._queues.values() if q], 2)
        response = await api.http.post("/api/publish", json={"channel": "news", "data": 1})
        async with pipeline(api.store, full):
            responses = (await waiting)["result"]["responses"]

    assert response.status_code == 429
    assert response.headers["Retry-After"] == "1"
    assert response.json()["error"]["code"] == 111
    assert responses[0]["result"]["offset"] == 1
    assert responses[1]["error"]["code"] == 111


@pytest.mark.parametrize("parallel", [True, False])
async def test_full_queue_in_a_part_says_when_to_try_again(*, parallel: bool) -> None:
    """Status 200, as the other parts were accepted; error 111 in that part, and Retry-After."""
    full = SETTINGS.model_copy(
        update={
            "queue": QueueSettings(partitions=1, entries_max=1),
            "edge": EdgeSettings(publish_timeout_s=0.2),
        }
    )
    publish = {"channel": "news", "data": 1}
    commands = [
        {"broadcast": {"channels": ["news", "news"], "data": 1}},
        {"publish": publish},
    ]
    async with idle_api(settings=full) as api:
        batch = await api.http.post(
            "/api/batch", json={"commands": commands[:1], "parallel": parallel}
        )
        broadcast = await api.http.post(
            "/api/broadcast", json={"channels": ["news", "news"], "data": 1}
        )
        single = await api.http.post(
            "/api/batch", json={"commands": commands[1:], "parallel": parallel}
        )
    async with idle_api(settings=full) as api, pipeline(api.store, full):
        accepted = await api.http.post("/api/batch", json={"commands": commands[1:]})

    for response in (batch, broadcast, single):
        assert response.status_code == 200
        assert response.headers["Retry-After"] == "1"
        assert '"code":111' in response.text
    assert accepted.json()["replies"][0]["publish"]["offset"] == 1
    assert "Retry-After" not in accepted.headers


async def test_absent_server_is_a_503() -> None:
    """With error 100, and a text that says what became of the message."""

    async with idle_api(AwayStore(4), BRIEF) as api:
        response = await api.http.post("/api/publish", json={"channel": "news", "data": 1})

    assert response.status_code == 503
    assert response.json()["error"]["code"] == 100
    assert "may still take effect" in response.json()["error"]["message"]


async def test_openapi_describes_the_requests(api: Api) -> None:
    """Each route refers to a schema that is there, and to the key."""
    document = (await api.http.get("/openapi.json")).json()

    schemas = document["components"]["schemas"]
    dead = ("dead_list", "dead_show", "dead_replay", "dead_drop")
    centrifugos = ("publish", "broadcast", "batch", "history", "presence", "presence_stats", "info")
    for path in (*centrifugos, *dead):
        operation = document["paths"][f"/api/{path}"]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].rpartition("/")[2] in schemas
        assert operation["security"] == [{"apiKey": []}, {"authorization": []}, {"query": []}]
    assert schemas["PublishRequest"]["required"] == ["channel"]
    assert schemas["DeadShowRequest"]["required"] == ["id"]
    assert not schemas["DeadListRequest"]["required"]
    assert set(document["components"]["securitySchemes"]) == {"apiKey", "authorization", "query"}


async def test_health_is_found_by_a_probe(api: Api) -> None:
    """Without traffic, a message is sent through each partition; it makes no publication."""
    response = await api.http.get("/health")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert all(api.follower.moved_at(p) is not None for p in range(4))


async def test_health_checks_are_shared_and_kept(api: Api) -> None:
    """Those who ask together share one check, and those who ask soon after get its result."""
    await asyncio.gather(*(api.http.get("/health") for _ in range(5)))
    moved = [api.follower.moved_at(p) for p in range(4)]
    await api.http.get("/health")

    assert api.intake._tokens == 4
    assert moved == [api.follower.moved_at(p) for p in range(4)]


async def test_standing_pipeline_is_unhealthy_and_not_flooded() -> None:
    """Each partition without a result is named, and probed once however often one asks."""
    now = 1000.0
    async with idle_api() as api:
        api.health._clock = lambda: now
        first = await api.http.get("/health")
        now += 5
        again = await api.http.get("/health")
        queued = sum(len(queue) for queue in api.store._queues.values())
        async with pipeline(api.store):
            now += 5
            async with asyncio.timeout(2):
                await api.store._wait_for(lambda: [f for f in api.store._feeds.values() if f], 2)
            await api.health.close()

    assert first.status_code == again.status_code == 503
    assert len(first.json()["problems"]) == 4
    assert "is accepted" in first.json()["problems"][0]
    assert "no result of a probe for 5 s" in again.json()["problems"][0]
    assert queued == 4


async def test_feed_that_cannot_be_read_is_unhealthy() -> None:
    """Told at once; not which server it is, for anybody may ask."""

    class NoFeedStore(MemoryStore):
        async def read_feed(self, *args: Any, **options: Any) -> Any:
            raise UnavailableError("Valkey at redis://ann@10.0.0.1 cannot be reached")

    async with idle_api(NoFeedStore(4)) as api:
        async with asyncio.timeout(2):
            await asyncio.sleep(0)
        response = await api.http.get("/health")

    assert response.status_code == 503
    assert response.json()["problems"] == ["the feeds cannot be read"]


async def test_queue_that_is_away_is_unhealthy(caplog: pytest.LogCaptureFixture) -> None:
    """Which server it is stands in the log, once however often one asks."""
    now = 1000.0
    async with idle_api(AwayStore(4), BRIEF) as api:
        api.health._clock = lambda: now
        answers = []
        for _ in range(3):
            answers.append((await api.http.get("/health")).json())
            now += 5

    assert answers[0]["problems"] == [
        f"partition {partition}: the queue does not answer" for partition in range(4)
    ]
    assert answers == [answers[0]] * 3
    logged = [r for r in caplog.records if r.name == "serve.edge.health"]
    assert len(logged) == 1
    assert "away" in vars(logged[0])["why"]


async def test_metrics_need_the_key_unless_local(api: Api) -> None:
    """Programs on the same machine may read without it, but not on behalf of others."""
    del api.http.headers["X-API-Key"]

    local = await api.http.get("/metrics")
    with_key = await api.http.get("/metrics", params={"api_key": KEY})

    assert local.status_code == 200
    assert local.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert with_key.status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP",
        "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Original-Forwarded-For",
        "X-Envoy-External-Address",
    ],
)  # fmt: skip
async def test_metrics_by_a_proxy_need_the_key(api: Api, name: str) -> None:
    """It is on the same machine, and whom it asks for is not."""
    del api.http.headers["X-API-Key"]
    headers = {name: "anything"}

    assert (await api.http.get("/metrics", headers=headers)).status_code == 401
    asked = await api.http.get("/metrics", headers=headers, params={"api_key": KEY})
    assert asked.status_code == 200


async def test_docs_need_no_other_host(api: Api) -> None:
    """Nor is any trusted with what is typed there, such as the API key."""
    page = await api.http.get("/docs")
    assert page.status_code == 200
    links = re.findall(r"(?:src|href|url)[=:] *[\"']([^\"']+)", page.text)
    assert len(links) >= 4  # script, style, icon, OpenAPI
    for link in links:
        assert link.startswith("/")
        assert (await api.http.get(link)).status_code == 200
