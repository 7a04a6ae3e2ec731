"""The server API on a store in memory, and a client with the key, for its tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr

from actors.message import Ack, DeadLetter, decode_batch, decode_meta, encode_batch
from actors.metrics import Numbers
from actors.nozzle import Nozzle
from actors.pacing import Backoff
from actors.publisher import Publisher
from actors.settings.tree import (
    AuthSettings,
    ChannelSettings,
    EdgeSettings,
    NozzleSettings,
    QueueSettings,
    Settings,
)
from actors.store.memory.store import MemoryStore
from serve.api.calls import ApiCalls
from serve.api.clients import ClientCalls
from serve.api.intake import Intake
from serve.authorise.call import Authoriser
from serve.edge.app import edge_app
from serve.edge.health import Health
from serve.hub.feed import FeedFollower
from tests.in_process import InProcessWay

KEY = "a key"
SETTINGS = Settings(
    queue=QueueSettings(partitions=4, entries_max=100, message_bytes_max=1000),
    channels=ChannelSettings(history_size=10, history_ttl_s=60),
    namespaces={
        "plain": ChannelSettings(),
        "room": ChannelSettings(presence=True),
    },
    edge=EdgeSettings(publish_timeout_s=1),
    auth=AuthSettings(api_key=SecretStr(KEY)),
)


class Api:
    """The app, and a client with the key."""

    def __init__(self, store: MemoryStore, settings: Settings) -> None:
        self.store = store
        self.intake = Intake(
            store,
            settings.queue,
            knows=lambda channel: settings.channel_settings(channel) is not None,
            timeout_s=settings.edge.publish_timeout_s,
            backoff=Backoff(0.01, 0.01),
        )
        partitions = range(settings.queue.partitions)
        self.follower = FeedFollower(
            store,
            partitions,
            lambda records: self.intake.resolve(ack for r in records for ack in r.acks),
            lambda _: None,
        )
        self.health = Health(self.intake, self.follower, partitions, probe_s=0.2)
        self.authoriser = Authoriser(settings.authorise, settings.code, Numbers("edge"))
        clients = ClientCalls(settings, store, self.channels, self.authoriser.rule)
        calls = ApiCalls(settings, store, self.intake, clients)
        self.app = app = edge_app(settings, store, calls, self.health, [])
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)),
            base_url="http://edge",
            headers={"X-API-Key": KEY},
        )

    async def channels(self, pattern: str) -> dict[str, int]:
        return {f"like {pattern}": 2}

    async def call(self, method: str, /, **request: Any) -> Any:
        response = await self.http.post(f"/api/{method}", json=request)
        assert response.status_code == 200, response.text
        return response.json()


def kill_poison(blob: bytes) -> bytes:
    """Do as a transform that fails on the channel `poison`."""
    batch = decode_batch(blob)
    for entry in [e for e in batch.entries if e.channel == "poison"]:
        batch.entries.remove(entry)
        token = decode_meta(entry.meta).wait
        batch.acks.append(Ack(entry.partition, token, error="ValueError: no"))
        batch.dead.append(
            DeadLetter(entry.partition, entry.id, "poison", "", "", "clean", "no", "", 3, 0.0)
        )
    return encode_batch(batch)


@asynccontextmanager
async def pipeline(store: MemoryStore, settings: Settings = SETTINGS) -> AsyncIterator[None]:
    """Run a nozzle and a publisher on the store."""
    publisher = Publisher(
        store,
        settings.channel_settings,
        Numbers("publisher"),
        partitions=settings.queue.partitions,
    )

    nozzle = Nozzle(
        store,
        InProcessWay(publisher, kill_poison),
        range(settings.queue.partitions),
        NozzleSettings(pace_s=0, block_s=0.05),
        Numbers("nozzle"),
        window=8,
        message_bytes_max=settings.queue.message_bytes_max,
    )
    running = asyncio.create_task(nozzle.run())
    try:
        yield
    finally:
        nozzle.drain()
        await running


@asynccontextmanager
async def idle_api(
    store: MemoryStore | None = None, settings: Settings = SETTINGS
) -> AsyncIterator[Api]:
    """The API without a pipeline behind it."""
    api = Api(store or MemoryStore(settings.queue.partitions), settings)
    api.follower.start()
    try:
        async with asyncio.timeout(20):
            await api.follower.ready()
            yield api
    finally:
        await api.http.aclose()
        await api.authoriser.close()
        await api.health.close()
        await api.intake.close()
        await api.follower.close()
