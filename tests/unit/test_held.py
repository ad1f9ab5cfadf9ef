"""Records that wait until the end of a call is stored."""

import pytest

from callmood.worker.call.call import Call
from callmood.worker.call.ending import Ending
from callmood.worker.partition.carried import Live
from callmood.worker.partition.ended import EndedCalls
from callmood.worker.partition.held import Held
from callmood.worker.settings import Settings
from callmood.worker.stream_time import STEP_MS

MEMORY_MS = 600_000


def call(ended_ms=None, until_ms=0):
    """A call that is over since then, or lives."""
    one = Call("call-1", Settings(), ())
    one.is_over, one.seen_at_ms, one.ending = ended_ms is not None, ended_ms or 0, Ending(until_ms)
    return Live(one, 0, 0)


@pytest.fixture
def held():
    """Nothing waits yet."""
    return Held(EndedCalls(MEMORY_MS), MEMORY_MS)


@pytest.mark.parametrize(("ending_ms", "until_ms"), [(0, MEMORY_MS + 50_000), (900_000, 900_000)])
def test_a_record_waits_if_it_may_be_past_the_memory_time_of_a_call(held, ending_ms, until_ms):
    """It may be later than the one before by what a record adds to the clock at most."""
    calls = [call(), call(ended_ms=50_000, until_ms=ending_ms), call(ended_ms=60_000, until_ms=ending_ms)]
    for elapsed_ms in (50_000, until_ms - STEP_MS - 1):
        assert not held.must_wait(calls, elapsed_ms)
    assert held.must_wait(calls, until_ms - STEP_MS)
    assert not held.must_wait(calls[:1], until_ms - STEP_MS)


def test_a_call_that_ends_after_a_look_is_seen_in_time(held):
    """The calls are looked at once in a memory time, and no call that ends meanwhile can be past before."""
    calls = [call()]
    assert not held.must_wait(calls, 0)
    calls[0] = call(ended_ms=1)
    assert not held.must_wait(calls, MEMORY_MS - STEP_MS)
    assert held.must_wait(calls, MEMORY_MS - STEP_MS + 1)


def test_what_waits_keeps_its_order(held):
    """All that follows waits, too, until it is released."""
    held.keep(7)
    assert held
    assert held.must_wait([], 0)
    held.keep(8)
    assert held.release() == [7, 8]
    assert not held
