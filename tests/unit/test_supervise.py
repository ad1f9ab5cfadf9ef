"""The supervisor: starts, restarts, exit codes, signals, drains and probes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from callmood.worker.errors import EXIT_AGAIN, EXIT_CONFIGURATION, EXIT_GIVE_UP, EXIT_OK
from callmood.worker.run import health, supervise
from callmood.worker.run.processes import Report
from callmood.worker.run.progress import Status
from callmood.worker.run.supervise import Supervisor
from callmood.worker.settings import Settings

FACTS = Status(4, 0, is_store_healthy=True, stuck_s=0.0, stuck_at="reading")._asdict()
RUNNING = Report("running", FACTS)


class _Child:
    """A process that ends `slow_s` after SIGTERM and at once after SIGKILL."""

    def __init__(self, task, fleet):
        self.name, self.pid, self.exit_code, self.slow_s = task.name, fleet.next_pid(), None, fleet.slow_s
        self.unread, self.signals, self._fleet, self._ends_s = [], [], fleet, None

    def reports(self):
        reports, self.unread = self.unread, []
        return reports

    def terminate(self):
        self.signals.append("TERM")
        self._fleet.told.append((self.name, "TERM"))
        self._ends_s = self._fleet.now_s + self.slow_s

    def kill(self):
        self.signals.append("KILL")
        self._fleet.told.append((self.name, "KILL"))
        self.exit_code = -9

    def wait(self, timeout_s):
        if self.exit_code is None and self._ends_s <= self._fleet.now_s + timeout_s:
            self._fleet.now_s = max(self._fleet.now_s, self._ends_s)
            self.exit_code = 0
        elif self.exit_code is None:
            self._fleet.now_s += timeout_s
        return self.exit_code is not None


class _Fleet:
    """All that a supervisor touches: its processes, its client of the model, and the time."""

    def __init__(self):
        self.now_s, self.slow_s, self.is_closed, self.hangs, self.model = 1000.0, 0.5, False, False, None
        self.children, self.told, self.folder, self.slept = [], [], None, []
        self.fails_at = None

    def next_pid(self):
        return 100_000_000 + len(self.children)

    def spawn(self, task):
        if task.name == self.fails_at:
            raise OSError("no room for another process")
        self.children.append(_Child(task, self))
        return self.children[-1]

    def connect(self, address, _stall_s):
        self.folder = Path(address.removeprefix("ipc://")).parent
        return self

    def collect(self):
        pass

    def healthy(self, _now_s):
        return not self.hangs

    def close(self):
        self.is_closed = True

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds

    def newest(self, name):
        return [child for child in self.children if child.name == name][-1]

    def names(self):
        return [child.name for child in self.children]

    def is_clean(self):
        return self.is_closed and not self.folder.exists() and all(c.exit_code is not None for c in self.children)


@pytest.fixture
def fleet(monkeypatch, tmp_path):
    """What the supervisor of the test touches; the gauges of processes that end are in a folder of the test."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return _Fleet()


def supervisor_of(fleet, **worker):
    settings = Settings(worker={"ingest_processes": 2, "drain_timeout_s": 20.0, "stall_s": 60.0} | worker)
    return Supervisor(settings, fleet.spawn, fleet.connect, lambda: fleet.now_s, fleet.sleep)


def end(fleet, name, exit_code):
    fleet.newest(name).exit_code = exit_code


def test_building_a_supervisor_starts_nothing(fleet):
    """Processes, folder and socket come with the start, and the probes answer before it."""
    supervisor = supervisor_of(fleet)
    assert (fleet.children, fleet.folder) == ([], None)
    assert supervisor.is_alive().is_ok
    assert supervisor.is_ready() == (False, "starting")


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("redis", ["inference", "ingest-0", "ingest-1"]),
        ("kafka", ["inference", "ingest-0", "ingest-1"]),
        ("both", ["inference", "ingest-0", "ingest-1", "projector"]),
    ],
)
def test_the_output_decides_which_processes_run(fleet, output, names):
    """A projector runs with `output=both` alone; afterwards nothing is left."""
    with supervisor_of(fleet, output=output):
        assert fleet.names() == names
        assert fleet.folder.is_dir()
    assert fleet.is_clean()


