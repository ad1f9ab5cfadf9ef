"""When the ingest loop commits."""

from itertools import count, pairwise

import pytest
from loops import new_store, wired

from callmood.worker.run.cadence import Cadence

INTERVAL_S, COST_S = 0.25, 0.02
LOOK = {"is_busy": False, "is_quiet": False, "is_asking": False}


@pytest.fixture
def cadence():
    """After a commit at second 100, which took 20 ms."""
    made = Cadence(INTERVAL_S)
    made.began(100.0)
    made.took(COST_S)
    return made


def test_without_answers_a_commit_comes_once_an_interval(cadence):
    """However long the loop waits for records."""
    cadence.polled(0.21)
    assert not cadence.is_due(100.24)
    assert cadence.is_due(100.25)


def test_an_answer_brings_the_commit_forward_once_there_was_time_to_spare(cadence):
    """A quarter of the time in which the loop has waited has to be as long as a commit takes."""
    cadence.answered()
    cadence.polled(0.08)
    assert not cadence.is_due(100.08)
    cadence.polled(0.021)
    assert cadence.is_due(100.1)
    cadence.began(100.1)
    cadence.collected()
    cadence.took(COST_S)
    cadence.polled(0.21)
    assert not cadence.is_due(100.34), "the answer is in the store"


def test_commits_are_at_least_a_quarter_of_the_interval_apart(cadence):
    """However cheap they are for this process: the servers have others to serve."""
    cadence.took(0.0)
    cadence.answered()
    cadence.polled(0.07)
    assert not cadence.is_due(100.06)
    assert cadence.is_due(100.0625)


def test_a_busy_loop_commits_once_an_interval(cadence):
    """One that never waits does not spend its time on commits, whatever the model answers."""
    cadence.answered()
    assert not cadence.is_due(100.24)
    assert cadence.is_due(100.25)


def test_the_first_commit_is_not_early():
    """What a commit takes is not known before."""
    cadence = Cadence(INTERVAL_S)
    cadence.began(100.0)
    cadence.answered()
    cadence.polled(0.21)
    assert not cadence.is_due(100.24)


@pytest.mark.parametrize("interval_s", [0.01, 0.1, 0.25, 2.0])
def test_a_commit_that_failed_is_not_repeated_early(interval_s):
    """A store that is away is asked at the time that was set for it, though answers come and the loop waits."""
    cadence = Cadence(interval_s)
    cadence.began(100.0)
    cadence.took(COST_S)
    cadence.failed(100.5)
    cadence.answered()
    cadence.polled(0.5)
    assert not cadence.is_due(100.49)
    assert cadence.is_due(100.5)


def test_answers_that_a_repeated_commit_does_not_hold_bring_the_next_forward(cadence):
    """After an outage, what came meanwhile does not wait for a whole interval."""
    cadence.failed(100.5)
    cadence.answered()
    cadence.began(100.5)
    cadence.took(COST_S)
    cadence.polled(0.09)
    assert cadence.is_due(100.6)


@pytest.mark.parametrize(
    ("now_s", "look", "expected_ms"),
    [
        (100.1, {}, 150),
        (100.249, {}, 10),
        (100.0, {"is_asking": True}, 90),
        (100.2, {"is_asking": True}, 50),
        (100.1, {"is_busy": True}, 10),
        (100.1, {"is_quiet": True}, 1_000),
        (100.0, {"is_quiet": True, "is_asking": True}, 90),
    ],
)
def test_the_loop_waits_until_something_is_due(cadence, now_s, look, expected_ms):
    """Until the next commit, or the earliest that an answer may bring; a second if nothing goes on."""
    assert cadence.wait_ms(now_s, **LOOK | look) == expected_ms


def test_the_loop_looks_often_once_an_answer_can_be_committed(cadence):
    """The time to spare is there: the next answer waits for 20 ms at most."""
    cadence.polled(0.09)
    assert cadence.wait_ms(100.1, **LOOK | {"is_asking": True}) == 20


def test_the_last_of_the_time_that_an_answer_needs_is_not_rounded_up_to_a_look(cadence):
    """A poll computes a little, too, so that a rest is left: it takes the shortest wait, not that for an answer."""
    cadence.answered()
    cadence.polled(0.0896)
    assert cadence.wait_ms(100.1, **LOOK) == 10


@pytest.mark.parametrize("is_quiet", [False, True])
def test_an_answer_that_is_not_committed_is_not_left_alone(cadence, is_quiet):
    """The next look is when its commit may be due, also if no record comes and nothing else is at the model."""
    cadence.answered()
    cadence.polled(0.04)
    assert cadence.wait_ms(100.1, **LOOK | {"is_quiet": is_quiet}) == 60


def run_loop(answers_at, *, waited_s, commit_s, until_s=4.0):
    """When a loop began its commits, whose polls and commits take so long, and which gets an answer in these turns."""
    store, now_s, began_s, turns = new_store(), [0.0], [], count()
    store.consumer.unread = {}
    commit, poll, answers = store.commit, store.consumer.poll, []

    def polled(timeout_ms):
        now_s[0] += waited_s
        return poll(timeout_ms)

    def committed(commits):
        began_s.append(now_s[0])
        now_s[0] += commit_s
        return commit(commits)

    store.commit, store.consumer.poll = committed, polled
    ingest = wired(store, lambda: 0.0, lambda: now_s[0], answers=answers)
    while now_s[0] < until_s:
        ingest._confirm_s = dict.fromkeys(ingest._confirm_s, 0.0)  # each commit has something to store
        answers[:] = [("of another partition", None)] if answers_at(next(turns)) else []
        ingest.turn()
        now_s[0] += 0.01
    return began_s


@pytest.mark.parametrize(
    ("waited_s", "has_answers", "commits"),
    [(0.1, True, range(24, 40)), (0.0, True, range(12, 17)), (0.1, False, range(8, 15))],
)
def test_answers_are_committed_early_by_a_loop_that_waits(waited_s, has_answers, commits):
    """With an answer in each turn: more often than every 250 ms if the loop has time for a commit of 20 ms."""
    assert len(run_loop(lambda _: has_answers, waited_s=waited_s, commit_s=0.02)) in commits


def test_an_answer_brings_only_one_commit_forward():
    """Once it is in a commit, the next comes after the interval again, however long the loop waits."""
    began_s = run_loop(lambda turn: turn == 20, waited_s=0.1, commit_s=0.0)
    assert sum(after - before < 0.25 for before, after in pairwise(began_s)) == 1
