"""A released record whose audio a later span can need. Values only."""

import msgspec

from callmood.worker.records import Position
from callmood.worker.speech.stream_state import MediaTimeState


class Heard(msgspec.Struct, frozen=True):
    """A released record, until no span can need its audio any more.

    `first_sample` includes lost audio right before it that was concealed, and `seq` the records that held that audio: a
    successor that takes this record again must conceal the same again.
    """

    seq: int
    position: Position
    first_sample: int
    end_sample: int
    end_capture_ms: float
    traceparent: str | None
    time: MediaTimeState
    """The position before it, or before an earlier record since which only audio has come."""
    record_ms: float
    """Length of the record before it."""

    @property
    def position_before(self) -> MediaTimeState:
        """The position before it."""
        return self.time._replace(sample=self.first_sample, record_ms=self.record_ms)
