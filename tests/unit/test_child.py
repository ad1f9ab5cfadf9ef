"""A process below the supervisor, started for real."""

import time
from multiprocessing import resource_tracker
from operator import methodcaller
from pathlib import Path

import pytest

from callmood.worker.run.child import SpawnedChild, Task
from callmood.worker.run.processes import Report

WAIT_S = 60.0


def test_a_process_reports_and_ends():
    """Its reports arrive in order, also after its end; then there are none, and the exit code is known."""
    child = SpawnedChild(Task("reporter", methodcaller("send", Report("running", {"partitions": 3})), ()))
    assert child.wait(WAIT_S)
    assert (child.reports(), child.reports()) == ([Report("running", {"partitions": 3})], [])
    assert child.exit_code == 0


def test_a_process_is_ended_by_a_signal():
    """SIGTERM ends a process that does not handle it, and a wait that is too short says so."""
    child = SpawnedChild(Task("sleeper", time.sleep, (600,), has_reports=False))
    assert not child.wait(0.1)
    assert (child.exit_code, child.reports()) == (None, [])
    child.terminate()
    assert child.wait(WAIT_S)
    child.kill()
    assert child.exit_code == -15


def open_pipes():
    """Pipes of this process."""
    links = [path.readlink() for path in list(Path("/proc/self/fd").iterdir()) if path.is_symlink()]
    return sorted(str(link) for link in links if str(link).startswith("pipe:"))


def test_a_start_that_fails_leaves_no_pipe_open():
    """What cannot be handed to a process raises, and both ends of its pipe are closed."""
    resource_tracker.ensure_running()  # keeps a pipe of its own from the first start on
    before = open_pipes()
    with pytest.raises(AttributeError, match="pickle") as raised:  # keeps the frame, and with it what is not closed
        SpawnedChild(Task("broken", lambda _reports: None, ()))
    assert open_pipes() == before
    assert raised.tb is not None
