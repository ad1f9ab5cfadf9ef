"""Ended calls, and later records of them."""

import msgpack
import pytest

from callmood.schemas.common import Event
from callmood.worker.call.checkpoint import STATE_VERSION
from callmood.worker.call.ending import Ending
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.partition.ended import Ended, EndedCalls
from callmood.worker.records import Chunk, Position

MEMORY_MS = 600_000
HOUR_MS = 3_600_000


def chunk(offset, event=Event.MEDIA, call_id="call-1"):
    return Chunk(call_id, "0", 5, event, Position("audio", 0, offset), 0)


def remembered(last_offset=10, ended_at_ms=0):
    calls = EndedCalls(MEMORY_MS)
    calls.add("call-1", Ended(last_offset, ended_at_ms, is_paused=False))
    return calls


def test_other_calls_are_not_refused():
    """A call that is not known to be over goes its way."""
    assert not remembered().refuse(chunk(11, call_id="call-2"), elapsed_ms=0)


def test_what_comes_after_the_end_is_dropped():
    """Late audio and a second end start no call."""
    calls = remembered()
    assert calls.refuse(chunk(11), elapsed_ms=0)
    assert calls.refuse(chunk(12, Event.END), elapsed_ms=0)


def test_the_calls_own_records_read_again_are_dropped_in_silence():
    """After a restart even its start comes again, and is no new call."""
    assert remembered().refuse(chunk(3, Event.START), elapsed_ms=0)


def test_a_call_that_begins_under_the_same_id_is_not_lost_in_silence():
    """A start under an id that was used a moment ago is a bad record, for a person to see."""
    with pytest.raises(BadRecord) as caught:
        remembered().refuse(chunk(11, Event.START), elapsed_ms=0)
    assert caught.value.reason is Reason.CALL_ENDED


def test_after_its_time_an_id_is_free():
    """After the memory time the id may start a new call."""
    assert not remembered().refuse(chunk(11, Event.START), elapsed_ms=MEMORY_MS)


def test_the_records_of_an_ended_call_start_none_however_often_they_are_read():
    """However old, a call is remembered until the watermark has passed its newest record, a late one included."""
    calls = remembered(last_offset=10)
    calls.refuse(chunk(30), elapsed_ms=0)
    assert calls.past(watermark=30, elapsed_ms=10 * MEMORY_MS) == []
    assert calls.refuse(chunk(30), elapsed_ms=10 * MEMORY_MS)
    assert not calls.refuse(chunk(31), elapsed_ms=10 * MEMORY_MS)
    assert calls.past(watermark=31, elapsed_ms=10 * MEMORY_MS) == ["call-1"]


def test_a_young_end_is_remembered():
    """Late records have their time, by the partition's clock."""
    calls = remembered(ended_at_ms=1_000)
    assert calls.past(watermark=99, elapsed_ms=MEMORY_MS + 999) == []
    assert calls.past(watermark=99, elapsed_ms=MEMORY_MS + 1_000) == ["call-1"]


@pytest.mark.parametrize(
    ("offset", "elapsed_ms", "goes_on"), [(10, 0, False), (11, 0, True), (11, 4_999, True), (11, 5_000, False)]
)
def test_a_call_goes_on_with_a_later_record_in_time(offset, elapsed_ms, goes_on):
    """Records of its state, read again, are none; and without a state there is nothing to go on from."""
    calls, open_ = EndedCalls(MEMORY_MS), Ended(99, 0, is_paused=False, state=b"state", ending=Ending(5_000))
    open_ = open_._replace(taken_offset=10)
    calls.add("call-1", open_)
    calls.add("call-2", open_._replace(state=b""))
    assert calls.open_call("call-1", offset=offset, elapsed_ms=elapsed_ms) == (open_ if goes_on else None)
    assert calls.open_call("call-2", offset=offset, elapsed_ms=elapsed_ms) is None
    assert calls.open_call("call-3", offset=offset, elapsed_ms=elapsed_ms) is None


@pytest.mark.parametrize(
    ("memory_ms", "ended", "until_ms"),
    [
        (MEMORY_MS, Ended(10, 500, is_paused=False), MEMORY_MS + 500),
        (MEMORY_MS, Ended(10, 500, is_paused=False, ending=Ending(2 * MEMORY_MS)), 2 * MEMORY_MS),
        (MEMORY_MS, Ended(10, 500, is_paused=False, was_given_up=True), 24 * HOUR_MS + 500),
        (48 * HOUR_MS, Ended(10, 500, is_paused=False, was_given_up=True), 48 * HOUR_MS + 500),
    ],
)
def test_an_end_is_remembered_for_as_long_as_its_records_can_come(memory_ms, ended, until_ms):
    """The rest of a call that was given up comes for longer than any call lasts."""
    calls = EndedCalls(memory_ms)
    calls.add("call-1", ended)
    assert calls.past(watermark=99, elapsed_ms=until_ms - 1) == []
    assert calls.past(watermark=99, elapsed_ms=until_ms) == ["call-1"]


