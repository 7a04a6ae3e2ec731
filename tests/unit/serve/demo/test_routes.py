"""The discussion's routes: what they take, refuse, and pass on."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from actors.errors import MessageError, QueueFullError, UnavailableError
from actors.message import Ack, Meta
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import Claim, Commit, Group
from actors.store.memory.store import MemoryStore
from serve.demo.routes import COMMENTS_CHANNEL, VOTES_CHANNEL, router

SETTINGS = Settings(
    namespaces={"discussion": ChannelSettings(history_size=10, history_ttl_s=60)},
    client={"allowed_origins": ["https://*.partner.example"]},  # type: ignore[arg-type]  # pydantic converts it
)


class Pipeline:
    """What the routes publish to: it notes everything, and answers as told."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any, Meta]] = []
        self.answer: Ack | Exception = Ack(0, "", offset=7, epoch="e")

    async def publish(self, channel: str, data: bytes, meta: Meta) -> Ack:
        """Take a message."""
        self.published.append((channel, json.loads(data), meta))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def pipeline() -> Pipeline:
    """Return what takes the messages."""
    return Pipeline()


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(1)


@pytest.fixture
async def client(pipeline: Pipeline, store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the routes alone."""
    app = FastAPI()
    app.include_router(router(pipeline.publish, store, SETTINGS))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here:8000") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html"),
        ("/discussion/discussion.js", "text/javascript"),
        ("/discussion/discussion.css", "text/css"),
    ],
)
async def test_page_is_served_with_a_strict_policy(
    client: httpx.AsyncClient, path: str, media_type: str
) -> None:
    """Nothing inline, nothing from another host."""
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media_type)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_comment_is_published_and_answered_with_its_position(
    client: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    """The key goes into the meta, where it makes a repeat harmless."""
    answer = await client.post(
        "/discussion/comments", json={"author": "Ada", "text": "hi", "key": "k1"}
    )
    assert (answer.status_code, answer.json()) == (201, {"offset": 7, "epoch": "e"})
    assert pipeline.published == [
        (COMMENTS_CHANNEL, {"author": "Ada", "text": "hi"}, Meta(key="k1"))
    ]


async def test_vote_is_published(client: httpx.AsyncClient, pipeline: Pipeline) -> None:
    """It has no position: votes keep no history."""
    pipeline.answer = Ack(0, "")
    answer = await client.post("/discussion/votes", json={"comment": "17-0", "vote": -1})
    assert answer.status_code == 201
    assert pipeline.published == [(VOTES_CHANNEL, {"comment": "17-0", "vote": -1}, Meta())]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("comments", b"{", 422, "Invalid JSON"),
        ("comments", b"{}", 422, "text: Field required"),
        ("comments", b'{"text":" "}', 422, "text: write something"),
        ("comments", b'{"text":"%s"}' % (b"a" * 2001), 422, "at most 2000"),
        ("comments", b'{"text":"a","more":1}', 422, "more: Extra inputs"),
        ("comments", b'{"text":"a","key":"a b"}', 422, "key: "),
        ("comments", b" " * 20_000, 413, "larger than 16384 bytes"),
        ("votes", b'{"comment":"x","vote":1}', 422, "comment: "),
        ("votes", b'{"comment":"9999999999999999-0","vote":1}', 422, "comment: "),
        ("votes", '{"comment":"٣-٣","vote":1}'.encode(), 422, "comment: "),
        ("votes", b'{"comment":"1-1","vote":0}', 422, "vote: "),
    ],
)
async def test_bad_body_is_refused_with_the_reason(
    client: httpx.AsyncClient, pipeline: Pipeline, path: str, body: bytes, status: int, text: str
) -> None:
    """Nothing of it is published."""
    headers = {"content-type": "application/json"}
    answer = await client.post(f"/discussion/{path}", content=body, headers=headers)
    assert answer.status_code == status
    assert text in answer.json()["detail"]
    assert pipeline.published == []


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://here:8000", 201),
        ("https://here:8000", 201),
        ("https://a.partner.example", 201),
        ("HTTP://HERE:8000", 201),
        ("http://here:8001", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_posts_of_other_pages_are_refused(
    client: httpx.AsyncClient, origin: str, status: int
) -> None:
    """The page's own origin may post, and those of the settings."""
    answer = await client.post(
        "/discussion/comments", json={"text": "hi"}, headers={"origin": origin}
    )
    assert answer.status_code == status


async def test_body_that_ends_early_is_refused(pipeline: Pipeline, store: MemoryStore) -> None:
    """The client is gone; nothing is published, and nothing raised."""
    app = FastAPI()
    app.include_router(router(pipeline.publish, store, SETTINGS))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/discussion/comments",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    received = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert pipeline.published == []


async def test_form_of_another_page_is_refused(client: httpx.AsyncClient) -> None:
    """A browser sends forms to anybody without asking first."""
    answer = await client.post("/discussion/comments", content='{"text":"hi"}')
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("result", "status", "retry_after"),
    [
        (QueueFullError("full"), 429, "2"),
        (UnavailableError("gone"), 503, "2"),
        (MessageError("too large"), 422, None),
        (Ack(0, "", error="ValueError: bad"), 422, None),
        (Ack(0, ""), 422, None),
    ],
    ids=["full", "unavailable", "message", "dead", "dropped"],
)
async def test_what_went_wrong_is_passed_on(
    client: httpx.AsyncClient,
    pipeline: Pipeline,
    result: Ack | Exception,
    status: int,
    retry_after: str | None,
) -> None:
    """Later, or never: the status says which."""
    pipeline.answer = result
    answer = await client.post("/discussion/comments", json={"text": "hi"})
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json()["detail"]


