"""The partition clock. It depends on record timestamps only, so calls age in a replay exactly as they did live. Pure.

The rule. Record timestamps come from many gateways whose clocks differ, stop overnight, jump and use other units. The
clock follows the newest timestamp: a record up to 10 s ahead advances it, and the step counts as observed time, at most
4 s (less than the time after which a stalled stream is closed). A record up to 60 s behind changes nothing. All other
records are odd. If records still advance the clock, odd records are ignored: a gateway with a wrong clock neither stops
nor drives it. If no record advances it, the clock itself is wrong, and it jumps to the odd records: after 10 s of their
time if they are ahead, after 10 minutes if they are behind (a gateway that was cut off sends minutes of audio at once),
or after 1,000 records. For an hour of observed time after its first record or a jump ahead, the clock is in doubt: a
gateway may be ahead and have been alone. In that hour it goes back after 60 s to records that are at most 60 s older
than what it followed before. Odd records within 60 s of each other form a run. Four runs are counted separately, so
absurd timestamps do not delay the jump. A record without a timestamp changes nothing. A timestamp in seconds,
microseconds or nanoseconds is converted. The clock follows a gateway whose clock runs many times too fast, in steps of
up to 10 s.
"""

from typing import Final, NamedTuple

_AHEAD_MS = 10_000
_BEHIND_MS = 60_000
STEP_MS = 4_000
"""Observed time that a record adds, at most."""
_LAST_AHEAD_MS = 10_000
_LAST_BEHIND_MS = 600_000
_LAST_DOUBT_MS = 60_000
_LAST_RECORDS = 1_000
_DOUBT_MS = 3_600_000

_YEAR_2000_MS = 946_684_800_000
_YEAR_2100_MS = 4_102_444_800_000


class StreamTime(NamedTuple):
    """Observed time of a partition; `elapsed_ms` only grows.

    `newest_ms` is the timestamp that the clock follows. The odd records since a record last agreed with it form up to
    four runs; of each, the timestamp of its first and newest record, and their number. `left_ms` is the timestamp that
    the clock followed before it came into doubt, and `left_at_ms` the observed time of its newest jump ahead; `left_ms`
    is 1 from the first record on, and 0 if the clock is not in doubt. New fields come last: stores keep them by name or
    in order.
    """

    elapsed_ms: int = 0
    newest_ms: int = 0
    odd_since_ms: int = 0
    odd_ms: int = 0
    odd: int = 0
    odd2_since_ms: int = 0
    odd2_ms: int = 0
    odd2: int = 0
    odd3_since_ms: int = 0
    odd3_ms: int = 0
    odd3: int = 0
    odd4_since_ms: int = 0
    odd4_ms: int = 0
    odd4: int = 0
    left_ms: int = 0
    left_at_ms: int = 0

    def captured_ms(self, timestamp: int) -> int:
        """The timestamp of the record that the clock has just followed, in ms; without one, that of a record before."""
        return self.newest_ms if timestamp < 0 else in_ms(timestamp)

    def after(self, timestamp: int) -> "StreamTime":
        """The clock after a record with this timestamp (ms, or a unit that `in_ms` recognises)."""
        if timestamp < 0:
            return self
        timestamp_ms = in_ms(timestamp)
        if self.newest_ms == 0:
            return StreamTime(self.elapsed_ms, timestamp_ms, left_ms=1, left_at_ms=self.elapsed_ms)
        step_ms = timestamp_ms - self.newest_ms
        if -_BEHIND_MS <= step_ms <= _AHEAD_MS:
            return self if step_ms <= 0 else self._stepped(min(step_ms, STEP_MS), timestamp_ms)
        return self._after_odd(timestamp_ms, is_ahead=step_ms > 0)

    def _stepped(self, step_ms: int, timestamp_ms: int) -> "StreamTime":
        elapsed_ms = self.elapsed_ms + step_ms
        if self.left_ms == 0 or elapsed_ms - self.left_at_ms >= _DOUBT_MS:
            return StreamTime._make((elapsed_ms, timestamp_ms, *_NO_ODD))  # for nearly each record
        return StreamTime(elapsed_ms, timestamp_ms, left_ms=self.left_ms, left_at_ms=self.left_at_ms)

    def _after_odd(self, timestamp_ms: int, *, is_ahead: bool) -> "StreamTime":
        runs = self._runs()
        index = next((n for n, run in enumerate(runs) if run.goes_on(timestamp_ms)), None)
        if index is None:
            index = min(range(len(runs)), key=lambda n: runs[n].records)
            run, counted_ms = _Run(timestamp_ms, timestamp_ms, 1), 0
        else:
            since_ms, newest_ms, count = runs[index]
            run = _Run(since_ms, timestamp_ms, count + 1)
            counted_ms = min(max(timestamp_ms - newest_ms, 0), STEP_MS)
        if run.records >= _LAST_RECORDS or timestamp_ms - run.since_ms >= self._needed_ms(run, is_ahead=is_ahead):
            elapsed_ms = self.elapsed_ms + counted_ms
            left_ms = (self.left_ms or self.newest_ms) if is_ahead else 0
            return StreamTime(elapsed_ms, timestamp_ms, left_ms=left_ms, left_at_ms=elapsed_ms if is_ahead else 0)
        runs[index] = run
        facts = (fact for one in runs for fact in one)
        return StreamTime._make((self.elapsed_ms, self.newest_ms, *facts, self.left_ms, self.left_at_ms))

    def _needed_ms(self, run: "_Run", *, is_ahead: bool) -> int:
        """How long odd records go on until the clock jumps to them."""
        is_back = 0 < self.left_ms <= run.since_ms + _BEHIND_MS
        if is_ahead:
            return _LAST_AHEAD_MS
        return _LAST_DOUBT_MS if is_back else _LAST_BEHIND_MS

    def _runs(self) -> "list[_Run]":
        facts = self[2:14]
        return [_Run(*facts[n : n + 3]) for n in range(0, len(facts), 3)]


_NO_ODD: Final = StreamTime()[2:]


class _Run(NamedTuple):
    """Odd records that belong together: the timestamp of the first, of the newest, and their number."""

    since_ms: int
    newest_ms: int
    records: int

    def goes_on(self, timestamp_ms: int) -> bool:
        """Whether a record belongs to it."""
        return self.records > 0 and abs(timestamp_ms - self.newest_ms) <= _BEHIND_MS


def in_ms(timestamp: int) -> int:
    """A timestamp in milliseconds; one that makes sense (2000 to 2100) only in another unit is taken to be in that."""
    if _YEAR_2000_MS <= timestamp < _YEAR_2100_MS:
        return timestamp
    for numerator, denominator in ((1_000, 1), (1, 1_000), (1, 1_000_000)):
        scaled_ms = timestamp * numerator // denominator
        if _YEAR_2000_MS <= scaled_ms < _YEAR_2100_MS:
            return scaled_ms
    return timestamp
