"""The processes of a running system: who they are, by descent and title."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.schedule import Kind

TITLES: Final = {
    Kind.KILL_NOZZLE: "ray::NozzleRole",
    Kind.KILL_TRANSFORMER: "ray::TransformerRole",
    Kind.KILL_PUBLISHER: "ray::PublisherRole",
    Kind.KILL_SUPERVISOR: "ray::Supervisor",
    Kind.KILL_EDGE: "ray::ServeReplica:raywire:edge",
    Kind.KILL_CONTROLLER: "ray::ServeController",
    Kind.KILL_PROXY: "ray::ProxyActor",
    Kind.FREEZE_NOZZLE: "ray::NozzleRole",
    Kind.FREEZE_TRANSFORMER: "ray::TransformerRole",
    Kind.FREEZE_PUBLISHER: "ray::PublisherRole",
    Kind.FREEZE_EDGE: "ray::ServeReplica:raywire:edge",
}
"""How Ray names the process of an actor; `.method` follows while it is busy."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as `ps` shows it."""

    pid: int
    parent: int
    title: str


def listing() -> list[Process]:
    """Return all processes of the machine but those that have ended and wait for their parent."""
    lines = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split(None, 3) for line in lines]
    return [
        Process(int(row[0]), int(row[1]), row[3])
        for row in rows
        if len(row) == 4 and not row[2].startswith("Z")
    ]


def descendants(processes: Iterable[Process], root: int) -> list[Process]:
    """Return the children of a process, their children, and so on, by pid."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    parents = [root]
    while parents:
        more = children.get(parents.pop(), [])
        found += more
        parents += [process.pid for process in more]
    return sorted(found, key=lambda process: process.pid)


def titled(processes: Sequence[Process], kind: Kind) -> list[Process]:
    """Return those that a kind of strike is about, in the same order."""
    title = TITLES[kind]
    return [
        process
        for process in processes
        # ray::Supervisor, but not another class of which it is the beginning.
        if process.title == title or process.title.startswith((f"{title}.", f"{title}:"))
    ]
