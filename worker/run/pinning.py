"""Which cores each process of a worker runs on, if they are given out."""

import os

from callmood.worker.engine.cores import usable_cores
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import WorkerSettings


def keep_to_own_cores(settings: WorkerSettings, ingest: int | None = None) -> None:
    """Let this process, and every thread that it starts, run on its own cores alone, if `settings.pin` asks for it.

    The first cores belong to the ingest processes, one each, and all others to the model. The projector has no core of
    its own: it may run anywhere.

    Args:
        settings: how many ingest processes there are.
        ingest: the number of this ingest process; None: this is the inference process.

    Raises:
        ConfigurationError: there are too few cores, or other programs use them too.
    """
    if not settings.pin:
        return
    cores = sorted(os.sched_getaffinity(0))
    if usable_cores() < len(cores):
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs cores for this worker alone, but its container shares {len(cores)} cores and "
            f"may use {usable_cores()} of them: set the CPU manager policy `static` and whole CPUs as request and limit"
        )
    if len(cores) <= settings.ingest_processes:
        raise ConfigurationError(
            f"CALLMOOD_WORKER__PIN needs a core for each of {settings.ingest_processes} ingest processes and one more "
            f"for the model, but there are {len(cores)}"
        )
    rest = cores[settings.ingest_processes :]
    os.sched_setaffinity(0, rest if ingest is None else [cores[ingest]])
