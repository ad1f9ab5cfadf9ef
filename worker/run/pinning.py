"""Which CPUs each process of a worker runs on, if they are given out."""

import os
import re
from contextlib import suppress
from pathlib import Path

from callmood.worker.engine.cores import usable_cores
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import WorkerSettings

_CPUS = Path("/sys/devices/system/cpu")
_IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"


def keep_to_own_cpus(settings: WorkerSettings, ingest: int | None = None) -> None:
    """Let this process, and the threads that it starts from now on, run on its own CPUs alone, if `pin` is set.

    Args:
        settings: how many ingest processes there are.
        ingest: the number of this ingest process; None: this is the inference process.

    Raises:
        ConfigurationError: as `own_cpus`, or the system refuses.
    """
    assigned = own_cpus(settings)
    if not assigned:
        return
    try:
        os.sched_setaffinity(0, assigned[-1 if ingest is None else ingest])
    except OSError as error:
        raise ConfigurationError(f"CALLMOOD_WORKER__PIN: the system refuses to assign CPUs: {error}") from error


def own_cpus(settings: WorkerSettings, cpus: Path = _CPUS) -> list[list[int]]:
    """One CPU for each ingest process, then all others, for the model; empty unless `settings.pin` is set.

    The supervisor and the projector have none of their own. Two hardware threads of a core go to ingest processes
    before the next core does, so that as few as possible share a core with the model.

    Args:
        settings: how many ingest processes there are.
        cpus: where the kernel shows which CPUs are hardware threads of one core.

    Raises:
        ConfigurationError: there are too few CPUs, or other programs use them too.
    """
    if not settings.pin:
        return []
    found = sorted(os.sched_getaffinity(0), key=lambda cpu: (_core(cpu, cpus), cpu))
    _refuse_shared(len(found))
    count = settings.ingest_processes
    if len(found) <= count:
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs a CPU for each of {count} ingest processes and one more for the model, but "
            f"there are {len(found)}"
        )
    return [[cpu] for cpu in found[:count]] + [found[count:]]


def _refuse_shared(count: int) -> None:
    """A limit shares the CPUs of a node by time; without the static CPU manager, a pod sees all of them."""
    advice = "set the CPU manager policy `static`, and whole CPUs as request and limit"
    if usable_cores() < count:
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs CPUs that no other program uses, but a limit of {usable_cores()} of {count} "
            f"CPUs says that they are shared: {advice}"
        )
    if _IN_KUBERNETES in os.environ and count == os.cpu_count():
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs CPUs that no other program uses, but this pod has all {count} of its node: "
            f"{advice}"
        )


def _core(cpu: int, cpus: Path) -> int:
    """The first of the hardware threads of this one's core; itself where the kernel does not say."""
    with suppress(OSError):
        siblings = (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        if first := re.match(r"\d+", siblings):
            return int(first[0])
    return cpu
