"""Edges as Ray Serve replicas: whatever stops one, its clients are sent away first."""

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from actors.settings.client import ClientSettings
from actors.settings.tree import EdgeSettings, Settings
from tests.conftest import free_port

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(240),
    # Of Ray Serve's own making; it is imported in the tests, where this holds.
    pytest.mark.filterwarnings("ignore"),
]


def redeploy(settings: Settings, url: str) -> None:
    """Replace the edges by a rolling update."""
    from serve import app  # noqa: PLC0415 - it warns: see pytestmark

    app.deploy(settings, url, "key", "secret")


def delete(settings: Settings, _url: str) -> None:
    """Stop the application."""
    import ray.serve  # noqa: PLC0415 - it warns: see pytestmark

    ray.serve.delete(settings.app)


def shut_down(_settings: Settings, _url: str) -> None:
    """Stop Serve, as `serve shutdown` does."""
    import ray.serve  # noqa: PLC0415 - it warns: see pytestmark

    ray.serve.shutdown()  # type: ignore[no-untyped-call] # Ray's


async def connected(listen: str) -> ClientConnection:
    """A client that is connected."""
    socket = await connect(f"ws://{listen}/connection/websocket")
    await socket.send('{"id":1,"connect":{}}')
    assert json.loads(await socket.recv())["id"] == 1
    return socket


async def test_clients_are_sent_away_on_both_ways_in(
    local_ray: None, valkey_url: str, tmp_path: Path
) -> None:
    """3001, which makes them come back, long before Serve would kill the replica."""
    serve_listen = f"127.0.0.1:{free_port()}"
    settings = Settings()
    stops: list[Callable[[Settings, str], None]] = [redeploy, delete, shut_down]
    try:
        for stop in stops:
            settings = Settings(
                app=f"t{uuid.uuid4().hex[:8]}",
                data=tmp_path,
                edge=EdgeSettings(
                    listen=f"127.0.0.1:{free_port()}", serve_listen=serve_listen, num_cpus=0.1
                ),
                client=ClientSettings(allow_anonymous=True),
            )
            await asyncio.to_thread(redeploy, settings, valkey_url)
            sockets = [await connected(settings.edge.listen), await connected(serve_listen)]
            stopping = asyncio.create_task(asyncio.to_thread(stop, settings, valkey_url))
            # `serve shutdown` kills Serve's own proxies first (`ProxyState.shutdown`), and with
            # them what came through them, without a word to anybody.
            for socket in sockets[:1] if stop is shut_down else sockets:
                with pytest.raises(ConnectionClosed) as closed:
                    await asyncio.wait_for(socket.recv(), 60)
                assert closed.value.rcvd is not None, stop
                assert closed.value.rcvd.code == 3001
            await stopping
            if stop is redeploy:
                await asyncio.to_thread(delete, settings, valkey_url)
    finally:
        await asyncio.to_thread(shut_down, settings, valkey_url)