@pytest.mark.parametrize("name", ["inference", "ingest-0", "ingest-1", "projector"])
def test_a_start_that_fails_half_way_leaves_nothing_behind(fleet, name):
    """What had started is ended, the socket closed and the folder removed."""
    fleet.fails_at = name
    with pytest.raises(OSError, match="no room"), supervisor_of(fleet, output="both"):
        pass
    assert name not in fleet.names()
    assert fleet.is_clean()


@pytest.mark.parametrize(
    ("name", "exit_code", "expected"),
    [
        ("inference", EXIT_CONFIGURATION, EXIT_CONFIGURATION),
        ("inference", EXIT_AGAIN, EXIT_AGAIN),
        ("inference", EXIT_OK, EXIT_AGAIN),
        ("inference", -9, EXIT_AGAIN),
        ("ingest-1", EXIT_CONFIGURATION, EXIT_CONFIGURATION),
        ("ingest-1", EXIT_GIVE_UP, EXIT_GIVE_UP),
        ("ingest-1", EXIT_AGAIN, None),
        ("ingest-1", EXIT_OK, None),
        ("ingest-1", -9, None),
        ("projector", EXIT_CONFIGURATION, EXIT_CONFIGURATION),
        ("projector", EXIT_AGAIN, None),
    ],
)
def test_the_exit_code_of_a_process_decides_whether_the_worker_ends(fleet, name, exit_code, expected):
    """The model's end is the worker's; another process is restarted unless that cannot help."""
    with supervisor_of(fleet, output="both") as supervisor:
        assert supervisor.turn() is None
        end(fleet, name, exit_code)
        assert supervisor.turn() == expected


def test_a_restart_waits_without_holding_up_the_watch(fleet):
    """A second passes between an end and the restart, and no look at the processes sleeps."""
    with supervisor_of(fleet) as supervisor:
        end(fleet, "ingest-0", EXIT_AGAIN)
        end(fleet, "ingest-1", EXIT_AGAIN)
        assert supervisor.turn() is None
        fleet.now_s += 0.9
        supervisor.turn()
        assert len(fleet.children) == 3
        fleet.now_s += 0.2
        supervisor.turn()
        assert fleet.names()[3:] == ["ingest-0", "ingest-1"]
        assert fleet.slept == []


@pytest.mark.parametrize(
    ("apart_s", "expected"),
    [(0.0, [None, None, EXIT_AGAIN]), (20.0, [None, None, EXIT_AGAIN]), (31.0, [None, None, None])],
)
def test_a_process_that_ends_too_often_ends_the_worker(fleet, apart_s, expected):
    """Three ends within a minute are too many; a process of another name is counted apart."""
    with supervisor_of(fleet) as supervisor:
        end(fleet, "ingest-1", EXIT_AGAIN)
        supervisor.turn()
        codes = []
        for _ in range(3):
            end(fleet, "ingest-0", EXIT_AGAIN)
            codes.append(supervisor.turn())
            fleet.now_s += 1.0
            supervisor.turn()
            fleet.now_s += apart_s
        assert codes == expected


def test_no_process_starts_after_sigterm(fleet):
    """A restart that is pending when the signal comes does not take place."""
    with supervisor_of(fleet) as supervisor:
        end(fleet, "ingest-0", EXIT_AGAIN)
        supervisor.turn()
        supervisor.ask_to_stop()
        fleet.now_s += 5.0
        supervisor.turn()
        assert supervisor.run() == EXIT_OK
    assert fleet.names() == ["inference", "ingest-0", "ingest-1"]
    assert fleet.is_clean()


def test_sigterm_during_the_start_ends_it(fleet):
    """Processes that had not started by then never do."""
    supervisor = supervisor_of(fleet)
    spawn = fleet.spawn

    def spawn_and_signal(task):
        supervisor.ask_to_stop()
        return spawn(task)

    supervisor._spawn = spawn_and_signal
    with supervisor:
        assert supervisor.run() == EXIT_OK
    assert fleet.names() == ["inference"]
    assert fleet.is_clean()


