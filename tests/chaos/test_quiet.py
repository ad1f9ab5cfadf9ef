"""When the runner takes a run for over."""

from itertools import count
from types import SimpleNamespace

import pytest

from tests.chaos import __main__ as runner

ENDS = {0: 40, 1: 7}


@pytest.fixture
def is_quiet(monkeypatch):
    """Whether a run with these positions, looked at again and again, is quiet within its time."""
    monkeypatch.setattr(runner, "_ATTEMPTS_S", 0.01)
    monkeypatch.setattr(runner, "_QUIET_S", 0.1)
    monkeypatch.setattr(runner, "_DRAINED_S", 0.5)
    monkeypatch.setattr(runner.look, "ends", lambda *_: ENDS)

    def answer(watermarks, projected):
        monkeypatch.setattr(runner.look, "watermarks", lambda _: next(watermarks))
        monkeypatch.setattr(runner.look, "projected", lambda _: next(projected))
        return runner._is_quiet_in_time(SimpleNamespace(run=None))

    return answer


def forever(value):
    return (value for _ in count())


def test_a_run_is_quiet_at_the_ends_of_its_topics(is_quiet):
    """Nothing is left to read, and nothing more is projected."""
    assert is_quiet(forever(ENDS), forever({}))


def test_a_partition_that_stands_still_is_not_quiet(is_quiet, capsys):
    """It does not move either, but records are left: the run fails, and says so."""
    assert not is_quiet(forever({0: 40, 1: 3}), forever({}))
    assert "not quiet after" in capsys.readouterr().err


def test_a_projection_that_goes_on_is_not_quiet(is_quiet):
    """All is read, and results are still on their way into Redis."""
    assert not is_quiet(forever(ENDS), ({"call:0": str(number)} for number in count()))
