"""What a process and all processes below it use."""

import os
from pathlib import Path
from typing import Final

_PARENT: Final = 1
_CPU: Final = slice(11, 13)
"""Indexes in what /proc/PID/stat holds after the name: user time and system time; see proc_pid_stat(5)."""


def own_cpu_s(pid: int | None) -> float:
    """CPU time of one process, all its threads, s.

    Raises:
        OSError: it has ended.
    """
    return sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[_CPU])) / os.sysconf("SC_CLK_TCK")


def cpu_s(root: int, proc: Path = Path("/proc")) -> float:
    """CPU time of this process and those below it that still run, s."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for path in proc.glob("[0-9]*/stat"):
        try:
            fields = _fields(path)
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        pid = int(path.parent.name)
        parents[pid], ticks[pid] = int(fields[_PARENT]), sum(map(int, fields[_CPU]))
    return sum(ticks[pid] for pid in ticks if _is_below(pid, root, parents)) / os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> list[bytes]:
    return path.read_bytes().rpartition(b")")[2].split()


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root and pid in parents:
        pid = parents[pid]
    return pid == root
