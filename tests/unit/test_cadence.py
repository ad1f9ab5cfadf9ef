"""When the ingest loop commits."""

import pytest

from callmood.worker.run.cadence import Cadence

INTERVAL_S, COST_S = 0.25, 0.01
LOOK = {"is_busy": False, "is_quiet": False, "is_asking": False}


@pytest.fixture
def cadence():
    """After a commit at second 100, which took 10 ms."""
    made = Cadence(INTERVAL_S)
    made.began(100.0)
    made.took(COST_S)
    return made


def test_without_answers_a_commit_comes_once_an_interval(cadence):
    """However long the loop waits for records."""
    cadence.waited(0.2)
    assert not cadence.is_due(100.24)
    assert cadence.is_due(100.25)


def test_an_answer_brings_the_commit_forward_once_there_was_time_to_spare(cadence):
    """A quarter of the time in which the loop has waited has to be as long as a commit takes."""
    cadence.answered()
    assert not cadence.is_due(100.01)
    cadence.waited(0.03)
    assert not cadence.is_due(100.04)
    cadence.waited(0.01)
    assert cadence.is_due(100.05)
    cadence.began(100.05)
    cadence.took(COST_S)
    cadence.waited(0.2)
    assert not cadence.is_due(100.26), "the answer is in the store"


def test_a_busy_loop_commits_once_an_interval(cadence):
    """One that never waits does not spend its time on commits, whatever the model answers."""
    cadence.answered()
    cadence.waited(0.0)
    assert not cadence.is_due(100.24)
    assert cadence.is_due(100.25)


def test_a_commit_that_failed_is_not_repeated_early(cadence):
    """A store that is away is asked at the time that was set for it, though answers come and the loop waits."""
    cadence.failed(100.5)
    cadence.answered()
    cadence.waited(0.4)
    assert not cadence.is_due(100.45)
    assert cadence.is_due(100.5)


@pytest.mark.parametrize(
    ("now_s", "look", "expected_ms"),
    [
        (100.1, {}, 150),
        (100.249, {}, 10),
        (100.1, {"is_asking": True}, 20),
        (100.1, {"is_busy": True}, 10),
        (100.1, {"is_quiet": True}, 1_000),
        (100.1, {"is_quiet": True, "is_asking": True}, 20),
    ],
)
def test_the_loop_waits_until_something_is_due(cadence, now_s, look, expected_ms):
    """Until the next commit; shortly while an answer may come; a second if nothing goes on."""
    assert cadence.wait_ms(now_s, **LOOK | look) == expected_ms


def test_the_loop_waits_shortly_for_the_time_that_an_answer_needs(cadence):
    """With an answer that is not committed, the next look is soon."""
    cadence.answered()
    assert cadence.wait_ms(100.1, **LOOK) == 20
