"""The search for the calls that a program carries, and a program that gets loads."""

import io
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from callmood.bench import loads
from callmood.bench.ingest import Load
from callmood.bench.loads import Expected, Measured, Step
from callmood.bench.programs import Result, Results, of_loop, other
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings

LOAD = Load(200, "customer", 4, 8)


def step(calls, total_ms):
    """A step whose only result took so long."""
    return Step(calls, [Result("call", total_ms)], 0.0, 1)


def carries(capacity, tried=None):
    """A program that is within a limit of 1,000 ms up to so many calls."""

    def measure(calls):
        if tried is not None:
            tried.append(calls)
        return step(calls, 900.0 if calls <= capacity else 2_000.0)

    return measure


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 7, 16, 23, 100, 255])
def test_the_capacity_is_found_to_about_a_tenth(capacity):
    """It is never found too high."""
    found = loads.rated(loads.search(carries(capacity), 256, 1_000.0), 1_000.0)
    assert 0.9 * capacity - 1 <= found <= capacity


def test_the_calls_are_doubled_and_then_the_interval_is_halved():
    """A load over the limit is measured twice."""
    tried = []
    loads.search(carries(23, tried), 256, 1_000.0)
    assert tried == [4, 8, 16, 32, 32, 24, 24, 20, 22]


def test_more_than_the_most_is_not_tried():
    """The most is tried itself, also if it is no power of two."""
    tried = []
    assert loads.rated(loads.search(carries(1_000, tried), 20, 1_000.0), 1_000.0) == 20
    assert tried == [4, 8, 16, 20]


def test_a_program_that_carries_nothing_has_0():
    """One call is tried last."""
    tried = []
    assert loads.rated(loads.search(carries(0, tried), 256, 1_000.0), 1_000.0) == 0
    assert tried == [4, 4, 2, 2, 1, 1]


def test_one_bad_moment_does_not_end_the_search():
    """A load that is within the limit in the second try is carried."""
    tried = []

    def measure(calls):
        tried.append(calls)
        return step(calls, 2_000.0 if tried == [4, 8] else carries(40)(calls).results[0].total_ms)

    assert loads.rated(loads.search(measure, 64, 1_000.0), 1_000.0) >= 36


def test_missing_results_are_over_every_limit():
    """One of a hundred is the 99th percentile, one of 101 is not; a step without results has only infinite ones."""
    results = [Result("call", 5.0)] * 100
    assert Step(2, results[1:], 0.0, 100).total_ms(99) == float("inf")
    assert Step(2, results, 0.0, 101).total_ms(99) == 5.0
    assert Step(2, results[:50], 0.0, 99).total_ms(50) == 5.0
    assert Step(2, [], 0.0).total_ms(99) == float("inf")
    assert Step(2, results, 0.0, 97).missing == 0


def test_each_call_is_cut_once():
    """More calls of the same length are cut alone; those of another length are other calls."""
    seen = []

    def cut(records):
        found = {record.key.decode() for record in records}
        seen.append(sorted(found))
        return dict.fromkeys(found, 3)

    expected = Expected(other("loop", "plain", "none")._replace(cut=cut), bytes(200_000))
    assert [expected(LOAD._replace(calls=calls)) for calls in (2, 3, 1)] == [6, 9, 3]
    assert expected(LOAD._replace(calls=1, seconds=4)) == 3
    assert seen == [["call-0", "call-1"], ["call-2"], ["call-0"]]


class _Stream:
    """A stream in Redis."""

    def __init__(self, *said):
        self.entries = [(b"%d-0" % at, {b"json": json.dumps(one).encode()}) for at, one in enumerate(said, 2_000)]

    def xrange(self, _, after, count):
        return [entry for entry in self.entries if entry[0] > after[1:]][:count]


def test_results_are_waited_for_until_all_are_there(monkeypatch):
    """Or until the time is up: then those that came are returned."""
    monkeypatch.setattr(loads, "_POLL_S", 0.01)
    said = [{"call_id": "call-1-x", "last_word_ms": 1_900}] * 3
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with running:
        for count in (3, 4):
            results = Results(_Stream(*said), "stream", of_loop)
            found = loads._Running(running, io.BytesIO(), Settings(), results).wait_for("x", count, 0.05)
            assert [one.total_ms for one in found] == [100.0, 101.0, 102.0]
        running.communicate(b"\n")


