"""`raywire reload` on a real system under load: nothing lost, nothing twice, all in order."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from actors.message import decode_json
from actors.partition import Keys, partition_of
from actors.store.interface import NewMessage
from actors.store.redis.edge import RedisEdgeStore
from tests.system.answered import assert_kept
from tests.system.changing_site import NAMESPACE, Site

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

RULES = """
from serve.authorise import AllowConnect, AllowRpc

VERSION = {version}

def connect(request):
    return AllowConnect(user=request.sent_headers["user"])

async def rpc(request):
    return AllowRpc([request.user, VERSION])
"""


class Load:
    """Numbered messages, published to all channels as `raywire publish` does, until it is ended."""

    def __init__(self, store: RedisEdgeStore, channels: Sequence[str]) -> None:
        self._store = store
        self._channels = channels
        self._end = asyncio.Event()
        self._ended = asyncio.Event()
        self.count = 0

    async def run(self) -> None:
        """Publish 2 messages to each channel 50 times a second."""
        while not self._end.is_set():
            for channel in self._channels:
                messages = [
                    NewMessage(channel, b'{"n":%d}' % n) for n in range(self.count, self.count + 2)
                ]
                partition = partition_of(channel, 8)
                assert await self._store.enqueue(partition, messages, entries_max=10**6) == 2
            self.count += 2
            try:
                async with asyncio.timeout(0.02):
                    await self._end.wait()
            except TimeoutError:
                pass
        self._ended.set()

    async def end(self) -> None:
        """Publish no more; on return `count` is what was published."""
        self._end.set()
        async with asyncio.timeout(30):
            await self._ended.wait()


class Follower:
    """A client that comes back whenever it is sent away, and recovers from where it was."""

    def __init__(self, url: str, channels: Sequence[str]) -> None:
        self._url = url.replace("http", "ws", 1) + "/connection/websocket"
        self._channels = channels
        self._epochs: dict[str, str] = {}
        self.found: dict[str, list[dict[str, Any]]] = {channel: [] for channel in channels}
        self.closed: list[int | None] = []
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except ConnectionClosed as closed:
                self.closed.append(closed.rcvd.code if closed.rcvd else None)
            except OSError:
                # Nobody listens at this moment; another try sees whether one does.
                await asyncio.sleep(0.02)

    async def _follow(self) -> None:
        async with connect(self._url, max_size=None) as socket:
            await socket.send('{"id":1,"connect":{}}')
            for number, channel in enumerate(self._channels, 2):
                await socket.send(json.dumps({"id": number, "subscribe": self._wish(channel)}))
            async for frame in socket:
                for line in str(frame).split("\n"):
                    if line == "{}":  # A ping wants its pong.
                        await socket.send(line)
                    else:
                        self._take(json.loads(line))

    def _wish(self, channel: str) -> dict[str, Any]:
        if channel not in self._epochs:
            return {"channel": channel}
        found = self.found[channel]
        offset = found[-1]["offset"] if found else 0
        return {
            "channel": channel,
            "recover": True,
            "epoch": self._epochs[channel],
            "offset": offset,
        }

    def _take(self, reply: dict[str, Any]) -> None:
        if "subscribe" in reply:
            channel, answer = self._channels[reply["id"] - 2], reply["subscribe"]
            assert answer.get("recovered", True), answer
            self._epochs[channel] = answer["epoch"]
            self.found[channel] += answer.get("publications", [])
            if len(self._epochs) == len(self._channels):
                self.connected.set()
        elif "pub" in reply.get("push", {}):
            self.found[reply["push"]["channel"]].append(reply["push"]["pub"])


@asynccontextmanager
async def under_load(site: Site) -> AsyncIterator[tuple[Load, list[Follower], Any]]:
    """Publish to a system all the time, and follow it on both ways in."""
    store = RedisEdgeStore(site.system.redis_url, Keys("raywire"), partitions=8)
    load = Load(store, site.channels)
    followers = [Follower(url, site.channels) for url in (site.system.url, site.system.serve_url)]
    following = [asyncio.create_task(follower.run()) for follower in followers]
    for follower in followers:
        async with asyncio.timeout(20):
            await follower.connected.wait()
    publishing = asyncio.create_task(load.run())
    try:
        yield load, followers, store
    finally:
        for task in (publishing, *following):
            task.cancel()
        await asyncio.gather(publishing, *following, return_exceptions=True)
        await store.close()


async def reload(site: Site) -> subprocess.CompletedProcess[str]:
    """Run `raywire reload`."""
    return await asyncio.to_thread(site.system.raywire, "reload", cwd=site.directory, timeout=200)


async def grown(followers: list[Follower], by: int = 20) -> None:
    """Wait until each follower has some publications more."""
    for follower in followers:
        *_, found = follower.found.values()
        wanted = len(found) + by
        async with asyncio.timeout(30):
            while len(found) < wanted:
                await asyncio.sleep(0.02)


def versions(found: list[dict[str, Any]]) -> list[Any]:
    """The versions of the code in the order in which they are seen."""
    return [
        publication["data"]["version"]
        for index, publication in enumerate(found)
        if not index or found[index - 1]["data"]["version"] != publication["data"]["version"]
    ]


async def test_reload_loses_and_repeats_nothing(site: Site) -> None:
    """New code, broken code, a namespace's settings, and what needs a restart, all under load."""
    before = site.version
    async with under_load(site) as (load, followers, store):
        await grown(followers)

        site.write_code("'two'")
        done = await reload(site)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["changed"] == []
        assert (facts["pipeline"], facts["edges"], facts["code_changed"]) == (True, False, True)
        assert facts["stood_s"] > 0
        await grown(followers)
        assert not followers[0].closed + followers[1].closed

        (site.directory / "my_code.py").write_text("from nowhere import nothing\n")
        failed = await reload(site)
        assert failed.returncode == 2
        assert "my_code.py, line 1" in failed.stderr
        assert "from nowhere import nothing" in failed.stderr
        site.write_code("'two'")
        site.version = "two"
        await grown(followers)

        site.write_settings(queue={"partitions": 4})
        refused = await reload(site)
        assert refused.returncode == 2
        assert len([line for line in refused.stderr.splitlines() if "error" in line]) == 1
        assert "queue.partitions: is fixed" in refused.stderr

        site.keep(namespaces={"c": {**NAMESPACE, "presence": True}})
        done = await reload(site)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["changed"] == ["namespaces.c.presence"]
        assert (facts["pipeline"], facts["edges"], facts["stood_s"]) == (False, True, 0)
        for follower in followers:
            assert follower.closed
            assert set(follower.closed) == {3001}
        await grown(followers)

        await load.end()
        async with asyncio.timeout(30):
            while any(
                len(follower.found[channel]) < load.count
                for follower in followers
                for channel in site.channels
            ):
                await asyncio.sleep(0.05)
        for channel in site.channels:
            kept = await store.history(channel, since=None, limit=None, meta_ttl_s=600)
            history = [
                {"offset": offset, "data": decode_json(body)["data"]}
                for offset, body in kept.publications
            ]
            for found in (history, *(follower.found[channel] for follower in followers)):
                assert [p["data"]["n"] for p in found] == list(range(load.count))
                assert [p["offset"] for p in found] == list(range(1, load.count + 1))
                assert versions(found) == [before, "two"]


