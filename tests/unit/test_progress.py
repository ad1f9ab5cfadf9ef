"""Whether a loop makes progress."""

import pytest

from callmood.worker.run.progress import Progress, Stage

IDLE = {"has_work": False, "has_moved": False}
WAITING = {"has_work": True, "has_moved": False}
MOVING = {"has_work": True, "has_moved": True}


@pytest.mark.parametrize(
    ("notes", "expected_s"),
    [
        ([], 0.0),
        ([(0.0, IDLE)], 0.0),
        ([(0.0, IDLE), (70.0, WAITING)], 30.0),
        ([(0.0, WAITING), (50.0, WAITING), (90.0, WAITING)], 100.0),
        ([(0.0, WAITING), (50.0, MOVING), (90.0, WAITING)], 50.0),
        ([(0.0, WAITING), (50.0, IDLE), (90.0, WAITING)], 10.0),
        ([(0.0, MOVING), (95.0, IDLE)], 0.0),
    ],
)
def test_a_standstill_is_work_that_nobody_does(notes, expected_s):
    """It begins with the work or with its last move, and ends where nothing is left to do."""
    progress = Progress()
    for at_s, facts in notes:
        progress.note(Stage.READING, at_s, **facts)
    assert progress.longest(100.0)[0] == expected_s


def test_the_stage_that_stands_longest_is_named():
    """One stage that moves does not hide another that does not."""
    progress = Progress()
    progress.note(Stage.COMMITS, 0.0, **WAITING)
    progress.note(Stage.INFERENCE, 10.0, **WAITING)
    assert progress.longest(50.0) == (50.0, "commits")
    progress.note(Stage.COMMITS, 45.0, **MOVING)
    assert progress.longest(50.0) == (40.0, "inference")
    progress.note(Stage.INFERENCE, 50.0, **IDLE)
    assert progress.longest(50.0) == (5.0, "commits")


def test_asking_changes_nothing():
    """The answer is the same however often it is asked for."""
    progress = Progress()
    progress.note(Stage.READING, 0.0, **WAITING)
    assert [progress.longest(9.0), progress.longest(9.0)] == [(9.0, "reading")] * 2
