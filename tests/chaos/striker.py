"""Does what the schedule says, and waits until the system has recovered."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import redis.asyncio
import redis.exceptions

from tests.chaos.pulse import Pulse
from tests.chaos.schedule import FREEZES, KILLS, Kind, Strike
from tests.chaos.subscriber import Subscriber
from tests.chaos.target import Target, TargetError

RECOVERS_WITHIN_S: Final = 60.0
_WHOLE_WITHIN_S: Final = 30.0


@dataclass(slots=True)
class Done:
    """A strike that was done.

    Attributes:
        strike: Which.
        at_s: When; monotonic.
        until_s: When it had recovered, or the next one came.
        alone: Nothing else disturbed the system in that time, so its interruption can be measured.
        missed: Why nothing could be done; empty: it was.
    """

    strike: Strike
    at_s: float
    until_s: float = 0.0
    alone: bool = True
    missed: str = ""


class Striker:
    """Strikes one after the other.

    Attributes:
        done: What was done.
        troubles: What did not recover.
    """

    def __init__(
        self,
        target: Target,
        pulse: Pulse,
        subscribers: Sequence[Subscriber],
        tell: Callable[[str], None],
    ) -> None:
        self.done: list[Done] = []
        self.troubles: list[str] = []
        self._target = target
        self._pulse = pulse
        self._subscribers = subscribers
        self._tell = tell
        self._frozen: set[asyncio.Task[None]] = set()
        self._began_s = time.monotonic()

    async def run(self, plan: Iterable[Strike], end_s: float) -> None:
        """Strike until `end_s` (monotonic), and return when the system has recovered."""
        for strike in _until(plan, end_s):
            if strike.pressing and self.done:
                self.done[-1].alone = False
            else:
                await self._recover()
            await asyncio.sleep(strike.pause_s)
            await self._strike(strike)
        await self._recover()
        await asyncio.gather(*self._frozen)

    async def _strike(self, strike: Strike) -> None:
        now_s = time.monotonic()
        if self.done and not self.done[-1].until_s:
            self.done[-1].until_s = now_s
        done = Done(strike, now_s, alone=not strike.pressing)
        self.done.append(done)
        try:
            done.missed = await self._do(strike)
        except (OSError, redis.exceptions.RedisError) as error:
            done.missed = str(error) or type(error).__name__
        press = ", at once" if strike.pressing else ""
        missed = f": missed, {done.missed}" if done.missed else ""
        self._tell(f"{now_s - self._began_s:6.1f} s  {strike.kind.value}{press}{missed}")

    async def _recover(self) -> None:
        """Wait until messages sent from now on get through, and all processes are there."""
        if not self.done or self.done[-1].until_s:
            return
        await asyncio.gather(*self._frozen)
        now_s = time.monotonic()
        try:
            async with asyncio.timeout(RECOVERS_WITHIN_S):
                await self._pulse.beats(now_s)
        except TimeoutError:
            silent = self._pulse.silent(now_s)
            self._trouble(f"no recovery within {RECOVERS_WITHIN_S:.0f} s: {silent[:5]}")
        self.done[-1].until_s = time.monotonic()
        if short := await self._target.wait_whole(_WHOLE_WITHIN_S):
            self._trouble(f"not there after {_WHOLE_WITHIN_S:.0f} s: {short}")

    def _trouble(self, what: str) -> None:
        text = f"after {self.done[-1].strike.kind.value}: {what}"
        self.troubles.append(text)
        self._tell(text)

    async def _do(self, strike: Strike) -> str:
        """Do it; return why it cannot be done, empty: it is done."""
        kind = strike.kind
        if kind in KILLS or kind in FREEZES or kind is Kind.KILL_VALKEY:
            return await self._hit(strike)
        if kind in (Kind.CUT_VALKEY, Kind.CUT_SOME_OF_VALKEY):
            await self._cut_valkey(strike)
        elif kind is Kind.CUT_SOCKETS:
            for subscriber in self._subscribers:
                subscriber.cut()
        else:
            await self._start_again(kind)
        return ""

    async def _hit(self, strike: Strike) -> str:
        victims = await self._target.victims(strike.kind)
        if not victims:
            return "nobody there"
        pid = victims[int(strike.choice * len(victims))].pid
        if strike.kind not in FREEZES:
            os.kill(pid, signal.SIGKILL)
            return ""
        os.kill(pid, signal.SIGSTOP)
        task = asyncio.create_task(_thaw(pid, strike.hold_s))
        self._frozen.add(task)
        task.add_done_callback(self._frozen.discard)
        return ""

    async def _cut_valkey(self, strike: Strike) -> None:
        async with redis.asyncio.Redis.from_url(
            self._target.redis_url() or "", socket_timeout=2, protocol=2
        ) as client:
            if strike.kind is Kind.CUT_VALKEY:
                await client.client_kill_filter(_type="normal", skipme=True)
                return
            listed = await client.client_list()
            chance = random.Random(strike.choice)  # noqa: S311 - to be repeated
            for each in chance.sample(listed, len(listed) // 2):
                # One that is gone by now is answered with 0.
                await client.client_kill_filter(_id=each["id"])

    async def _start_again(self, kind: Kind) -> None:
        began_s = time.monotonic()
        if kind is Kind.CRASH:
            await self._target.crash()
        else:
            try:
                await self._target.stop()
            except TargetError as error:
                self._trouble(str(error))
        ended_s = time.monotonic()
        await self._target.start()
        ready_s = time.monotonic()
        self._tell(f"ended in {ended_s - began_s:.1f} s, ready {ready_s - ended_s:.1f} s later")


def _until(plan: Iterable[Strike], end_s: float) -> Iterator[Strike]:
    for strike in plan:
        if time.monotonic() + strike.pause_s >= end_s:
            return
        yield strike


async def _thaw(pid: int, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
