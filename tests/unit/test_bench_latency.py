"""The benchmark of latencies: the rated load, the loads that follow from it, and the table."""

import argparse

from callmood.bench import latency
from callmood.bench.loads import Step
from callmood.bench.programs import Result
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.settings import Settings


def step(calls, total_ms, stages_ms=()):
    """A step whose only result took so long."""
    return Step(calls, [Result("call", total_ms, stages_ms)], 0.0, 1)


def test_a_table_has_each_step_at_each_percentile():
    """Also a step of which no stages are known, and one without results."""
    known = step(8, 735.0, (600.0, 10.0, 40.0, 20.0, 60.0, 5.0, 135.0))
    assert latency.table_of("title", [known, step(4, 9.0), Step(2, [], 0.0)]).row_count == 9


def test_the_speech_check_is_switched_off_at_the_same_loads(monkeypatch):
    """With `--speech-check`, the worker is measured again without it, at the shares of its rated load."""
    measured = []

    class Measured:
        def __init__(self, program, *_):
            self._environment = dict(program.environment)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def step(self, load):
            measured.append((load.calls, self._environment))
            return step(load.calls, 2.0 * load.calls)

    monkeypatch.setattr(latency, "Measured", Measured)
    options = argparse.Namespace(most=256, limit_ms=40.0, speech_check=True, seconds=12, chunk_ms=200)
    titles = [title for title, _ in latency.tables_of(options, Settings())]
    assert [calls for calls, _ in measured[-8:]] == [2, 10, 14, 18] * 2
    checked = [own.get("CALLMOOD_MODEL__SPEECH_CHECK") for _, own in measured[-8:]]
    assert checked == [None] * 4 + ["false"] * 4
    assert {(own["CALLMOOD_MODEL__PATH"], own["CALLMOOD_MODEL__DEVICE"]) for _, own in measured} == {
        (str(DEMO_FOLDER), "cpu")
    }
    assert len(titles) == 3