async def test_comments_are_given_in_pages(client: httpx.AsyncClient, store: MemoryStore) -> None:
    """The latest, oldest first; `before` turns the page."""
    empty = (await client.get("/discussion/comments")).json()
    assert (empty["offset"], empty["publications"]) == (0, [])
    bodies = [b'{"data":{"n":%d}}' % n for n in range(1, 61)]
    group = Group(COMMENTS_CHANNEL, bodies, [(0, "1-0")] * 60, 100, 60, 60)
    store.commit([Commit(0, [Claim(0, "0-0", "1-0")], [group], [], [])])
    latest = (await client.get("/discussion/comments")).json()
    assert latest["offset"] == 60
    assert latest["publications"][0] == {"offset": 11, "data": {"n": 11}}
    assert latest["publications"][-1]["offset"] == 60
    before = (await client.get("/discussion/comments?before=11")).json()
    assert [item["offset"] for item in before["publications"]] == list(range(1, 11))
    assert (await client.get("/discussion/comments?before=x")).status_code == 422


async def test_totals_and_readers_are_given(client: httpx.AsyncClient, store: MemoryStore) -> None:
    """Counters by name, and who is there by number."""
    counts = {0: {"1-0:up": 2}}
    group = Group(VOTES_CHANNEL, [b'{"data":{"a":1}}'], [(0, "1-0")], counts=counts)
    store.commit([Commit(0, [Claim(0, "0-0", "1-0")], [group], [], [])])
    assert (await client.get("/discussion/votes")).json() == {"1-0:up": 2}
    await store.enter(COMMENTS_CHANNEL, "c", b'{"user":""}', ttl_s=60, announce=False)
    assert (await client.get("/discussion/readers")).json() == {"num_clients": 1, "num_users": 1}


async def test_reading_while_valkey_is_away(
    client: httpx.AsyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is told to come again."""

    async def away(channel: str) -> dict[str, int]:
        raise UnavailableError(channel)

    monkeypatch.setattr(store, "counters", away)
    answer = await client.get("/discussion/votes")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
