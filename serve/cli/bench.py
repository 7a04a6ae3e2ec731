"""`raywire bench`: latency, loss, order and CPU under a fixed load."""

import asyncio
import os
import platform
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from actors.partition import partition_of
from serve.cli.bench_own import own_system
from serve.cli.bench_payload import Load
from serve.cli.bench_processes import Usage, family, is_supported, usage
from serve.cli.bench_run import run_load
from serve.cli.options import DataOption, JsonOption, RedisOption, SettingsOption
from serve.cli.output import Exit, err, out, print_json, wants_json
from serve.cli.system import System, find_system
from serve.cli.tail import own_token, websocket_url


def command(
    *,
    rate: Annotated[
        float, typer.Option("--rate", metavar="N", help="Messages per second.", min=1)
    ] = 10_000,
    secs: Annotated[
        float, typer.Option("--secs", metavar="S", help="How long, after warming up.", min=0.1)
    ] = 10,
    warmup: Annotated[
        float, typer.Option("--warmup", metavar="S", help="Not measured, at the start.", min=0)
    ] = 2,
    size: Annotated[
        int, typer.Option("--size", metavar="BYTES", help="Of a message's data.", min=80)
    ] = 200,
    subs: Annotated[int, typer.Option("--subs", metavar="N", help="Subscribers.", min=1)] = 1,
    channels: Annotated[
        int, typer.Option("--channels", metavar="N", help="Channels.", min=1, max=9999)
    ] = 1,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Channels are called PREFIX0, ...")
    ] = "bench",
    drain: Annotated[
        float, typer.Option("--drain", metavar="S", help="Wait for the last messages.", min=0)
    ] = 10,
    own: Annotated[
        bool, typer.Option("--own", help="Start a system for this, on temporary data.")
    ] = False,
    nozzles: Annotated[int, typer.Option("--nozzles", help="With --own.", min=1)] = 1,
    replicas: Annotated[
        int, typer.Option("--replicas", help="With --own: transformers.", min=1)
    ] = 1,
    settings: SettingsOption = None,
    data: DataOption = None,
    redis: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Measure from the producer's XADD to the subscriber's socket, at a fixed rate (open loop).

    The system must run on this machine, or be started with --own. One JSON object in a pipe.

    Exit codes: 0 every message arrived once, in order; 1 not so; 3 the system cannot be reached.
    """
    console = err()
    with ExitStack() as stack:
        if own:
            settings, data = stack.enter_context(
                own_system(settings, replicas=replicas, nozzles=nozzles)
            )
        system = find_system(settings, data, None if own else redis)
        names = tuple(f"{prefix}{number}" for number in range(channels))
        load = _load(system, names, rate=rate, secs=warmup + secs, size=size, warmup_s=warmup)
        parts = asyncio.run(_parts(system))
        with console.status("bench") as status:
            result = run_load(
                load,
                subs=subs,
                drain_s=drain,
                measure_cpu=lambda server: _usage(system, parts, server),
                parts=parts,
                tell=status.update,
            )
    result = _machine() | result
    if wants_json(asked=json):
        print_json(result)
    else:
        out().print(_table(result))
    raise typer.Exit(Exit.DONE if _is_good(result) else Exit.FAILED)


def _load(
    system: System, names: tuple[str, ...], *, rate: float, secs: float, size: int, warmup_s: float
) -> Load:
    token = own_token(system)
    return Load(
        redis_url=system.redis_url,
        websocket_url=websocket_url(system.listen),
        channels=names,
        queues=tuple(system.keys.queue(partition_of(each, system.partitions)) for each in names),
        tokens=tuple("" if token is None else token([each]) for each in names),
        rate=rate,
        secs=secs,
        size=size,
        warmup_s=warmup_s,
    )


async def _parts(system: System) -> dict[str, dict[str, Any]]:
    """Return the parts that run on this machine."""
    store = system.store()
    try:
        stats = await store.read_stats()
    finally:
        await store.close()
    here = socket.gethostname()
    return {part: numbers for part, numbers in stats.items() if numbers.get("node") == here}


def _usage(system: System, parts: dict[str, dict[str, Any]], server: int | None) -> Usage:
    """Measure the system's processes: `raywire up` and all it started, each part, the server."""
    if not is_supported():
        return Usage()
    roots = {int(numbers["pid"]) for numbers in parts.values() if numbers.get("pid")}
    if system.running is not None:
        roots.add(system.running.pid)
    if server is not None:
        roots.add(server)
    # With --own we are the parent of it all, and not part of it.
    return usage(family(roots) - {os.getpid()})


def _machine() -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "loop_ms": _loop_ms(),
    }


def _loop_ms() -> float:
    """Return the CPU time of a million additions: on shared cores, it changes by the hour."""
    began_s, total = time.process_time(), 0
    for each in range(1_000_000):
        total += each
    return round((time.process_time() - began_s) * 1000, 1)


def _is_good(result: dict[str, Any]) -> bool:
    wrong = ("lost", "repeated", "out_of_order", "strange")
    return not any(result[name] for name in wrong) and not result["producer_error"]


def _table(result: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="cyan")
    table.add_column(justify="right")
    shown = {name: value for name, value in result.items() if name != "cpu" and value != ""}
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), _text(value))
    table.add_row("", "")
    for name, cores in result["cpu"].items():
        table.add_row(f"cpu {name}", f"{cores:.3f}")
    return table


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
