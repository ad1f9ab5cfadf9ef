"""The queue in front of the engine, by hand-set clock."""

import pytest

from worker.batch import Batcher


@pytest.fixture
def batcher():
    """At most 10 padded seconds in a batch; 20 ms of waiting for company."""
    return Batcher(batch_seconds=10.0, max_wait_s=0.02)


def test_an_empty_queue_is_never_due(batcher):
    """Nothing waits, nothing is due."""
    assert batcher.due_s() is None
    assert batcher.due(1e9) is None


def test_an_idle_engine_gets_the_first_utterance_at_once(batcher):
    """When no batch was taken lately, there is no wait."""
    batcher.add("a", 2.0, now_s=100.0)
    assert batcher.due(100.0) == ["a"]
    assert len(batcher) == 0


def test_a_busy_engine_waits_for_company(batcher):
    """Right after a batch, an utterance waits until the deadline, and what comes meanwhile goes with it."""
    batcher.add("a", 2.0, now_s=100.0)
    batcher.due(100.0)
    batcher.add("b", 2.0, now_s=100.001)
    assert batcher.due(100.002) is None
    assert batcher.due_s() == pytest.approx(100.02)
    batcher.add("c", 2.0, now_s=100.010)
    assert batcher.due(100.021) == ["c", "b"]


def test_a_full_batch_does_not_wait(batcher):
    """Company enough for the budget ends the wait."""
    batcher.add("a", 2.0, now_s=100.0)
    batcher.due(100.0)
    for key in "bcdef":
        batcher.add(key, 2.0, now_s=100.001)
    assert batcher.due(100.001) == ["f", "e", "d", "c", "b"]


def test_the_budget_counts_padding(batcher):
    """Four utterances of 2.5 to 2.6 s are 10.4 padded seconds: one too many."""
    for key, seconds in (("a", 2.6), ("b", 2.5), ("c", 2.5), ("d", 2.5)):
        batcher.add(key, seconds, now_s=0.0)
    assert batcher.due(0.0) == ["c", "b", "a"]
    assert batcher.due(1.0) == ["d"]


def test_company_is_of_similar_length(batcher):
    """A long utterance does not take short ones along, nor they it."""
    for key, seconds in (("long", 5.0), ("x", 0.5), ("y", 0.5), ("also long", 4.5)):
        batcher.add(key, seconds, now_s=0.0)
    assert batcher.due(0.0) == ["also long", "long"]
    assert batcher.due(1.0) == ["y", "x"]


def test_an_utterance_beyond_the_budget_goes_alone(batcher):
    """The budget bounds company, not the length of one utterance."""
    batcher.add("a", 15.0, now_s=0.0)
    batcher.add("b", 15.0, now_s=0.0)
    assert batcher.due(0.0) == ["a"]
    assert batcher.due(1.0) == ["b"]


def test_the_oldest_is_always_taken(batcher):
    """Whatever else would fill a batch better, who came first goes first."""
    batcher.add("odd one", 9.0, now_s=0.0)
    for key in range(100):
        batcher.add(key, 1.0, now_s=0.0)
    assert batcher.due(0.0) == ["odd one"]


def test_what_is_discarded_is_not_batched(batcher):
    """Utterances of a client that is gone leave the queue; unknown ones do not matter."""
    batcher.add("a", 1.0, now_s=0.0)
    batcher.add("b", 1.0, now_s=0.0)
    batcher.discard(["a", "never seen"])
    assert batcher.due(0.0) == ["b"]


def test_a_key_waits_once(batcher):
    """Adding what already waits is an error of the caller."""
    batcher.add("a", 1.0, now_s=0.0)
    with pytest.raises(ValueError, match="already waits"):
        batcher.add("a", 1.0, now_s=0.0)
