"""Which records a call goes on with after its end. Pure.

A call that the clock has ended may only have been silent: any record continues it. A call that an `end` has ended can
have audio of other streams on its way: what was captured before the end still counts, for a few seconds.
"""

from typing import Final, NamedTuple

from callmood.schemas.common import Event
from callmood.worker.records import Chunk, Unheard

LATE_MS: Final = 5_000
"""How long, by the partition's clock, audio that an `end` has overtaken still counts."""


class Ending(NamedTuple):
    """By default, nothing continues the call.

    `until_ms` is the partition's clock. `said_ms` is the capture time of the `end`; None: no record has ended it.
    `awaited`: the streams that were sending when the `end` came.
    """

    until_ms: int = 0
    said_ms: int | None = None
    awaited: tuple[str, ...] = ()

    @property
    def is_said(self) -> bool:
        """Whether a record has ended it: from then on it only waits for what was captured before."""
        return self.said_ms is not None

    @property
    def is_open(self) -> bool:
        """Whether there can be a record that continues it."""
        return self.until_ms > 0

    def allows(self, chunk: Chunk, elapsed_ms: int) -> bool:
        """Whether the call, being over, goes on with this record."""
        return elapsed_ms < self.until_ms and not self.is_behind(chunk)

    def is_behind(self, chunk: Chunk) -> bool:
        """Whether the record belongs to the time after the `end`, or to a stream that was not sending before it."""
        if self.said_ms is None:
            return False
        is_media = chunk.event not in (Event.START, Event.END)
        return not (is_media and chunk.stream in self.awaited and chunk.capture_ms <= self.said_ms)


class End(NamedTuple):
    """The end of a call: why, where on its time line, and whether a record can continue it.

    `missing` is what its `end` waits for: lost, as long as it does not come.
    """

    reason: str
    at_ms: int
    is_open: bool
    missing: Unheard | None = None
