"""Records of one stream in their order."""

import pytest
from msgspec.structs import replace

from callmood.schemas.common import Event
from callmood.worker.records import Chunk, Position
from callmood.worker.speech.order import Ready, StreamOrder


def _chunk(seq, event=Event.MEDIA):
    return Chunk("call", "0", seq, event, Position("audio", 0, seq), capture_ms=0)


def _seqs(ready):
    return [(item.chunk.seq, item.missing_seqs) for item in ready]


def test_records_in_order_pass_at_once():
    """A record whose turn it is waits for nothing."""
    order = StreamOrder(None, max_held=4, max_wait_ms=10_000)
    for seq in range(5):
        pushed = order.push(_chunk(seq))
        assert pushed == ((Ready(_chunk(seq), 0),), False)
        assert order.next_seq == seq + 1


def test_a_duplicate_is_dropped():
    """A record that was released, or waits already, is a duplicate."""
    order = StreamOrder(None, max_held=4, max_wait_ms=10_000)
    order.push(_chunk(0))
    order.push(_chunk(2))
    assert order.push(_chunk(0)) == ((), True)
    assert order.push(_chunk(2)) == ((), True)


def test_a_late_record_is_waited_for():
    """Records behind a missing one wait, and follow it when it comes."""
    order = StreamOrder(0, max_held=4, max_wait_ms=10_000)
    assert order.push(_chunk(2)).ready == order.push(_chunk(1)).ready == ()
    assert _seqs(order.push(_chunk(0)).ready) == [(0, 0), (1, 0), (2, 0)]


def test_a_lost_record_is_given_up():
    """With one record more than the bound the missing ones are given up, and their number is known."""
    order = StreamOrder(0, max_held=2, max_wait_ms=10_000)
    assert order.push(_chunk(3)).ready == order.push(_chunk(4)).ready == ()
    assert _seqs(order.push(_chunk(5)).ready) == [(3, 3), (4, 0), (5, 0)]
    assert order.push(_chunk(1)).duplicate


def test_without_room_nothing_waits():
    """With a bound of 0 a gap is seen at once."""
    order = StreamOrder(None, max_held=0, max_wait_ms=10_000)
    order.push(_chunk(0))
    assert _seqs(order.push(_chunk(2)).ready) == [(2, 1)]


@pytest.mark.parametrize(("first", "released"), [(4, []), (5, [(5, 0)])])
def test_a_stream_first_seen_late_was_joined_late(first, released):
    """A first record within the bound waits for the beginning; beyond it the stream starts there."""
    assert _seqs(StreamOrder(None, max_held=4, max_wait_ms=10_000).push(_chunk(first)).ready) == released


def test_a_pause_does_not_wait():
    """A pause releases all before it at once; what is missing is given up, what lies behind it waits."""
    order = StreamOrder(0, max_held=8, max_wait_ms=10_000)
    order.push(_chunk(2))
    order.push(_chunk(6))
    assert _seqs(order.push(_chunk(4, Event.PAUSE)).ready) == [(2, 2), (4, 1)]
    assert order.next_seq == 5


def test_an_end_waits_for_what_it_has_overtaken():
    """Nothing follows an end, so what is missing right before it may only be late."""
    order = StreamOrder(0, max_held=8, max_wait_ms=10_000)
    assert order.push(_chunk(3, Event.END)).ready == ()
    assert _seqs(order.push(_chunk(1)).ready) == []
    assert _seqs(order.push(_chunk(0)).ready) == [(0, 0), (1, 0)]
    assert _seqs(order.push(_chunk(2)).ready) == [(2, 0), (3, 0)]


def test_an_end_alone_waits_for_nothing():
    """A stream of which only the end is known may belong to another program, whose numbers mean nothing."""
    order = StreamOrder(None, max_held=8, max_wait_ms=10_000)
    assert _seqs(order.push(_chunk(3, Event.END)).ready) == [(3, 0)]


def test_an_end_that_came_with_its_audio_waits_for_nothing():
    """What is missing further ahead is given up at once."""
    order = StreamOrder(0, max_held=8, max_wait_ms=10_000)
    order.push(_chunk(2))
    assert _seqs(order.push(_chunk(3, Event.END)).ready) == [(2, 2), (3, 0)]
    order.push(_chunk(6))
    assert _seqs(order.push(_chunk(8, Event.END)).ready) == [(6, 2)]
    assert _seqs(order.push(_chunk(7)).ready) == [(7, 0), (8, 0)]


def test_what_follows_a_pause_directly_is_released_with_it():
    """A record that waited for the pause comes right after it."""
    order = StreamOrder(0, max_held=8, max_wait_ms=10_000)
    order.push(_chunk(3))
    assert _seqs(order.push(_chunk(2, Event.PAUSE)).ready) == [(2, 2), (3, 0)]


def test_a_flush_releases_all_that_waits():
    """At the end of a call nothing waits any longer."""
    order = StreamOrder(0, max_held=8, max_wait_ms=10_000)
    assert order.flush() == ()
    order.push(_chunk(2))
    order.push(_chunk(5))
    assert _seqs(order.flush()) == [(2, 2), (5, 2)]
    assert order.next_seq == 6


@pytest.mark.parametrize(("apart_ms", "is_given_up"), [(2_000, False), (2_001, True)])
def test_a_missing_record_is_waited_for_as_long_as_is_said(apart_ms, is_given_up):
    """The time that the waiting records span may reach the bound, and not pass it."""
    order = StreamOrder(0, max_held=16, max_wait_ms=2_000)
    order.push(replace(_chunk(1), capture_ms=1_000))
    pushed = order.push(replace(_chunk(2), capture_ms=1_000 + apart_ms))
    assert bool(pushed.ready) is is_given_up
