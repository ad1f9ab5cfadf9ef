"""The benchmark of capacity: which programs, what is given to them, and the tables."""

import argparse
from types import SimpleNamespace

import pytest
from rich.console import Console

from callmood.bench import capacity
from callmood.bench.capacity import Cost, Found
from callmood.bench.ingest import Load
from callmood.bench.loads import Step
from callmood.bench.programs import Result
from callmood.bench.weights import Written
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings


def step(calls, total_ms):
    """A step whose only result took so long."""
    return Step(calls, [Result("call", total_ms)], 3.0, 1, 0.5)


def options(*given):
    """The options of a command line."""
    return capacity.add_arguments(argparse.ArgumentParser()).parse_args(given)


def printed(table):
    """The cells of a table, by row."""
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


@pytest.fixture
def measured(monkeypatch):
    """Programs that carry so many calls by name; the list has each program with its environment, command and loads."""
    seen = []
    carried = {"callmood": 40, "plain loop": 8, "Quix Streams": 4}

    class Measured:
        def __init__(self, program, *_):
            self.program, self.loads = program, []
            seen.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def step(self, load):
            self.loads.append(load)
            return step(load.calls, 100.0 if load.calls <= carried[self.program.name] else 9_000.0)

    monkeypatch.setattr(capacity, "Measured", Measured)
    monkeypatch.setattr(
        capacity.weights, "write", lambda shape, _: Written(f"{shape} of the worker", "folder", shape == "demo")
    )
    monkeypatch.setattr(capacity.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(capacity.settings, "load", Settings)
    return seen


def test_all_programs_get_the_same_model_and_the_same_calls(measured):
    """The worker has the model in a setting, the others in their command line; lengths are those of the options."""
    given = options("--seconds", "7", "--chunk-ms", "20")
    found = capacity.searched(given, Settings(), Console(quiet=True))
    assert [(one.name, one.carried) for one in found] == [("callmood", 40), ("plain loop", 8), ("Quix Streams", 4)]
    worker, loop, quix = (one.program for one in measured)
    assert worker.environment == {"CALLMOOD_MODEL__PATH": "base of the worker", "CALLMOOD_MODEL__DEVICE": "cpu"}
    assert loop.command[2:] == ("callmood.bench.plain", "folder")
    assert quix.command[2:] == ("callmood.bench.quix", "folder")
    assert loop.environment == quix.environment == {}
    assert all(load == Load(20, "customer", load.calls, 7) for one in measured for load in one.loads)


def test_the_speech_check_can_be_left_out(measured):
    """The others have none."""
    capacity.run(options("--programs", "callmood", "--without-speech-check", "--most", "4"))
    assert [one.program.environment["CALLMOOD_MODEL__SPEECH_CHECK"] for one in measured] == ["false"]


def test_the_programs_take_turns(measured, monkeypatch):
    """Each load of one is followed by one of the next, until only one still searches."""
    order, carried = [], capacity.Measured.step

    def step_of(self, load):
        order.append((self.program.name, load.calls))
        return carried(self, load)

    monkeypatch.setattr(capacity.Measured, "step", step_of)
    capacity.searched(options(), Settings(), Console(quiet=True))
    assert len(measured) == 3
    assert order[:6] == [(name, calls) for calls in (4, 8) for name in ("callmood", "plain loop", "Quix Streams")]
    assert order[-1][0] == "callmood"


def test_a_small_model_has_one_thread_everywhere(measured):
    """The worker sees to that by itself."""
    capacity.searched(options("--shape", "demo", "--most", "4"), Settings(), Console(quiet=True))
    assert [one.program.environment.get("OMP_NUM_THREADS") for one in measured] == [None, "1", "1"]


def test_a_program_that_fails_costs_only_its_own_row(measured, monkeypatch, capsys):
    """What the others carried is printed, and why it failed."""
    carried = capacity.Measured.step

    def step_or_fail(self, load):
        if self.program.name == "plain loop":
            raise ConfigurationError("plain loop has ended with 1: no such model")
        return carried(self, load)

    monkeypatch.setattr(capacity.Measured, "step", step_or_fail)
    assert capacity.run(options("--most", "4")) == 0
    text = capsys.readouterr().out
    assert "no such model" in text
    assert [one.program.name for one in measured] == ["callmood", "plain loop", "Quix Streams"]
    assert text.count("4 or more") == 2


@pytest.mark.usefixtures("measured")
def test_the_table_has_the_calls_beside_callmoods(capsys):
    """It says how many times as many callmood carries: 40 and not 44, beside 8 and not 9, and 4 and not 5."""
    assert capacity.run(options("--shape", "demo")) == 0
    text = capsys.readouterr().out
    assert "4.4 to 5.5 x" in text
    assert "8.0 to 11.0 x" in text


def test_a_row_has_the_best_step_with_these_calls():
    """A program that carries nothing has no figures, and one that carries the most could carry more."""
    found = [
        Found("callmood", 64, [step(64, 300.0), step(64, 200.0)]),
        Found("plain loop", 8, [step(8, 250.0), step(16, 900.0)]),
        Found("Quix Streams", 0, [step(4, 900.0)]),
    ]
    assert printed(capacity.table_of(found, "title", 64)) == [
        ["callmood", "64 or more", "1", "200", "200", "0.50", "3", ""],
        ["plain loop", "8", "1", "250", "250", "0.50", "3", "4.0 x or more"],
        ["Quix Streams", "0", "", "", "", "", "", "16.0 x or more"],
    ]


def test_a_program_that_could_carry_more_is_not_compared():
    """It carries the most that was tried, so the ratio is not known."""
    found = [Found("callmood", 64, [step(64, 300.0)]), Found("plain loop", 64, [step(64, 250.0)])]
    assert printed(capacity.table_of(found, "title", 64))[1][-1] == ""


def test_without_callmood_nothing_is_compared():
    """The column is empty."""
    assert printed(capacity.table_of([Found("plain loop", 8, [step(8, 250.0)])], "title", 64))[0][-1] == ""


def test_quix_streams_is_left_out_if_it_is_not_installed(measured, monkeypatch, capsys):
    """A line says so, and what to install; nothing is said if it was not asked for."""
    monkeypatch.setattr(capacity.importlib.util, "find_spec", lambda _: None)
    capacity.run(options("--most", "4"))
    assert "pip install 'callmood[bench]'" in capsys.readouterr().out
    assert [one.program.name for one in measured] == ["callmood", "plain loop"]
    capacity.run(options("--most", "4", "--programs", "plain"))
    assert "Quix" not in capsys.readouterr().out


def test_ingest_measures_each_program_without_a_model(measured, monkeypatch):
    """Callmood's ingest process is measured as `bench realtime` does, the others after a warm-up at the same load."""
    asked = []

    def measure(load, sampled, _):
        asked.append((load, sampled.seconds))
        return SimpleNamespace(
            samples=[SimpleNamespace(total_ms=lambda _: 600.0)], whole=lambda: SimpleNamespace(share=0.1)
        )

    monkeypatch.setattr(capacity.realtime, "measure", measure)
    costs = list(capacity.costs(options("--ingest", "--calls", "50", "--seconds", "9"), Settings()))
    assert [(cost.name, cost.load.chunk_ms, cost.cores) for cost in costs] == [
        ("callmood, ingest process", 20, 0.1),
        ("callmood, ingest process", 200, 0.1),
        ("plain loop", 20, 0.5),
        ("plain loop", 200, 0.5),
        ("Quix Streams", 20, 0.5),
        ("Quix Streams", 200, 0.5),
    ]
    assert asked == [(Load(chunk_ms, "customer", 50, 9 + 13), 9) for chunk_ms in (20, 200)]
    assert [[load.seconds for load in one.loads] for one in measured] == [[10, 9]] * 4
    assert all(one.program.command[3] == "none" for one in measured)


def test_channels_per_core_are_computed_from_cpu_time():
    """100 calls in a fifth of a core are 500 a core; a program that is behind has no such figure."""
    load = Load(20, "customer", 100, 30)
    rows = printed(capacity.table_of_costs([Cost("loop", load, 0.2, True), Cost("slow", load, 1.0, False)]))
    assert rows[0] == ["loop", "20 ms", "100", "20 %", "500", "40.0"]
    assert rows[1] == ["slow", "20 ms", "100", "100 %", "behind", "behind"]
