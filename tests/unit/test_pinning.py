"""Which CPU cores each process of a worker runs on, if they are given out."""

import os

import pytest
from structlog.testing import capture_logs

from callmood.__main__ import main
from callmood.worker.errors import EXIT_CONFIGURATION, ConfigurationError
from callmood.worker.run import pinning, supervise
from callmood.worker.settings import Settings, WorkerSettings

CPUS = (2, 3, 34, 35)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Four of 64 CPUs, as the static CPU manager gives them: 2 and 34 are one core, as 3 and 35 are."""
    kept = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(CPUS))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: kept.append((pid, cpus)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(pinning, "usable_cores", lambda: len(CPUS))
    for cpu in CPUS:
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 32},{cpu % 32 + 32}\n")
    return tmp_path, kept


def test_hardware_threads_of_a_core_stay_together(machine):
    """As the kernel lists them in `topology/thread_siblings_list`: an ingest process shares its core with no other."""
    assert pinning.own_cores(WorkerSettings(pin=True), machine[0]) == [[2, 34], [3, 35]]


@pytest.mark.parametrize(("ingest", "cpus"), [(0, [2]), (1, [3]), (None, [34, 35])])
def test_a_process_keeps_to_its_own(machine, monkeypatch, ingest, cpus):
    """Where the kernel lists no hardware threads, each CPU is a core, in the order of their numbers."""
    monkeypatch.setattr(pinning, "_core", lambda cpu, _: cpu)
    pinning.keep_to_own_cores(WorkerSettings(pin=True, ingest_processes=2), ingest)
    assert machine[1] == [(0, cpus)]


def test_a_cpu_without_a_list_is_a_core_of_its_own(tmp_path):
    """As in some virtual machines."""
    assert pinning._core(5, tmp_path) == 5


def test_no_process_is_pinned_unless_it_is_asked_for(machine):
    """The kernel chooses by default."""
    pinning.keep_to_own_cores(WorkerSettings(ingest_processes=2), 0)
    assert machine[1] == []


def test_too_few_cores_are_a_wrong_setting(machine):
    """The model needs one of its own; four hardware threads are two cores."""
    with pytest.raises(ConfigurationError, match="each of 2 ingest processes and one more for"):
        pinning.own_cores(WorkerSettings(pin=True, ingest_processes=2), machine[0])


@pytest.mark.usefixtures("machine")
def test_a_limit_below_the_cpus_is_a_wrong_setting(monkeypatch):
    """The CPUs are shared by time: all containers of the node would be pinned to its first ones."""
    monkeypatch.setattr(pinning, "usable_cores", lambda: 3)
    with pytest.raises(ConfigurationError, match="limit of this container is 3 of 4 CPUs"):
        pinning.own_cores(WorkerSettings(pin=True))


@pytest.mark.usefixtures("machine")
def test_a_pod_with_all_cpus_of_its_node_is_a_wrong_setting(monkeypatch):
    """Without the static CPU manager and without a limit, as by default, every pod sees all of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: len(CPUS))
    assert pinning.own_cores(WorkerSettings(pin=True)), "a machine of its own may be used whole"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigurationError, match="this pod has all 4 of its node"):
        pinning.own_cores(WorkerSettings(pin=True))


@pytest.mark.usefixtures("machine")
def test_a_system_that_refuses_is_a_wrong_setting(monkeypatch):
    """As under a seccomp profile that forbids the call: a restart would not help."""

    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(ConfigurationError, match="refuses to assign cores: Operation not permitted"):
        pinning.keep_to_own_cores(WorkerSettings(pin=True), 0)


@pytest.mark.usefixtures("machine")
def test_a_worker_that_cannot_be_pinned_does_not_start(monkeypatch):
    """One line says why, before any process has begun."""
    monkeypatch.setattr(supervise.logs, "configure", lambda *_, **__: None)
    monkeypatch.setattr(supervise, "Supervisor", lambda *_: pytest.fail("it has begun"))
    with capture_logs() as lines:
        assert supervise.run(Settings(worker={"pin": True, "ingest_processes": 4})) == EXIT_CONFIGURATION
    assert ["CALLMOOD_WORKER__PIN needs a core for each" in line["error"] for line in lines] == [True]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("processes", "code", "says"),
    [
        (2, 0, "cores: ok: CPU 2, 3 for the ingest processes, 34 and 35 for the model"),
        (4, 2, "cores: CALLMOOD_WORKER__PIN needs a core for each of 4 ingest processes"),
    ],
)
def test_check_gives_the_cores_out(monkeypatch, capsys, processes, code, says):
    """Before a worker is started, `callmood check` says which cores its processes get, or why they cannot."""
    monkeypatch.setattr(pinning, "_core", lambda cpu, _: cpu)
    monkeypatch.setenv("CALLMOOD_WORKER__PIN", "true")
    monkeypatch.setenv("CALLMOOD_WORKER__INGEST_PROCESSES", str(processes))
    assert main(["check", "cores"]) == code
    assert capsys.readouterr().out.startswith(says)


@pytest.mark.usefixtures("machine")
def test_check_finds_a_system_that_refuses(monkeypatch, capsys):
    """It tries to assign the cores that it has anyway."""

    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    monkeypatch.setenv("CALLMOOD_WORKER__PIN", "true")
    assert main(["check", "cores"]) == EXIT_CONFIGURATION
    assert "refuses to assign cores: Operation not permitted" in capsys.readouterr().out
