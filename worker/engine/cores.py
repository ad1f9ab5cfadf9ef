"""How many CPU cores this process may use.

Python and torch count the cores of the machine. A container with a CPU limit of 4 on a machine with 64 cores would run
64 threads, which the kernel then holds back together: each batch takes many times as long.
"""

import os
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_VERSION_1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """The cores that this process may run on, and no more than the CPU limit of its container, rounded up.

    Args:
        cgroups: where the kernel shows the limits of this container (cgroup v2 or v1).
    """
    cores = len(os.sched_getaffinity(0))
    for read in (_version_2, _version_1):
        with suppress(OSError, ValueError):  # another version, or no limit: `max`, or -1
            quota_us, period_us = read(cgroups)
            if quota_us > 0:
                return min(cores, -(-quota_us // period_us))
    return cores


def _version_2(cgroups: Path) -> tuple[int, int]:
    quota_us, period_us = (cgroups / "cpu.max").read_text().split()
    return int(quota_us), int(period_us)


def _version_1(cgroups: Path) -> tuple[int, int]:
    quota_us, period_us = ((cgroups / name).read_text() for name in _VERSION_1)
    return int(quota_us), int(period_us)
