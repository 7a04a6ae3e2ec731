"""The process of a benchmark that offers messages: XADD, as a producer in any language would.

Light: writes are batched by the millisecond, answers are counted and not read.
"""

import asyncio
import re
import signal
import ssl
import time
from array import array
from multiprocessing.connection import Connection
from typing import Final, cast
from urllib.parse import unquote, urlsplit

import uvloop

from actors.errors import RaywireError, SettingsError, UnavailableError
from serve.cli.bench_payload import Load, make_payload, padding_for

_OPEN_WITHIN_S: Final = 10.0
_TICK_S: Final = 0.001
_ERROR_REPLY: Final = re.compile(rb"(?:^|\r\n)-[A-Z][^\r]*")


def produce(pipe: Connection, load: Load) -> None:
    """Offer messages on time, whether or not the system keeps up (open loop). A process's target.

    Says `("ready", pid of the server)` or `("failed", why)`, hears the start as monotonic ns, and
    says the result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    uvloop.run(_produce(pipe, load))


async def _produce(pipe: Connection, load: Load) -> None:
    try:
        server, process_id = await open_server(load.redis_url)
    except RaywireError as error:
        pipe.send(("failed", str(error)))
        return
    pipe.send(("ready", process_id))
    start_ns = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    heads = [
        b"*7\r\n$4\r\nXADD\r\n%b$1\r\n*\r\n$1\r\nc\r\n%b$1\r\nd\r\n"
        % (_bulk(queue.encode()), _bulk(channel.encode()))
        for queue, channel in zip(load.queues, load.channels, strict=True)
    ]
    padding = padding_for(load.size)
    total = int(load.rate * load.secs)
    sent = 0
    lags_ns = array("q")
    while sent < total:
        now_ns = time.monotonic_ns()
        due = min(total, int((now_ns - start_ns) * load.rate / 1e9) + 1)
        if due > sent and now_ns >= start_ns:
            lags_ns.append(now_ns - start_ns - int(sent * 1e9 / load.rate))
            commands = []
            for index in range(sent, due):
                number, channel = divmod(index, len(heads))
                commands.append(
                    heads[channel] + _bulk(make_payload(channel, number, now_ns, padding))
                )
            server.write(b"".join(commands))
            sent = due
        await asyncio.sleep(_TICK_S)
    end_ns = time.monotonic_ns()
    try:
        async with asyncio.timeout(_OPEN_WITHIN_S):
            await server.answered(sent)
    except TimeoutError:
        server.error = server.error or "some XADD have no answer"
    server.close()
    ordered = sorted(lags_ns)
    pipe.send(
        {
            "sent": sent,
            "end_ns": end_ns,
            "error": server.error,
            "lag_p99_ms": round(ordered[int(len(ordered) * 0.99)] / 1e6, 3) if ordered else 0.0,
            "cpu_s": time.process_time(),
        }
    )


class Server(asyncio.Protocol):
    """A connection to Valkey that counts answers and does not read them."""

    def __init__(self) -> None:
        self.error = ""
        self._transport: asyncio.Transport | None = None
        self._answers = 0
        self._wanted = 0
        self._enough = asyncio.Event()
        self.text = b""
        self.keeps_text = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        found = _ERROR_REPLY.search(data)
        if found is not None and not self.error:
            self.error = found.group().strip().decode(errors="replace")
            self._enough.set()
        if self.keeps_text:
            self.text += data
        # An answer to XADD is a bulk string: `$15`, line break, the id, line break.
        self._answers += data.count(b"$")
        if self._answers >= self._wanted:
            self._enough.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.error = self.error or f"the connection to Valkey broke: {exc or 'closed'}"
        self._enough.set()

    def write(self, data: bytes) -> None:
        """Write without waiting."""
        if self._transport is not None:
            self._transport.write(data)

    async def answered(self, count: int) -> None:
        """Wait for so many bulk answers, or the end of the connection."""
        self._wanted = count
        if self._answers < count:
            self._enough.clear()
            await self._enough.wait()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def forget(self) -> None:
        """Count answers from here on."""
        self._answers, self.text, self.keeps_text = 0, b"", False


async def open_server(url: str) -> tuple[Server, int | None]:
    """Connect to Valkey; the second is its process, where it is on this machine.

    Raises:
        SettingsError: Another kind of URL, or the password is wrong.
        UnavailableError: It cannot be reached.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = parts.hostname or "127.0.0.1", parts.port or 6379
    try:
        async with asyncio.timeout(_OPEN_WITHIN_S):
            if parts.scheme == "unix":
                _, server = await loop.create_unix_connection(Server, unquote(parts.path))
            elif parts.scheme in ("redis", "rediss"):
                tls = ssl.create_default_context() if parts.scheme == "rediss" else None
                _, server = await loop.create_connection(Server, host, port, ssl=tls)
            else:
                raise SettingsError(
                    f"bench cannot write to {parts.scheme}://: use redis://, rediss:// or unix://"
                )
            if parts.password:
                user = [unquote(parts.username).encode()] if parts.username else []
                server.write(_command(b"AUTH", *user, unquote(parts.password).encode()))
            database = parts.path.strip("/") if parts.scheme != "unix" else ""
            if database:
                server.write(_command(b"SELECT", database.encode()))
            server.write(_command(b"INFO", b"server"))
            await server.answered(1)
    except (OSError, TimeoutError) as error:
        raise UnavailableError(f"Valkey cannot be reached: {str(error) or 'no answer'}") from error
    if server.error:
        server.close()
        raise SettingsError(f"Valkey refused: {server.error}")
    found = re.search(rb"process_id:(\d+)", server.text)
    server.forget()
    local = parts.scheme == "unix" or host in ("127.0.0.1", "localhost", "::1")
    return server, int(found.group(1)) if found and local else None


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def _command(*args: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(args), b"".join(map(_bulk, args)))