def test_a_stored_end_is_restored_and_a_living_call_is_not():
    """A successor knows the ended calls from their states, and leaves the others alone."""
    calls = EndedCalls(MEMORY_MS)
    calls.add("call-1", Ended.unpack(Ended(10, 5, is_paused=True).pack()))
    assert Ended.unpack(msgpack.packb({"v": 1, "cut": {}})) is None
    assert calls.refuse(chunk(3), elapsed_ms=0)
    assert not calls.refuse(chunk(3, call_id="call-2"), elapsed_ms=0)


def test_a_refused_start_is_remembered():
    """After a restart it is read again, and is no second dead-letter record."""
    calls = remembered()
    with pytest.raises(BadRecord):
        calls.refuse(chunk(11, Event.START), elapsed_ms=0)
    assert calls.last_offset == 11
    assert calls.refuse(chunk(11, Event.START), elapsed_ms=0)


def test_a_call_that_ends_after_an_empty_look_is_past_in_time():
    """When the next call is past is known again after each look, whether calls were remembered then or not."""
    calls = EndedCalls(1_000)
    assert calls.past(watermark=9, elapsed_ms=0) == []
    calls.add("late", Ended(last_offset=1, ended_at_ms=5_000, is_paused=False))
    assert calls.past(watermark=9, elapsed_ms=5_500) == []
    calls.add("early", Ended(last_offset=1, ended_at_ms=4_600, is_paused=False))
    assert calls.past(watermark=9, elapsed_ms=5_700) == ["early"]
    assert calls.past(watermark=9, elapsed_ms=6_000) == ["late", "early"]


def test_a_call_that_ends_later_delays_no_other():
    """Each is past in its own time, in whichever order they ended."""
    calls = EndedCalls(1_000)
    for name, ended_at_ms in (("early", 0), ("late", 5_000)):
        calls.add(name, Ended(last_offset=1, ended_at_ms=ended_at_ms, is_paused=False))
    assert calls.past(watermark=9, elapsed_ms=1_000) == ["early"]


@pytest.mark.parametrize(
    "stored",
    [
        {"ended": [7, 30_000, True]},
        {"ended": [7, 30_000, True, False, True]},
        {"v": STATE_VERSION - 1, "ended": [7, 30_000, True, b"state", [90_000, None], False]},
        {"v": STATE_VERSION + 1, "ended": [7, 30_000, True, {"more": 1}]},
    ],
)
def test_a_call_that_another_version_has_ended_is_over(stored):
    """An upgrade keeps the memory of ended calls; what another version stored to continue them is not read."""
    assert Ended.unpack(msgpack.packb(stored)) == Ended(7, 30_000, is_paused=True)


def test_a_call_that_another_version_has_given_up_stays_given_up():
    """An upgrade does not start the rest of such a call as a new one."""
    stored = msgpack.unpackb(Ended(7, 30_000, is_paused=False, was_given_up=True).pack())
    found = Ended.unpack(msgpack.packb(stored | {"v": STATE_VERSION - 1}))
    assert found == Ended(7, 30_000, is_paused=False, was_given_up=True)


def test_a_record_before_an_ended_call_with_its_id_may_be_of_a_pause():
    """Of the call before it, nothing is known any more."""
    calls = EndedCalls(MEMORY_MS)
    calls.add("call-1", Ended(60, 0, is_paused=False, first_offset=50))
    for call_ids in ({"call-1", "call-2"}, None):
        assert calls.may_be_paused(call_ids, 49)
        assert not calls.may_be_paused(call_ids, 50)
    assert not calls.may_be_paused({"call-2"}, 49)


def test_a_paused_call_is_known_until_it_is_forgotten():
    """By its id, and among all; ended again without a pause, it is none."""
    calls = EndedCalls(MEMORY_MS)
    for forget in (
        lambda: calls.go_on("call-1"),
        lambda: calls.forget(["call-1"]),
        lambda: calls.add("call-1", Ended(10, 0, is_paused=False)),
    ):
        calls.add("call-1", Ended(10, 0, is_paused=True))
        assert calls.may_be_paused(None, 50)
        assert calls.may_be_paused({"call-1", "call-2"}, 50)
        assert not calls.may_be_paused({"call-2"}, 50)
        forget()
        assert not calls.may_be_paused(None, 50)
        assert not calls.may_be_paused({"call-1"}, 50)
