"""The stored state of a call: a successor stores each of its fields again as it was, whatever the value."""

import pytest
from telephony import CONFIGURED, Leg, Worker, both, log_of, quiet, voice

from callmood.worker.call.call import Call
from callmood.worker.call.checkpoint import Checkpoint, Stored
from callmood.worker.call.ending import Ending
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.speech.segment_state import SegmenterState
from callmood.worker.speech.stream_state import DoubtState, MediaTimeState, StreamState

OTHER = {
    Checkpoint: {
        "origin_ms": 5, "notice": "given", "seen_at_ms": 77, "taken_offset": 88, "paused_at_ms": 99,
        "forgotten": (1_000, True), "is_settled": True, "has_end": True, "hold_from_ms": 12,
        "reserved": {"queue": "sales"}, "ending": Ending(9, 8, ("0",)), "is_over": True, "first_offset": 7,
    },
    StreamState: {
        "seq": 3, "paused_at_ms": 4, "pause_left_ms": 5, "active_at_ms": 6, "newest_capture_ms": 7, "switch_seq": 8,
        "checksums": [(0, 1)], "started_again": True, "format": ("pcmu", 8_000, ["agent", "customer"]),
        "is_tentative": True, "ended": True, "is_copy": True,
    },
    MediaTimeState: {
        "offset_ms": 1, "rate_hz": 16_000, "sample": 2, "early_ms": 3.0, "zero_ms": 4.0, "record_ms": 5.0,
        "base_ms": 6.0, "again": (7, 8.0), "drift_ms": 9.0, "shifts": ((10, 11),),
        "rate": (True, 12.0, (13.0, 14.0, 15.0), 16.0),
    },
    DoubtState: {"newest_seq": 1, "refused": (2, 3), "doubted_ms": 4.0, "doubted_seq": 5, "misnumbered": (6, 7)},
    SegmenterState: {
        "frame": 65, "window": bytes(3) + b"\5", "history": bytes(156) + b"\7", "start": 160 * 60, "first_voiced": 61,
        "last_voiced": 62, "floor": 160 * 10, "last_heard": 63, "known_frame": 64, "stretches": ((10, 5, b"\40\41"),),
    },
}  # fmt: skip
"""Another value for each field that is not a state of its own, and does not follow from others."""
NOT_SET = {
    Checkpoint: {"streams"},
    StreamState: {"time", "doubt", "channels"},
    SegmenterState: {"version", "vad", "keep_from"},
}
CASES = [(kind, name) for kind, values in OTHER.items() for name in values]


@pytest.fixture(scope="module")
def stored():
    """The state of a call of two channels, of which one speaks."""
    worker = Worker().read(log_of(Leg(layout="customer,agent").media(both(quiet(0.6) + voice(0.8), quiet(1.4)))))
    return Stored.unpack(worker.commit().states["call-1"])


def changed(stored, kind, name, value):
    """The state with another value in one place."""
    whole = stored.checkpoint
    (stream_name, stream), *_ = whole.streams.items()
    if kind is Checkpoint:
        return stored._replace(checkpoint=whole._replace(**{name: value}))
    if kind is SegmenterState:
        first, *others = stream.channels
        stream = stream._replace(channels=[first._replace(**{name: value}), *others])
    elif kind is StreamState:
        stream = stream._replace(**{name: value})
    else:
        part = "time" if kind is MediaTimeState else "doubt"
        stream = stream._replace(**{part: getattr(stream, part)._replace(**{name: value})})
    return stored._replace(checkpoint=whole._replace(streams={stream_name: stream}))


def again(stored):
    """What a successor with this state stores before it has taken a record."""
    call = Call.restore("call-1", stored.pack(), CONFIGURED, DEFAULT_RULES)
    return Stored(call._checkpoint_now(), call.fold.save(), call.last_offset)


def told(stored):
    """The state without what follows from the rest."""
    streams = {
        name: state._replace(channels=[channel._replace(keep_from=0) for channel in state.channels])
        for name, state in stored.checkpoint.streams.items()
    }
    return stored._replace(checkpoint=stored.checkpoint._replace(streams=streams)).pack()


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_successor_stores_each_field_as_it_was(stored, kind, name):
    """A field that is not saved, or not restored, would be lost at the second takeover."""
    one = changed(stored, kind, name, OTHER[kind][name])
    assert told(one) != told(stored)
    assert told(again(one)) == told(one)


@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.__name__)
def test_each_field_of_a_state_has_a_case(kind):
    """A field that is added without a case here fails."""
    assert set(kind._fields) == OTHER[kind].keys() | NOT_SET.get(kind, set())
