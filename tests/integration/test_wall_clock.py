"""Somebody sets the clock of a worker's machine while calls run."""

import re
import shutil
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest

_SOURCE = Path(__file__).with_name("moved_clock.c")
_STEPS_S = {"an hour back": -3600, "an hour forward": 0, "a second back": -1}
_WAIT_S = 60.0


@pytest.fixture
def set_clock(tmp_path, monkeypatch):
    """`set_clock(off_s)`: what is started in this test has a wall clock that is off by so many seconds from now on."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) here, which makes the library that moves the clock")
    library, off = tmp_path / "moved_clock.so", tmp_path / "off"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE], check=True)

    def write(seconds):
        new = off.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(off)  # nobody reads half of it

    write(0)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_OFF_FILE", str(off))
    return write


def _commits(worker):
    (count,) = re.findall(r"^callmood_commits_total (\S+)$", worker.probe("metrics")[1], re.MULTILINE) or ["0"]
    return float(count)


@pytest.mark.timeout(300)
def test_commits_go_on_when_the_wall_clock_is_set(pipeline, recorded, wait_until, set_clock):
    """Back or forth by an hour, or back by a second: the next commit comes as soon as before, and calls are exact."""
    calls = {f"{name}-{uuid4().hex[:8]}": call for name, call in recorded.all().items()}
    worker = pipeline.start_worker(by_command=True).wait_ready()

    def next_commit_s(gate, until_ms):
        """How long a commit takes from when there is something new."""
        known, began_s = _commits(worker), time.monotonic()
        gate.open(until_ms)
        assert wait_until(lambda: _commits(worker) > known, _WAIT_S), worker.log
        return time.monotonic() - began_s

    with pipeline.sending(calls) as gate:
        usual_s = max(next_commit_s(gate, until_ms) for until_ms in (2_000, 4_000, 6_000))
        for number, (step, off_s) in enumerate(_STEPS_S.items(), start=1):
            set_clock(off_s)
            took_s = [next_commit_s(gate, 6_000 + 4_000 * number + more_ms) for more_ms in (-2_000, 0)]
            assert max(took_s) <= 1 + 5 * usual_s, (step, took_s, usual_s)
    pipeline.assert_exact(calls)
    hours = {line["timestamp"][:13] for line in worker.lines("utterance")}
    assert len(hours) > 1, "the worker has not noticed the clock"
    worker.stop()
