"""The benchmark of a commit beside live calls: all calls live, and a few go on."""

from callmood.bench import live
from callmood.worker.settings import Settings


def test_all_calls_live_before_a_few_go_on():
    """Each call sends a record in each round; in the last ones only the first 100 do."""
    sent = [[record.key for record in records] for records in live.rounds(120, 3)]
    assert [len(keys) for keys in sent] == [120] * 3 + [100] * 5
    assert set(sent[-1]) == {f"call-{number}".encode() for number in range(100)}


def test_a_commit_is_measured():
    """A commit of 100 changed calls takes time."""
    cost = live.measure(101, 1, Settings(worker={"state_interval_ms": 3_600_000}))
    assert cost.calls == 101
    assert cost.commit_ms > 0
