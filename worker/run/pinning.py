"""Which CPU cores each process of a worker runs on, if they are given out."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path

from callmood.worker.engine.cores import usable_cores
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import WorkerSettings

_CPUS = Path("/sys/devices/system/cpu")
_IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"
_ADVICE = "give it cores of its own: with the CPU manager policy `static`, or `--cpuset-cpus` of Docker"


def keep_to_own_cores(settings: WorkerSettings, ingest: int | None = None) -> None:
    """Let this process, and the threads that it starts from now on, run on its own cores alone, if `pin` is set.

    Args:
        settings: how many ingest processes there are.
        ingest: the number of this ingest process; None: this is the inference process.

    Raises:
        ConfigurationError: as `own_cores`, or the system refuses.
    """
    assigned = own_cores(settings)
    if assigned:
        keep_to(assigned[-1 if ingest is None else ingest])


def keep_to(cpus: Iterable[int]) -> None:
    """Let this process, and the threads that it starts from now on, run on these CPUs alone.

    Raises:
        ConfigurationError: the system refuses.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise ConfigurationError(f"CALLMOOD_WORKER__PIN: the system refuses to assign cores: {error}") from error


def own_cores(settings: WorkerSettings, cpus: Path = _CPUS) -> list[list[int]]:
    """The CPUs of a core for each ingest process, then those of all other cores, for the model; empty without `pin`.

    A core may have several hardware threads, which the kernel calls CPUs: they stay together. The supervisor and the
    projector have no core of their own.

    Args:
        settings: how many ingest processes there are.
        cpus: where the kernel shows which CPUs are hardware threads of one core.

    Raises:
        ConfigurationError: there are too few cores, or other programs use them too.
    """
    if not settings.pin:
        return []
    found = sorted((_core(cpu, cpus), cpu) for cpu in os.sched_getaffinity(0))
    _refuse_shared(len(found))
    cores = [[cpu for _, cpu in threads] for _, threads in groupby(found, key=lambda one: one[0])]
    count = settings.ingest_processes
    if len(cores) <= count:
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs a core for each of {count} ingest processes and one more for the model, but "
            f"there are {len(cores)}"
        )
    return [*cores[:count], list(chain.from_iterable(cores[count:]))]


def _refuse_shared(count: int) -> None:
    """A limit shares CPUs by time; without the static CPU manager, a pod sees all CPUs of its node."""
    if usable_cores() < count:
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs CPUs that no other program uses, but the limit of this container is "
            f"{usable_cores()} of {count} CPUs: {_ADVICE}"
        )
    if _IN_KUBERNETES in os.environ and count == os.cpu_count():
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs CPUs that no other program uses, but this pod has all {count} of its node: "
            f"{_ADVICE}"
        )


def _core(cpu: int, cpus: Path) -> int:
    """The first of the hardware threads of this one's core; itself where the kernel does not say."""
    with suppress(OSError):
        siblings = (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        if first := re.match(r"\d+", siblings):
            return int(first[0])
    return cpu
