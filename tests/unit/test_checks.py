"""Utterances at the speech check, on threads that the test holds and releases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import torch

from callmood.schemas.common import Encoding
from callmood.worker.engine import infer
from callmood.worker.errors import ModelError
from callmood.worker.inference import checks
from callmood.worker.records import Speech
from callmood.worker.settings import ModelSettings

LIMIT_S = 20.0  # for threads that have nothing to wait for
SOUND = (Encoding.PCMU, 8_000, b"\xff" * 8_000)


class Check:
    """A check that waits until the test lets an utterance go."""

    def __init__(self):
        self.gates = {}
        self.faults = {}

    def judge(self, sound):
        """Wait for the test; then a verdict with the length, or the fault."""
        assert self.gates.setdefault(sound[2], threading.Event()).wait(LIMIT_S)
        if sound[2] in self.faults:
            raise self.faults[sound[2]]
        return Speech(0.9, 0, len(sound[2]))

    def let_go(self, data):
        """Let the check be done with this utterance."""
        self.gates.setdefault(data, threading.Event()).set()


@pytest.fixture
def check(monkeypatch):
    one = Check()
    monkeypatch.setattr(checks, "_open", lambda: one)
    monkeypatch.setattr(checks, "usable_cores", lambda: 16)
    return one


@pytest.fixture
def scene(check):
    """Open checks, the clock as a list, and an event for each wake-up."""
    now_s, signals = [100.0], threading.Semaphore(0)
    opened = checks.Checks(ModelSettings(), signals.release, clock=lambda: now_s[0])
    yield opened, now_s, signals
    for gate in check.gates.values():
        gate.set()
    opened.close()


def sound(name):
    return Encoding.PCMU, 8_000, name


def test_verdicts_come_in_the_order_of_the_utterances(scene, check):
    """One that is ready first waits for those before it; each wakes the loop."""
    opened, _, signals = scene
    for name in (b"a", b"bb"):
        opened.add(name, sound(name))
    check.let_go(b"bb")
    assert signals.acquire(timeout=LIMIT_S)
    assert list(opened.take()) == []
    check.let_go(b"a")
    assert signals.acquire(timeout=LIMIT_S)
    assert list(opened.take()) == [(b"a", Speech(0.9, 0, 1)), (b"bb", Speech(0.9, 0, 2))]
    assert list(opened.take()) == []


def test_the_oldest_utterance_says_how_long_the_check_has_been_busy(scene, check):
    """A check that hangs is seen in the beats; waiting behind another is not hanging."""
    opened, now_s, signals = scene
    assert opened.busy_s(now_s[0]) == 0
    opened.add(b"a", sound(b"a"))
    opened.add(b"bb", sound(b"bb"))
    now_s[0] += 7
    assert opened.busy_s(now_s[0]) == 7
    check.let_go(b"a")
    assert signals.acquire(timeout=LIMIT_S)
    assert len(list(opened.take())) == 1
    assert opened.busy_s(now_s[0]) == 0
    now_s[0] += 2
    assert opened.busy_s(now_s[0]) == 2


def test_a_broken_check_ends_the_process(scene, check):
    """What it raises reaches the loop."""
    opened, _, signals = scene
    check.faults[b"a"] = RuntimeError("broken")
    opened.add(b"a", sound(b"a"))
    check.let_go(b"a")
    assert signals.acquire(timeout=LIMIT_S)
    with pytest.raises(RuntimeError, match="broken"):
        list(opened.take())


def test_a_check_that_is_off_loads_nothing(monkeypatch):
    """There is nothing to wait for, and no package is needed."""
    monkeypatch.setattr(checks, "_open", pytest.fail)
    opened = checks.Checks(ModelSettings(speech_check=False), lambda: None)
    assert not opened.is_on
    assert opened.is_open
    assert opened.busy_s(1e9) == 0
    opened.close()


def test_weights_that_cannot_be_used_end_the_start(monkeypatch):
    """The error reaches the loop before the model counts as warm."""

    def fail():
        raise ModelError("no weights")

    monkeypatch.setattr(checks, "_open", fail)
    opened = checks.Checks(ModelSettings(), lambda: None)
    opened._check.exception(LIMIT_S)
    with pytest.raises(ModelError, match="no weights"):
        assert opened.is_open
    opened.close()


def test_the_check_takes_one_core_and_the_model_keeps_its_own(monkeypatch):
    """Also if the model's thread sets its number before the check's thread has computed anything."""
    before = torch.get_num_threads()
    monkeypatch.setattr(checks, "_open", lambda: None)
    with ThreadPoolExecutor(1) as model, closing(checks.Checks(ModelSettings(), lambda: None)) as opened:
        assert opened._check.result(LIMIT_S) is None
        model.submit(infer.compute_with, 3).result(LIMIT_S)
        of_check = opened._threads.submit(torch.get_num_threads).result(LIMIT_S)
        assert (of_check, model.submit(torch.get_num_threads).result(LIMIT_S)) == (1, 3)
        model.submit(infer.compute_with, before).result(LIMIT_S)  # what threads of other tests take
