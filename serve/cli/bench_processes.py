"""The CPU time of the processes of a system, from `/proc` (Linux)."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")

# What a command line says -> what we call it. The first that matches; Ray names its workers
# `ray::<class>`.
_NAMES: Final = (
    (re.compile(r"valkey-server|redis-server"), "valkey"),
    (re.compile(r"gcs_server"), "ray gcs"),
    (re.compile(r"raylet"), "raylet"),
    (re.compile(r"ray::(\w+)"), ""),
    (re.compile(r"ray/dashboard|dashboard_agent|runtime_env/agent|log_monitor"), "ray agents"),
    (re.compile(r"raywire|serve\.cli"), "raywire up"),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by process, at one moment."""

    seconds: dict[int, float] = field(default_factory=dict)

    def since(self, before: "Usage") -> dict[int, float]:
        """Return what each process has used since; one that is new, all that it used."""
        return {pid: used - before.seconds.get(pid, 0.0) for pid, used in self.seconds.items()}


def is_supported() -> bool:
    """Say whether this machine tells."""
    return (_PROC / "self" / "stat").exists()


def family(roots: Iterable[int]) -> set[int]:
    """Return processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None:
                children.setdefault(int(stat[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def usage(pids: Iterable[int]) -> Usage:
    """Return what each process has used so far, user and system; without those that are gone."""
    seconds = {}
    for pid in pids:
        stat = _stat(pid)
        if stat is not None:
            seconds[pid] = (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
    return Usage(seconds)


def name_of(pid: int, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what to call a process: its part in the pipeline, or what its command line says."""
    for part, numbers in parts.items():
        if numbers.get("pid") == pid:
            return part
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, UnicodeDecodeError):
        return "other"
    for pattern, name in _NAMES:
        found = pattern.search(line)
        if found is not None:
            return name or found.group(1)
    return line.split(" ", 1)[0].rpartition("/")[2] or "other"


def _stat(pid: int) -> list[str] | None:
    """Return the fields of `/proc/<pid>/stat` from the third on; None: it is gone. proc(5)."""
    try:
        # The second field, in parentheses, may hold blanks and parentheses.
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