@pytest.fixture
def started(monkeypatch):
    """Programs that give the results of `gives` and are idle; the list has an entry for each start."""
    starts = []

    @contextmanager
    def running(*_):
        starts.append("started")
        yield SimpleNamespace(
            process=SimpleNamespace(pid=0, poll=lambda: None, returncode=None),
            configured=Settings(),
            wait_for=lambda _name, count, _s: [Result("call", 5.0)] * (count - lost[0]),
            becomes_idle=lambda: idle[0],
            check=lambda _: None,
        )
        starts.append("ended")

    lost, idle = [0], [True]
    monkeypatch.setattr(loads, "_running", running)
    monkeypatch.setattr(loads.sender, "send", lambda *_: 1.0)
    monkeypatch.setattr(loads.sender, "end", lambda *_: None)
    program = other("loop", "plain", "none")._replace(
        cut=lambda records: {record.key.decode(): 9 for record in records}
    )
    return SimpleNamespace(starts=starts, lost=lost, idle=idle, program=program)


def test_a_program_goes_on_after_a_load_that_it_finished(started):
    """It is started once, and ended at the end."""
    with Measured(started.program, bytes(200_000), Settings()) as measured:
        steps = [measured.step(LOAD) for _ in range(2)]
    assert [(one.calls, len(one.results), one.expected, one.missing) for one in steps] == [(4, 36, 36, 0)] * 2
    assert started.starts == ["started", "ended"]


@pytest.mark.parametrize(("lost", "idle"), [(1, True), (0, False)])
def test_a_program_that_is_behind_is_started_again(started, lost, idle):
    """Its backlog must not reach the next load."""
    with Measured(started.program, bytes(200_000), Settings()) as measured:
        measured.step(LOAD)
        started.lost[0], started.idle[0] = lost, idle
        assert measured.step(LOAD).missing == lost
        started.lost[0], started.idle[0] = 0, True
        measured.step(LOAD)
    assert started.starts == ["started", "ended"] * 2


def test_a_program_that_does_not_start_is_an_error_with_its_last_words():
    """The error has its exit code and the last line on stderr."""
    program = other("loop", "plain", "none")._replace(
        command=(sys.executable, "-c", "import sys; sys.exit('first\\nno such model')")
    )
    with tempfile.TemporaryFile() as errors, loads._process(program, Settings(), errors) as process:
        process.wait()
        running = loads._Running(process, errors, Settings(), None)
        with pytest.raises(ConfigurationError, match="loop has ended with 1: no such model"):
            running.check("loop")


def test_a_program_that_ends_during_a_load_is_an_error(started):
    """Its figures would be those of a dead process."""

    def check(_):
        raise ConfigurationError("loop has ended with 1: out of memory")

    with Measured(started.program, bytes(200_000), Settings()) as measured:
        measured.step(LOAD)
        measured._running.check = check
        with pytest.raises(ConfigurationError, match="out of memory"):
            measured.step(LOAD)


def test_a_program_that_never_answers_is_an_error(started, monkeypatch):
    """After the time for a start."""
    monkeypatch.setattr(loads, "_START_S", 0.0)
    started.lost[0] = 100
    measured = Measured(started.program, bytes(200_000), Settings())
    with pytest.raises(ConfigurationError, match="loop gives no result within 0 s"):
        measured.step(LOAD)


def test_a_program_is_idle_when_it_uses_little(monkeypatch):
    """One that uses a core all the time is not."""
    monkeypatch.setattr(loads, "_IDLE_S", 0.01)
    monkeypatch.setattr(loads, "_SETTLE_S", 0.1)
    used_s = [0.0]

    def cpu_s(_, add=0.01):
        used_s[0] += add
        return used_s[0]

    running = loads._Running(SimpleNamespace(pid=1), io.BytesIO(), Settings(), None)
    monkeypatch.setattr(loads.process_tree, "cpu_s", cpu_s)
    assert not running.becomes_idle()
    monkeypatch.setattr(loads.process_tree, "cpu_s", lambda _: used_s[0])
    assert running.becomes_idle()
