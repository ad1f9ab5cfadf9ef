"""How a child process is set up before its loop begins."""

import gc
import os
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from callmood.worker.inference import serve
from callmood.worker.run import processes, wiring
from callmood.worker.settings import Settings


@pytest.fixture
def _as_before():
    """What a process sets for itself is set back."""
    threshold, interval_s = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval_s)


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
def test_the_threads_of_the_inference_process_take_turns_often(monkeypatch):
    """The speech check holds Python's lock for long, and the model's thread must not wait 5 ms for it each time."""
    seen, exits = [], []
    monkeypatch.setattr(serve, "serve", lambda *_: seen.append(sys.getswitchinterval()))
    monkeypatch.setattr(processes.logs, "configure", lambda *_, **__: None)
    monkeypatch.setattr(os, "_exit", exits.append)
    processes.inference(Settings(), "ipc://none")
    assert seen == [pytest.approx(0.0005)]
    assert exits == [0]
