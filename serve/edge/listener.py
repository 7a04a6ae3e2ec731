"""The edge's own way in: uvicorn on the `listen` address, shared by all edges of a machine."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn

from actors.errors import SettingsError
from serve.edge.address import bind
from serve.edge.listener_http import HttpLimits, http_protocol

_BACKLOG: Final = 2048


class _Server(uvicorn.Server):
    """A server that says when it listens, and leaves signals to whoever owns the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.up.set()


class Listener:
    """Serves an app over HTTP, and sockets by a protocol class, on one address.

    Several processes may listen on the same address (SO_REUSEPORT): the kernel shares new
    connections out among them.

    Attributes:
        address: `host:port`.
    """

    def __init__(
        self,
        app: Any,
        listen: str,
        *,
        websocket_protocol: type[asyncio.Protocol],
        close_s: int = 10,
        http_limits: HttpLimits | None = None,
    ) -> None:
        """Prepare.

        Args:
            app: The ASGI app.
            listen: `host:port`; port 0: a free one.
            websocket_protocol: See the parameter `ws` of `uvicorn.Config`.
            close_s: How long `close` waits for requests under way.
            http_limits: Of each connection; None: the usual ones.
        """
        self.address = listen
        self._app = app
        self._refusing = False
        config = uvicorn.Config(
            self._serve,
            http=http_protocol(http_limits or HttpLimits()),
            ws=websocket_protocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # No proxy is trusted: a forwarded address could be anything.
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=close_s,
        )
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and return when connections are taken.

        Raises:
            SettingsError: The address is in use by another program, or not of this machine.
        """
        self._socket = _bind(self.address)
        # Where 0 was asked for, the port that was found.
        self.address = f"{self.address.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        self._task = asyncio.get_running_loop().create_task(
            self._server.serve([self._socket]), name="listener"
        )
        up = asyncio.ensure_future(self._server.up.wait())
        try:
            await asyncio.wait({up, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        self.check()

    def check(self) -> None:
        """Make sure that the server runs.

        Raises:
            RuntimeError: It has ended; the cause says why.
        """
        if self._task is not None and self._task.done():
            raise RuntimeError("the listener has ended") from self._task.exception()

    def refuse(self) -> None:
        """Take no more connections, and end each that is there with the answer to its next request.

        Whoever comes back finds another that listens here, or nobody.
        """
        self._refusing = True
        if self._server.started:
            for server in self._server.servers:
                server.close()

    async def close(self) -> None:
        """Take no more connections, let requests finish, and close what is left."""
        if self._task is not None:
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._socket is not None:
            self._socket.close()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if self._refusing and scope["type"] == "http":
            send = _closing(send)
        await self._app(scope, receive, send)


def _closing(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Return a `send` that says, and by that makes uvicorn do, that the connection ends."""

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return closing


def _bind(listen: str) -> socket.socket:
    try:
        return bind(listen, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    except OSError as error:
        raise SettingsError(
            f"edge.listen: cannot listen on {listen} ({error.strerror}): "
            "stop what uses it, or set edge.listen to another address"
        ) from error
