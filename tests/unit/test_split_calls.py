"""Calls whose id is on two partitions."""

from callmood.worker.commits import TopicPartition
from callmood.worker.run.split_calls import SplitCalls

ONE, OTHER = TopicPartition("audio", 0), TopicPartition("audio", 1)


def test_a_split_call_is_named_once():
    """The other partition is returned at the first utterance there, and never again."""
    calls = SplitCalls()
    assert calls.note("call", ONE) is None
    assert calls.note("call", ONE) is None
    assert calls.note("call", OTHER) == ONE
    assert calls.note("call", OTHER) is None
    assert calls.note("call", ONE) is None


def test_a_call_that_has_ended_is_forgotten():
    """Its id may come back on any partition; its end on the second partition alone changes nothing."""
    calls = SplitCalls()
    calls.note("call", ONE)
    calls.forget_call("call", OTHER)
    assert calls.note("call", OTHER) == ONE
    calls.forget_call("call", ONE)
    assert calls.note("call", OTHER) is None


def test_a_partition_that_was_given_away_is_forgotten():
    """Its calls may come from another partition then."""
    calls = SplitCalls()
    calls.note("call", ONE)
    calls.note("stays", OTHER)
    calls.forget_partition(ONE)
    assert calls.note("call", OTHER) is None
    assert calls.note("stays", ONE) == OTHER
