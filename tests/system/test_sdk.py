"""The SDKs at a whole running system: `raywire up`, with Ray, Valkey and a token of its own."""

import uuid
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import System
from tests.sdk.cable import cable_to
from tests.sdk.client import Options
from tests.sdk.kinds import JAVASCRIPT, PYTHON, Kind

pytestmark = [pytest.mark.sdk, pytest.mark.ray]


@pytest.mark.parametrize("kind", [*JAVASCRIPT, *PYTHON], ids=str)
async def test_discussion_with_a_cut(system: System, kind: Kind) -> None:
    """Connect with a token of `raywire token`, be there, miss comments, and get them all."""
    channel = f"discussion:{uuid.uuid4().hex[:8]}"
    token = system.raywire("token", "--user", "ann").stdout.strip()
    headers = {"X-API-Key": system.api_key}
    async with (
        cable_to(urlsplit(system.url).netloc) as cable,
        kind.client(cable.address, Options(token)) as ann,
        httpx.AsyncClient(base_url=system.url, headers=headers, timeout=20) as http,
    ):

        async def comment(text: str) -> None:
            data = {"author": "Bob", "text": text}
            answer = await http.post("/api/publish", json={"channel": channel, "data": data})
            assert "result" in answer.json()

        await ann.call("connect")
        client = (await ann.hear("connected"))["client"]
        assert (await ann.subscribe(channel))["recoverable"]
        assert (await ann.hear("join"))["info"]["user"] == "ann"
        assert list((await ann.call("presence", channel))["clients"]) == [client]
        await comment("one")
        assert [data["text"] for data in await ann.data(1)] == ["one"]

        await cable.cut()
        await ann.hear("connecting")
        await comment("two")
        await comment("three")
        await cable.mend()
        again = await ann.hear("subscribed")
        assert (again["was_recovering"], again["recovered"]) == (True, True)
        await comment("four")
        assert [data["text"] for data in await ann.data(3)] == ["two", "three", "four"]
        found = await ann.call("history", channel, {"limit": 2, "reverse": True})
        assert [p["offset"] for p in found["publications"]] == [4, 3]
