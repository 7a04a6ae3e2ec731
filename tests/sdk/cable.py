"""A way to an edge that the test may cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

READ_BYTES = 65_536


class Cable:
    """Carries bytes between clients and an edge.

    Args:
        address: `host:port` of the edge.
    """

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self.heard_bytes = 0
        """What clients were sent through it."""
        self._own_port = 0
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where clients connect: the same after a cut."""
        return f"127.0.0.1:{self._own_port}"

    async def mend(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections at once and refuse new ones."""
        assert self._server is not None
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        try:
            await asyncio.gather(
                _copy(reader, far_writer, lambda _: None), _copy(far_reader, writer, self._count)
            )
        except (OSError, asyncio.CancelledError):
            pass  # Cut, or one end is gone: so is the other, below.
        finally:
            self._carrying.discard(task)
            writer.transport.abort()
            far_writer.transport.abort()

    def _count(self, size_bytes: int) -> None:
        self.heard_bytes += size_bytes


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
) -> None:
    while data := await reader.read(READ_BYTES):
        count(len(data))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@asynccontextmanager
async def cable_to(address: str) -> AsyncIterator[Cable]:
    """Lay a cable to an edge; it is cut at the end."""
    cable = Cable(address)
    await cable.mend()
    try:
        yield cable
    finally:
        await cable.cut()
