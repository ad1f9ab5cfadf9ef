"""The benchmark of a commit beside live calls: all calls live, and a few go on."""

from callmood.bench import live
from callmood.worker.settings import Settings


def test_all_calls_live_before_a_few_go_on():
    """Each call sends a record in each round; in the last ones only the first 100 do."""
    sent = [[record.key for record in records] for records in live.rounds(120, 3)]
    assert [len(keys) for keys in sent] == [120] * 3 + [100] * 5
    assert set(sent[-1]) == {f"call-{number}".encode() for number in range(100)}


def test_a_commit_and_the_memory_of_a_call_are_measured():
    """A commit of 100 changed calls takes time."""
    cost = live.measure(101, 1, Settings(worker={"state_interval_ms": 3_600_000}))
    assert cost.calls == 101
    assert cost.commit_ms > 0


def test_the_memory_of_a_process_is_that_of_another_one():
    """The benchmark has loaded torch, which an ingest process does not load."""
    assert 20 < live.process_mb() < live._resident_kb() / 1000
