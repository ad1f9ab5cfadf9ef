"""Messages between ingest and inference: packed messages unpack to equal values, and other bytes are rejected."""

import msgpack
import pytest

from callmood.schemas.common import Encoding
from callmood.worker.inference import wire
from callmood.worker.records import ModelInfo, Prediction, Speech


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello(),
        wire.Request("id", Encoding.S16LE, 16_000, b"\0\1"),
        wire.Beat(None, 0.0),
        wire.Beat(ModelInfo("id", "1", "digest"), 1.5, padding=0.25, rechecked=0.125),
        wire.Answer("id", Prediction((0.1, 0.2, 0.3, 0.4), None, queue_ms=1.0, inference_ms=2.0)),
        wire.Request("id", Encoding.PCMU, 8_000, b"\0", wants_emotion=False, ended_ms=1_790_000_000_000),
        wire.Answer("id", Prediction(None, "too_short")),
        wire.Answer("id", Prediction(None, speech=Speech(0.021, 0, 0))),
        wire.Answer("id", Prediction(None, queue_ms=9_000.0, is_skipped=True)),
        wire.Answer("id", Prediction((0.1, 0.2, 0.3, 0.4), None, speech=Speech(0.979, 32, 1_500))),
    ],
)
def test_a_message_is_the_same_on_the_other_side(message):
    """Every kind, with all of its fields, comes out as it went in."""
    assert wire.unpack(wire.pack(message)) == message


@pytest.mark.parametrize("other", [("hello", 1), ("beat", None, 0.0), ["unknown"], 7, None])
def test_other_messages_are_refused(other):
    """A kind or a number of fields that is unknown is an error, not a guess."""
    with pytest.raises(ValueError, match="not a message of callmood"):
        wire.unpack(msgpack.packb(other))
