"""What a stream keeps of its records, and what they close. Values only."""

from dataclasses import dataclass, field
from typing import NamedTuple

from callmood.schemas.common import Role
from callmood.worker.records import Position, Span, Unheard
from callmood.worker.speech.media_time import MediaTimeState


class Heard(NamedTuple):
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
    """The position before it."""


class ClosedSpan(NamedTuple):
    """A span with its channel and role, and the longest time that another channel of the stream was voiced in it."""

    channel: int
    role: Role
    span: Span
    overlap_ms: int


@dataclass(slots=True)
class Taken:
    """What one record closed: spans in the order of their decision, and stretches without audio."""

    spans: list[ClosedSpan] = field(default_factory=list)
    unheard: list[Unheard] = field(default_factory=list)
    has_paused: bool = False
    """Whether a `pause` was among the records."""
    holds: list[tuple[bool, int]] = field(default_factory=list)
    """Each `hold` (true) and `unhold` (false), and where it is on the call's time line."""

    def extend(self, other: "Taken") -> None:
        """Add what was closed after it."""
        self.spans += other.spans
        self.unheard += other.unheard
        self.holds += other.holds
