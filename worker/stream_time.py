"""A partition's own clock, driven by the log alone, so that a replay ages calls exactly as the first reading did. Pure.

Record timestamps come from many gateways whose clocks differ, stop over night and jump. What counts is *observed*
time: the newest timestamp moving on in small steps. A jump moves the newest timestamp but no time has been observed.
"""

from typing import NamedTuple

_STEP_MS = 2_000
_BEHIND_MS = 60_000
_RESYNC_RECORDS = 1_000


class StreamTime(NamedTuple):
    """Observed time of a partition; `elapsed_ms` only grows.

    `newest_ms` is the newest timestamp taken seriously, `behind` the number of records in a row far behind it: one
    gateway an hour ahead must not stop the clock for an hour after its calls have ended.
    """

    elapsed_ms: int = 0
    newest_ms: int = 0
    behind: int = 0

    def after(self, timestamp_ms: int) -> "StreamTime":
        """The clock after a record with this timestamp."""
        step_ms = timestamp_ms - self.newest_ms
        if step_ms > 0:
            return StreamTime(self.elapsed_ms + (step_ms if step_ms <= _STEP_MS else 0), timestamp_ms, 0)
        if step_ms >= -_BEHIND_MS:
            return self if self.behind == 0 else self._replace(behind=0)
        if self.behind + 1 >= _RESYNC_RECORDS:
            return StreamTime(self.elapsed_ms, timestamp_ms, 0)
        return self._replace(behind=self.behind + 1)
