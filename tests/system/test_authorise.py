"""Functions that decide what clients may do, in the edges of a real system, and their reload."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.asyncio.client import connect

from tests.conftest import System, running_system

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CODE = """
from serve.authorise import AllowConnect, AllowRpc

VERSION = {version}

def connect(request):
    return AllowConnect(user=request.sent_headers["user"])

async def rpc(request):
    return AllowRpc([request.user, VERSION])
"""


def write_code(directory: Path, version: str) -> None:
    """Of another length each time, lest an old byte code be taken for it."""
    (directory / "my_rules.py").write_text(CODE.format(version=version))


async def called(url: str) -> Any:
    """Connect as ann, and call."""
    path = url.replace("http", "ws") + "/connection/websocket"
    async with asyncio.timeout(20), connect(path) as client:
        await client.send(json.dumps({"id": 1, "connect": {"headers": {"User": "ann"}}}))
        await client.recv()
        await client.send(json.dumps({"id": 2, "rpc": {}}))
        return json.loads(await client.recv())["rpc"]["data"]


async def reload(system: System) -> tuple[int, str, str]:
    done = await asyncio.to_thread(system.raywire, "reload", cwd=system.data.parent)
    return done.returncode, done.stdout, done.stderr


async def test_new_functions_come_with_a_reload(tmp_path: Path) -> None:
    """On both ways in. The edges are replaced for them; what is broken changes nothing."""
    write_code(tmp_path, "1")
    tree = {
        "edge": {"num_cpus": 0.1},
        "authorise": {"connect": "my_rules:connect", "rpc": "my_rules:rpc"},
    }
    (tmp_path / "raywire.yaml").write_text(yaml.safe_dump(tree))
    with running_system(tmp_path / "data", "--settings", str(tmp_path / "raywire.yaml")) as system:
        for url in (system.url, system.serve_url):
            assert await called(url) == ["ann", 1]
        write_code(tmp_path, "1 / 0")
        code, _, told = await reload(system)
        assert code == 2
        assert "my_rules.py, line 4" in told
        assert await called(system.url) == ["ann", 1]
        write_code(tmp_path, '"the second"')
        code, told, _ = await reload(system)
        assert (code, json.loads(told)["edges"]) == (0, True)
        for url in (system.url, system.serve_url):
            assert await called(url) == ["ann", "the second"]