def test_run_watches_until_it_is_asked_to_stop(fleet):
    """Without trouble the worker runs on, and ends with code 0."""
    with supervisor_of(fleet) as supervisor:
        looks = iter(range(5))
        sleep = fleet.sleep
        supervisor._sleep = lambda seconds: sleep(seconds) if next(looks) < 4 else supervisor.ask_to_stop()
        assert supervisor.run() == EXIT_OK
    assert fleet.slept == [0.2] * 4


def test_ingest_drains_before_the_model_ends(fleet):
    """All ingest processes are asked at once; the model and the projector serve until they are done."""
    with supervisor_of(fleet, output="both") as supervisor:
        supervisor.ask_to_stop()
    first_told = list(dict.fromkeys(fleet.told))
    assert first_told == [("ingest-0", "TERM"), ("ingest-1", "TERM"), ("projector", "TERM"), ("inference", "TERM")]


@pytest.mark.parametrize(
    ("is_model_gone", "budget_s"),
    [(False, 20.0 + 5.0), (True, 5.0)],
)
def test_one_budget_covers_the_whole_drain(fleet, is_model_gone, budget_s):
    """Processes that ignore SIGTERM are killed when the budget is over; without a model there is little to wait for."""
    fleet.slow_s = 1000.0
    with supervisor_of(fleet, output="both") as supervisor:
        began_s = fleet.now_s
        if is_model_gone:
            end(fleet, "inference", -9)
        supervisor.ask_to_stop()
    model_s = 0.0 if is_model_gone else 5.0
    assert fleet.now_s - began_s == pytest.approx(budget_s + model_s)
    assert fleet.is_clean()
    assert fleet.told.count(("ingest-1", "KILL")) == 1


def test_a_second_signal_kills_at_once(fleet):
    """Nobody waits for the drain, and a process that started meanwhile is killed too."""
    fleet.slow_s = 1000.0
    with supervisor_of(fleet) as supervisor:
        supervisor.ask_to_stop()
        assert all(child.exit_code is None for child in fleet.children)
        supervisor.ask_to_stop()
        assert all(child.exit_code == -9 for child in fleet.children)
        late = fleet.spawn(supervisor._ingests[0]._task)
        supervisor._ingests[0].child = late
        began_s = fleet.now_s
    assert late.exit_code == -9
    assert fleet.now_s == began_s


def test_a_model_that_hangs_is_killed(fleet):
    """SIGTERM would not reach it; before the model is warm, its silence is its loading."""
    with supervisor_of(fleet) as supervisor:
        fleet.hangs = True
        assert supervisor.turn() is None
        fleet.model = object()
        assert supervisor.turn() == EXIT_AGAIN
        assert fleet.newest("inference").signals == ["KILL"]


@pytest.mark.parametrize(
    ("facts", "silent_s", "expected"),
    [
        ({}, 0.0, (True, "alive")),
        ({}, 59.0, (True, "alive")),
        ({}, 61.0, (False, "ingest-0 has not reported for 61 s")),
        ({"stuck_s": 59.0}, 0.0, (True, "alive")),
        ({"stuck_s": 61.0}, 0.0, (False, "ingest-0: no progress in reading for 61 s")),
        ({"stuck_s": 61.0, "is_store_healthy": False}, 0.0, (True, "alive")),
        ({"restoring": 3}, 0.0, (True, "alive")),
    ],
)
def test_livez_fails_where_a_restart_helps(fleet, facts, silent_s, expected):
    """Silence or a standstill beyond the limit; not while the store is away, which no restart brings back."""
    with supervisor_of(fleet, ingest_processes=1) as supervisor:
        fleet.newest("ingest-0").unread = [Report("running", FACTS | facts)]
        supervisor.turn()
        fleet.now_s += silent_s
        assert supervisor.is_alive() == expected


