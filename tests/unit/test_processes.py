"""How a child process is set up before its loop begins."""

import gc
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from callmood.worker.errors import ConfigurationError
from callmood.worker.run import processes, wiring
from callmood.worker.settings import Settings


@pytest.fixture
def _as_before():
    """What a process sets for itself is set back."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("_as_before")
def test_the_ingest_loop_runs_with_a_rare_garbage_collector(monkeypatch):
    """A look at all objects of 1,400 live calls takes 70 ms, and Python would look 70 times a second."""
    seen, stop = [], SimpleNamespace(is_asked=False)

    def turn():
        seen.append((gc.get_threshold()[0], gc.get_freeze_count()))
        stop.is_asked = True

    loop = SimpleNamespace(turn=turn, drain=lambda _: True)
    monkeypatch.setattr(processes, "InferenceClient", lambda *_, **__: SimpleNamespace(model="warm"))
    monkeypatch.setattr(wiring, "open_ingest", lambda *_: nullcontext(loop))
    reporter = SimpleNamespace(due=lambda: False, send=lambda *_, **__: None)
    processes._ingest(Settings(), "ingest-0", "ipc://none", (stop, reporter))
    ((threshold, frozen),) = seen
    assert threshold == 50_000
    assert frozen > 0


@pytest.mark.usefixtures("_as_before")
def test_each_process_keeps_to_its_cores_before_libraries_start_threads(monkeypatch):
    """An ingest process by its number, the inference process to the rest; only then are numpy and torch imported."""
    kept = []

    def keep(_, ingest=None):
        kept.append(ingest)
        raise ConfigurationError("no such core")

    monkeypatch.setattr(processes, "keep_to_own_cores", keep)
    for module in ("callmood.worker.run.wiring", "callmood.worker.inference.serve"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    for begin in (
        lambda: processes._ingest(Settings(), "ingest-3", "ipc://none", (None, None)),
        lambda: processes._inference(Settings(), "ipc://none"),
    ):
        with pytest.raises(ConfigurationError, match="no such core"):
            begin()
    assert kept == [3, None]


def test_the_models_threads_sleep_while_they_wait(tmp_path):
    """By OpenMP's own account: by default they spin, on cores that the processes in front of the model need."""
    program = (
        "from callmood.worker.run.processes import _inference\n"
        "from callmood.worker.settings import Settings\n"
        "_inference(Settings(model={'path': 'no-model'}), 'ipc://socket')"
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "no-model" in ended.stderr
    if "GOMP_" not in ended.stderr:
        pytest.skip("another OpenMP than GNU's, which does not tell")
    assert "GOMP_SPINCOUNT = '0'" in ended.stderr
