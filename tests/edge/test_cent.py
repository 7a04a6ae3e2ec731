"""Each method of the server API, called by Centrifugo's own Python client at a real edge."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cent
import pytest

from actors.settings.authorise import AuthoriseSettings
from tests.two_edges import SETTINGS, Two, two_edges

RULES = """
from serve.authorise import AllowRpc, Deny

async def rpc(request):
    if request.method == "deny":
        return Deny(403, "not so")
    return AllowRpc([request.transport, request.data])
"""


class RPCResult(cent.CentResult):
    """What a procedure returned: cent has no class for it, but takes one of its user's."""

    data: Any = None


class RPCRequest(cent.CentRequest[RPCResult]):
    """A call of a procedure."""

    __returning__ = RPCResult
    __api_method__ = "rpc"

    method: str
    params: Any = None


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """Two edges with a pipeline behind them."""
    async with two_edges() as pair:
        yield pair


@pytest.fixture
async def api(two: Two) -> AsyncIterator[cent.AsyncClient]:
    """The client, with our key."""
    client = cent.AsyncClient(f"http://{two.asked.address}/api", "a key")
    yield client
    await client.close()


async def test_publishing_and_history(api: cent.AsyncClient) -> None:
    """Publish, broadcast, history, history_remove."""
    first = await api.publish(cent.PublishRequest(channel="news", data={"n": 1}, tags={"a": "b"}))
    assert first.offset == 1
    many = await api.broadcast(cent.BroadcastRequest(channels=["news", "plain:x"], data=2))
    assert [r.result and r.result.offset for r in many.responses] == [2, 0]
    found = await api.history(cent.HistoryRequest(channel="news", limit=10))
    assert [(p.offset, p.data, p.tags) for p in found.publications] == [
        (1, {"n": 1}, {"a": "b"}),
        (2, 2, None),
    ]
    assert (found.offset, found.epoch) == (2, first.epoch)
    await api.history_remove(cent.HistoryRemoveRequest(channel="news"))
    after = await api.history(cent.HistoryRequest(channel="news", limit=10))
    assert (after.publications, after.offset, after.epoch) == ([], 2, first.epoch)


async def test_clients(two: Two, api: cent.AsyncClient) -> None:
    """Subscribe, presence, presence_stats, channels, info, refresh, unsubscribe, disconnect."""
    async with two.client() as ann:
        override = cent.ChannelOptionsOverride(presence=cent.BoolValue(value=True))
        await api.subscribe(
            cent.SubscribeRequest(user="ann", channel="plain:x", info=1, override=override)
        )
        assert (await ann.push())["channel"] == "plain:x"
        await api.subscribe(cent.SubscribeRequest(user="ann", channel="news", info=1))
        assert (await ann.push())["channel"] == "news"
        there = await api.presence(cent.PresenceRequest(channel="news"))
        assert there.presence[ann.id].user == "ann"
        assert there.presence[ann.id].chan_info == 1
        stats = await api.presence_stats(cent.PresenceStatsRequest(channel="news"))
        assert (stats.num_clients, stats.num_users) == (1, 1)
        channels = await api.channels(cent.ChannelsRequest(pattern="new*"))
        assert {name: c.num_clients for name, c in channels.channels.items()} == {"news": 1}
        assert len((await api.info(cent.InfoRequest())).nodes) == 2
        await api.refresh(cent.RefreshRequest(user="ann"))
        assert await ann.push() == {"refresh": {}}
        await api.unsubscribe(cent.UnsubscribeRequest(user="ann", channel="news"))
        assert (await ann.push())["unsubscribe"]["code"] == 2000
        why = cent.Disconnect(code=4001, reason="go")
        await api.disconnect(cent.DisconnectRequest(user="ann", disconnect=why))
        assert await ann.closed() == (4001, "go")


async def test_batch(api: cent.AsyncClient) -> None:
    """The replies are those of the calls."""
    calls = [
        cent.PublishRequest(channel="news", data=1),
        cent.HistoryRequest(channel="news", limit=1),
        cent.ChannelsRequest(),
        cent.UnsubscribeRequest(user="nobody", channel="news"),
    ]
    published, history, channels, unsubscribed = (
        await api.batch(cent.BatchRequest(requests=calls))
    ).replies
    assert isinstance(published, cent.PublishResult)
    assert published.offset == 1
    assert isinstance(history, cent.HistoryResult)
    assert history.publications[0].data == 1
    assert isinstance(channels, cent.ChannelsResult)
    assert isinstance(unsubscribed, cent.UnsubscribeResult)


async def test_rpc(tmp_path: Path) -> None:
    """A function answers, alone and in a batch; its refusal is an error of the API."""
    (tmp_path / "cent_rules.py").write_text(RULES)
    functions = AuthoriseSettings(rpc="cent_rules:rpc")
    settings = SETTINGS.model_copy(update={"code": tmp_path, "authorise": functions})
    async with two_edges(settings) as two:
        api = cent.AsyncClient(f"http://{two.asked.address}/api", "a key")
        call = RPCRequest(method="m", params={"a": 1})
        assert (await api._send(call)).data == ["server_api", {"a": 1}]
        (reply,) = (await api.batch(cent.BatchRequest(requests=[call]))).replies
        assert isinstance(reply, RPCResult)
        assert reply.data == ["server_api", {"a": 1}]
        with pytest.raises(cent.CentApiResponseError) as error:
            await api._send(RPCRequest(method="deny"))
        assert (error.value.code, error.value.message) == (403, "not so")
        await api.close()


async def test_errors(two: Two, api: cent.AsyncClient) -> None:
    """An error is the exception that the client's users expect, and so is a wrong key."""
    with pytest.raises(cent.CentApiResponseError) as error:
        await api.publish(cent.PublishRequest(channel="nowhere:x", data=1))
    assert error.value.code == 102
    stranger = cent.AsyncClient(f"http://{two.asked.address}/api", "another key")
    with pytest.raises(cent.CentUnauthorizedError):
        await stranger.info(cent.InfoRequest())
    await stranger.close()
