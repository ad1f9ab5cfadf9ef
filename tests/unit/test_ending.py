"""Which record a call that is over goes on with."""

import pytest

from callmood.schemas.common import Event
from callmood.worker.call.ending import Ending
from callmood.worker.records import Chunk, Position

SAID = Ending(until_ms=10_000, said_ms=500, awaited=("0", "1"))
IDLE = Ending(until_ms=10_000)


def record(event=Event.MEDIA, stream="0", capture_ms=500):
    return Chunk("call-1", stream, 5, event, Position("audio", 0, 7), capture_ms)


@pytest.mark.parametrize(
    ("chunk", "elapsed_ms", "goes_on"),
    [
        (record(), 9_999, True),
        (record(), 10_000, False),
        (record(capture_ms=501), 0, False),
        (record(stream="2"), 0, False),
        (record(Event.PAUSE, "1", 400), 0, True),
        (record(Event.START, capture_ms=400), 0, False),
        (record(Event.END, capture_ms=400), 0, False),
    ],
)
def test_after_an_end_only_what_it_has_overtaken_counts(chunk, elapsed_ms, goes_on):
    """It was captured until the end, on a stream that was sending, and comes in time."""
    assert SAID.allows(chunk, elapsed_ms) is goes_on
    assert SAID.is_behind(chunk) is not (goes_on or elapsed_ms == 10_000)


@pytest.mark.parametrize("event", [Event.MEDIA, Event.START, Event.END])
def test_a_call_that_was_only_silent_goes_on_with_any_record(event):
    """Until its time is over."""
    assert [IDLE.allows(record(event, "new", 10**12), at_ms) for at_ms in (0, 9_999, 10_000)] == [True, True, False]


def test_by_default_nothing_continues_a_call():
    """Neither at once nor later."""
    assert not Ending().allows(record(), 0)
    assert (Ending().is_open, IDLE.is_open, SAID.is_open) == (False, True, True)
    assert (Ending().is_said, IDLE.is_said, SAID.is_said) == (False, False, True)