FAILS_ONCE = """
import pathlib

class stamp:
    def set_up(self):
        tries = pathlib.Path(__file__).with_name("tries")
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        if len(tries.read_text()) == 2:
            raise OSError("no such model")

    def __call__(self, message):
        return message.replace(data={"n": message.data["n"], "version": 3})
"""


async def test_pipeline_that_does_not_come_up_is_taken_back(site: Site) -> None:
    """Set up by the check but not by the actors: the old settings hold, and messages go on."""
    before = site.version
    async with under_load(site) as (load, followers, _):
        await grown(followers)
        (site.directory / "my_code.py").write_text(FAILS_ONCE)
        site.keep(nozzle={"count": 2}, feed={"records_max": 5_000})
        failed = await reload(site)
        assert failed.returncode == 2
        assert "no such model" in failed.stderr
        assert "my_code.py, line 9" in failed.stderr
        assert (site.directory / "tries").read_text() == "xxx"
        await grown(followers)
        done = await reload(site)
        assert done.returncode == 0, done.stderr
        site.version = 3
        facts = json.loads(done.stdout)
        assert facts["changed"] == ["nozzle.count", "feed.records_max"]
        assert facts["pipeline"]
        assert facts["edges"]
        await grown(followers)
        await load.end()
        for found in followers[0].found.values():
            assert [p["data"]["n"] for p in found] == list(range(len(found)))
            assert versions(found) == [before, 3]


