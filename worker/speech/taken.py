"""What the records of a stream close. Values only."""

from dataclasses import dataclass, field
from typing import NamedTuple

from callmood.schemas.common import Role
from callmood.worker.records import Chunk, Span, Unheard


class ClosedSpan(NamedTuple):
    """A span with its channel and role.

    `overlap_ms` is the longest time that another channel of the stream was voiced in it. `is_echo`: it is the voice of
    another channel, heard again.
    """

    channel: int
    role: Role
    span: Span
    overlap_ms: int
    is_echo: bool = False


@dataclass(slots=True)
class Taken:
    """What one record closed: spans in the order of their decision, and stretches without audio."""

    spans: list[ClosedSpan] = field(default_factory=list)
    unheard: list[Unheard] = field(default_factory=list)
    has_paused: bool = False
    """Whether a `pause` was among the records."""
    holds: list[tuple[bool, int]] = field(default_factory=list)
    """Each `hold` (true) and `unhold` (false), and where it is on the call's time line."""
    ends: list[Chunk] = field(default_factory=list)
    """Each `end`."""

    @property
    def is_plain(self) -> bool:
        """Whether it is no more than spans."""
        return not (self.unheard or self.has_paused or self.holds or self.ends)

    def extend(self, other: "Taken") -> None:
        """Add what was closed after it."""
        self.spans += other.spans
        self.unheard += other.unheard
        self.holds += other.holds
        self.ends += other.ends
