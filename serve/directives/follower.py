"""Follows the control stream and hands on what it says. Decides nothing else."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from actors.errors import UnavailableError
from actors.message import id_key
from actors.pacing import Backoff
from actors.store.interface_control import ControlStream
from serve.directives.directive import Directive, decode

log = logging.getLogger(__name__)

_LIMIT: Final = 100
"""Records in one read."""


class DirectiveFollower:
    """Hands on directives in the order of the stream, each once, from the moment it started.

    Those that the stream dropped before they were read are missed, without a sign. While the server
    is away it tries again, and goes on from the same id, or from the end of a stream that ends
    before it: that is another server's, or an emptied one's.
    """

    def __init__(
        self,
        control: ControlStream,
        on_directive: Callable[[Directive], None],
        *,
        block_s: float = 1.0,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare; nothing is read before `start`.

        Args:
            control: The stream.
            on_directive: Gets each directive. Must not raise.
            block_s: How long one read waits.
            backoff: Waits between failed reads.
        """
        self._control = control
        self._on_directive = on_directive
        self._block_s = block_s
        self._backoff = Backoff() if backoff is None else backoff
        self._after: str | None = None
        self._failures = 0
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to follow, in a task of its own that `close` ends."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="directive follower")

    async def ready(self) -> None:
        """Wait until the stream's end is known: what is told from then on is handed on."""
        await self._ready.wait()

    async def close(self) -> None:
        """Stop; nothing is handed on afterwards.

        Raises:
            Exception: What ended the follower before, if it had broken.
        """
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self.check()

    def check(self) -> None:
        """Make sure that the follower lives.

        Raises:
            Exception: What ended it: `on_directive` raised.
        """
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    async def _run(self) -> None:
        # The flag as well: redis-py takes a cancellation while it connects for a timeout.
        while not self._closing:
            try:
                after = await self._start_at()
                records = await self._control.read(after, limit=_LIMIT, block_s=self._block_s)
            except UnavailableError as error:
                if not self._closing:
                    await self._pause(error)
                continue
            self._failures = 0
            for record_id, record in records:
                self._after = record_id
                self._hand_on(record)

    async def _start_at(self) -> str:
        if self._after is None:
            self._after = await self._control.end()
            self._ready.set()
        elif self._failures:
            end = await self._control.end()
            if id_key(end) < id_key(self._after):
                self._after = end
        return self._after

    async def _pause(self, error: UnavailableError) -> None:
        if self._failures == 0:
            log.warning("control stream cannot be read", extra={"why": str(error)})
        self._failures += 1
        await asyncio.sleep(self._backoff.wait_s(self._failures))

    def _hand_on(self, record: bytes) -> None:
        directive = decode(record)
        if directive is None:
            # Of a newer edge, while edges are being replaced.
            log.warning("directive not known", extra={"size": len(record)})
        else:
            self._on_directive(directive)
