"""A client of the JavaScript SDK, in a Node of its own."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.conftest import needs
from tests.sdk.client import WAIT_S, CallError, Client, snake

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
LINE_BYTES_MAX = 2**20
OPTIONS = {"minReconnectDelay": 50, "maxReconnectDelay": 200, "timeout": WAIT_S * 1000}


def node() -> str:
    """Return the path of Node; without it, or without the SDK, the test cannot run."""
    found = shutil.which("node")
    if found is None:
        needs("Node.js (Debian: apt install nodejs npm)")
    if not (MODULES / "centrifuge").is_dir():
        needs(f"the JavaScript SDK (`npm ci --prefix {HERE.name}`, which `make test` does)")
    return found


def transports(address: str, transport: str) -> list[dict[str, str]]:
    """Return how the SDK is told of one transport of an edge."""
    scheme = "ws" if transport == "websocket" else "http"
    endpoint = f"{scheme}://{address}/connection/{transport}"
    return [{"transport": transport, "endpoint": endpoint}]


class JavaScriptClient(Client):
    """Calls and events, a line each, over the pipes of a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._process = process
        self._ids = count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}

    async def call(self, name: str, *arguments: Any) -> Any:
        """See `Client`."""
        assert self._process.stdin is not None
        number = next(self._ids)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "name": name, "args": arguments})
        self._process.stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(WAIT_S):
            return await answer

    async def listen(self) -> None:
        """Take what the process says, until its end."""
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            line = json.loads(text)
            if "name" in line:
                self.tell(line["name"], snake(line["event"]))
                continue
            answer = self._calls.pop(line["id"])
            if answer.done():
                continue  # Nobody waits for it any more.
            if "error" in line:
                error = CallError(line["error"]["code"], line["error"]["message"])
                answer.set_exception(error)
            else:
                answer.set_result(snake(line["result"]))


@asynccontextmanager
async def javascript_client(
    found: list[dict[str, str]], options: dict[str, Any], *, protobuf: bool = False
) -> AsyncIterator[JavaScriptClient]:
    """Start a client that has not connected yet; it ends at the end.

    Args:
        found: The transports, the first to be tried first.
        options: More of the SDK's options.
        protobuf: Use the SDK's build for Protobuf.
    """
    job = {"transports": found, "options": OPTIONS | options, "protobuf": protobuf}
    process = await asyncio.create_subprocess_exec(
        *(node(), str(HERE / "node.mjs"), json.dumps(job)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    assert process.stdin is not None
    client = JavaScriptClient(process)
    listening = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        process.stdin.close()
        async with asyncio.timeout(WAIT_S):
            await listening
            await process.wait()
