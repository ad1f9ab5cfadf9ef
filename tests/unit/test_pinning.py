"""Which cores each process of a worker runs on, if they are given out."""

import os

import pytest

from callmood.worker.errors import ConfigurationError
from callmood.worker.run import pinning
from callmood.worker.settings import WorkerSettings

CORES = {2, 5, 6, 11}


@pytest.fixture
def machine(monkeypatch):
    """Four cores of a larger machine, and the calls that set those of this process."""
    kept = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(CORES))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: kept.append((pid, list(cores))))
    monkeypatch.setattr(pinning, "usable_cores", lambda: len(CORES))
    return kept


@pytest.mark.parametrize(("ingest", "cores"), [(0, [2]), (1, [5]), (None, [6, 11])])
def test_each_ingest_process_has_a_core_and_the_model_has_the_rest(machine, ingest, cores):
    """In the order of the cores that this container was given, which need not begin with 0."""
    pinning.keep_to_own_cores(WorkerSettings(pin=True, ingest_processes=2), ingest)
    assert machine == [(0, cores)]


def test_no_process_is_pinned_unless_it_is_asked_for(machine):
    """The kernel chooses by default."""
    pinning.keep_to_own_cores(WorkerSettings(ingest_processes=2), 0)
    assert machine == []


def test_too_few_cores_are_a_wrong_setting(machine):
    """The model needs one of its own."""
    with pytest.raises(
        ConfigurationError, match="each of 4 ingest processes and one more for the model, but there are 4"
    ):
        pinning.keep_to_own_cores(WorkerSettings(pin=True, ingest_processes=4), 0)
    assert machine == []


def test_cores_that_others_use_too_are_a_wrong_setting(machine, monkeypatch):
    """A CPU limit without the static CPU manager: all containers of the node would be pinned to its first cores."""
    monkeypatch.setattr(pinning, "usable_cores", lambda: 3)
    with pytest.raises(ConfigurationError, match="shares 4 cores and may use 3 of them"):
        pinning.keep_to_own_cores(WorkerSettings(pin=True), 0)
    assert machine == []
