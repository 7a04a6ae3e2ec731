"""`raywire status`: how the running system does."""

import asyncio
import time
from typing import Annotated, Final

import msgspec
import typer
from rich.live import Live

from actors.errors import SettingsError, UnavailableError
from actors.store.interface import EdgeStore
from actors.store.redis.client import check_layout
from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption
from serve.cli.output import out, print_json, wants_json
from serve.cli.status_facts import SILENT_AFTER_S, Status, summarize
from serve.cli.status_tables import render
from serve.cli.system import System, find_system

_EVERY_S: Final = 1.0


def command(
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Show queue, rates and latencies by stage, actors and edges; Ctrl-C ends it.

    One JSON object in a pipe. Rates and latencies are those of the last ten seconds.

    Exit codes: 0 done; 3 nothing runs, what runs cannot write its numbers, or Valkey cannot be
    reached; 130 interrupted.
    """
    system = find_system(settings, data, redis)
    if wants_json(asked=json):
        status = asyncio.run(_read_once(system))
        print_json(msgspec.to_builtins(status, str_keys=True))
    elif once:
        out().print(render(asyncio.run(_read_once(system))))
    else:
        asyncio.run(_watch(system))


async def read_status(store: EdgeStore, system: System, *, now_s: float) -> Status:
    """Read what all parts have written.

    Raises:
        UnavailableError: The server cannot be reached.
    """
    stats = await store.read_stats()
    queues = await store.queue_lengths(range(system.partitions))
    dead = await store.dead_letters.count(range(system.partitions))
    return summarize(
        stats, queues, app=system.keys.app, now_s=now_s, dead_letters=sum(dead.values())
    )


async def _read_once(system: System) -> Status:
    store = system.store()
    try:
        status = await read_status(store, system, now_s=time.time())
    finally:
        await store.close()
    if not status.alive:
        raise UnavailableError(await asyncio.to_thread(_why_silent, system))
    return status


def _why_silent(system: System) -> str:
    """Say what it means that no part has written anything, and why that may be."""
    if system.running is None:
        return (
            f"{system.keys.app} does not run, or is just starting: no part of it has written its "
            f"numbers within {SILENT_AFTER_S:.0f} s"
        )
    text = (
        f"{system.keys.app} runs (pid {system.running.pid}), but no part of it has written its "
        f"numbers for {SILENT_AFTER_S:.0f} s"
    )
    try:
        # Writes what is there already: a server that refuses to write says why.
        check_layout(
            system.redis_url,
            system.keys.layout,
            partitions=system.partitions,
            timeout_s=system.settings.redis.timeout_s,
        )
    except (UnavailableError, SettingsError) as error:
        return f"{text}: {error}"
    return text


async def _watch(system: System) -> None:
    status = await _read_once(system)
    store = system.store()
    try:
        with Live(render(status), console=out(), auto_refresh=False, screen=False) as live:
            while True:
                await asyncio.sleep(_EVERY_S)
                try:
                    status = await read_status(store, system, now_s=time.time())
                    note = "" if status.alive else "all parts are silent"
                except UnavailableError as error:
                    note = f"as it was: {error}"
                live.update(render(status, note), refresh=True)
    finally:
        await store.close()