async def publish_until(
    site: Site, channel: str, end: asyncio.Event, answered: list[int], failed: list[Any]
) -> None:
    """Publish n = 0, 1, ... over HTTP, one after the other; note what becomes of each."""
    headers = {"X-API-Key": site.system.api_key}
    async with httpx.AsyncClient(base_url=site.system.url, headers=headers, timeout=30) as client:
        n = 0
        while not end.is_set():
            try:
                answer = await client.post(
                    "/api/publish", json={"channel": channel, "data": {"n": n}}
                )
            except httpx.TransportError as error:
                failed.append(error)
            else:
                if answer.status_code == 200 and "result" in answer.json():
                    answered.append(n)
                else:
                    failed.append(answer.status_code)
            n += 1


def write_rules(site: Site, version: str) -> None:
    """Write the functions; of another length each time, lest an old byte code be taken for them."""
    (site.directory / "my_rules.py").write_text(RULES.format(version=version))


async def called(url: str) -> Any:
    """Connect as ann, and call."""
    path = url.replace("http", "ws") + "/connection/websocket"
    async with asyncio.timeout(20), connect(path) as client:
        await client.send(json.dumps({"id": 1, "connect": {"headers": {"User": "ann"}}}))
        await client.recv()
        await client.send(json.dumps({"id": 2, "rpc": {}}))
        return json.loads(await client.recv())["rpc"]["data"]


async def test_publishes_answered_while_edges_are_replaced_are_kept(site: Site) -> None:
    """Each success is in the history, in order; what is not taken is 503 or a cut connection.

    The new edges have other functions, on both ways in. Functions that are broken change nothing.
    """
    answered: dict[str, list[int]] = {channel: [] for channel in site.channels}
    failed: list[Any] = []
    end = asyncio.Event()

    async def replace_edges(replicas: int, version: str | int) -> list[str]:
        write_rules(site, repr(version))
        site.keep(edge={"num_cpus": 0.1, "replicas": replicas})
        done = await reload(site)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["edges"]
        for url in (site.system.url, site.system.serve_url):
            assert await called(url) == ["ann", version]
        counts = {channel: len(found) for channel, found in answered.items()}
        async with asyncio.timeout(30):
            while any(len(answered[channel]) < counts[channel] + 5 for channel in site.channels):
                await asyncio.sleep(0.02)
        changed: list[str] = facts["changed"]
        return changed

    async with asyncio.TaskGroup() as tasks:
        for channel in site.channels:
            tasks.create_task(publish_until(site, channel, end, answered[channel], failed))
        site.keep(authorise={"connect": "my_rules:connect", "rpc": "my_rules:rpc"})
        changed = await replace_edges(2, 1)
        assert sorted(changed) == ["authorise.connect", "authorise.rpc", "edge.replicas"]
        write_rules(site, "1 / 0")
        broken = await reload(site)
        assert broken.returncode == 2
        assert "my_rules.py, line 4" in broken.stderr
        assert await called(site.system.url) == ["ann", 1]
        assert await replace_edges(1, "the second") == ["edge.replicas"]
        end.set()
    assert {f for f in failed if isinstance(f, int)} <= {503}
    await assert_kept(site.system.redis_url, answered)