@pytest.mark.parametrize("state", ["starting", "waiting for the model", "joining the group"])
def test_livez_lets_a_start_take_its_time(fleet, state):
    """A large model may load for long: only a process that was running can stand still."""
    with supervisor_of(fleet, ingest_processes=1) as supervisor:
        fleet.newest("ingest-0").unread = [Report(state, {})]
        supervisor.turn()
        fleet.now_s += 600.0
        assert supervisor.is_alive().is_ok


def test_livez_fails_while_the_model_hangs(fleet):
    """The probe names it, in case the worker itself cannot."""
    with supervisor_of(fleet) as supervisor:
        fleet.hangs = True
        assert supervisor.is_alive() == (False, "the model thread hangs")


@pytest.mark.parametrize(
    ("report", "silent_s", "expected"),
    [
        (RUNNING, 0.0, (True, "ready, 8 partitions")),
        (RUNNING, 11.0, (False, "ingest-0: running, last report 11 s ago")),
        (Report("waiting for the model", {}), 1.0, (False, "ingest-1: waiting for the model, last report 1 s ago")),
        (Report("running", FACTS | {"restoring": 2}), 0.0, (False, "ingest-1: 2 partitions are being restored")),
        (Report("running", FACTS | {"is_store_healthy": False}), 0.0, (False, "ingest-1: the store does not answer")),
    ],
)
def test_readyz_wants_every_ingest_process_at_work(fleet, report, silent_s, expected):
    """Recent reports, a store that answers and no partition that waits; the answer names what is missing."""
    with supervisor_of(fleet) as supervisor:
        fleet.newest("ingest-0").unread = [RUNNING]
        fleet.newest("ingest-1").unread = [Report("starting", {}), report]
        supervisor.turn()
        fleet.now_s += silent_s
        assert supervisor.is_ready() == expected


def test_readyz_fails_from_the_end_of_a_process_until_it_is_back(fleet):
    """The last report of a process that has ended says nothing any more."""
    with supervisor_of(fleet, ingest_processes=1) as supervisor:
        fleet.newest("ingest-0").unread = [RUNNING]
        end(fleet, "ingest-0", EXIT_AGAIN)
        supervisor.turn()
        assert supervisor.is_ready() == (False, "ingest-0: restarting, last report 0 s ago")
        fleet.now_s += 1.0
        supervisor.turn()
        assert supervisor.is_ready() == (False, "ingest-0: starting, last report 0 s ago")
        fleet.newest("ingest-0").unread = [RUNNING]
        supervisor.turn()
        assert supervisor.is_ready().is_ok
        supervisor.ask_to_stop()
        assert supervisor.is_ready() == (False, "draining")


def test_importing_the_supervisor_imports_no_metrics():
    """prometheus_client decides at its import whether processes share metrics, so the supervisor sets that up first."""
    check = "import sys, callmood.worker.run.supervise; assert 'callmood.worker.metrics' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_a_taken_health_port_ends_the_worker():
    """One line names the setting, and no process stays behind to work without probes and without a supervisor."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {"HOST": "127.0.0.1", "PORT": str(taken.getsockname()[1])}
        done = subprocess.run(
            [sys.executable, "-m", "callmood", "worker"],
            env=os.environ | {f"CALLMOOD_WORKER__HEALTH_{name}": value for name, value in settings.items()},
            capture_output=True,
            text=True,
            timeout=45,
            check=False,
        )
    assert done.returncode == 2
    assert "CALLMOOD_WORKER__HEALTH_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_without_temporary_files_ends_the_worker(monkeypatch):
    """A container whose file system is read-only needs a volume: one line says so."""
    monkeypatch.setattr(health, "use_shared_metrics", lambda: (_ for _ in ()).throw(FileNotFoundError("no folder")))
    monkeypatch.setattr(supervise.logs, "configure", lambda *_, **__: None)
    with capture_logs() as lines:
        assert supervise.run(Settings()) == EXIT_CONFIGURATION
    assert "see TMPDIR" in lines[0]["error"]
