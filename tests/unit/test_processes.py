"""How a child process is set up before its loop begins."""

import gc
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

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
