"""When the ingest loop commits."""

import math

_SHARE = 0.25
"""Of the time in which the loop waits for records: so much goes into commits that are made early."""
_EARLIEST = 0.25
"""Share of the interval before which no commit is made early: each costs the servers something, too."""
_PARSING_S = 0.01
"""So much of each poll may have gone into parsing records; the rest was waiting."""
_BUSY_POLL_MS, _ANSWER_POLL_MS, _IDLE_POLL_MS = 10, 20, 1_000


class Cadence:
    """A commit is due after the interval, and up to four times as often while there are answers and time to spare.

    A supervisor sees a result after its commit. A loop that is busy commits once an interval, because a commit costs
    much the same however little it holds; one that waits for records uses a quarter of that time for earlier commits.

    Args:
        interval_s: time between the beginnings of two commits.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_s = self._early_s = 0.0
        self._spare_s = 0.0
        self._cost_s = math.inf
        self._has_answers = False

    def polled(self, seconds: float) -> None:
        """The loop has asked for records, which took so long."""
        self._spare_s += max(0.0, seconds - _PARSING_S)

    def answered(self) -> None:
        """The model has answered: the next commit has results."""
        self._has_answers = True

    def is_due(self, now_s: float) -> bool:
        """Whether to commit now."""
        is_early = self._has_answers and now_s >= self._early_s and self._missing_s <= 0
        return is_early or now_s >= self._due_s

    def began(self, now_s: float) -> None:
        """A commit has begun."""
        self._due_s, self._early_s = now_s + self._interval_s, now_s + _EARLIEST * self._interval_s
        self._spare_s = 0.0

    def collected(self) -> None:
        """What that commit holds was collected now, with all answers; one that is repeated holds older ones alone."""
        self._has_answers = False

    def took(self, seconds: float) -> None:
        """That commit is in the store."""
        self._cost_s = seconds

    def failed(self, again_s: float) -> None:
        """That commit is repeated at this time, and not earlier."""
        self._due_s, self._cost_s = again_s, math.inf

    def wait_ms(self, now_s: float, *, is_busy: bool, is_quiet: bool, is_asking: bool) -> int:
        """How long to wait for records: until a commit is due, or may be because of an answer.

        Args:
            now_s: the time.
            is_busy: something else is to be done soon.
            is_quiet: nothing has come since a commit that held nothing.
            is_asking: utterances are at the model.
        """
        if is_busy:
            return _BUSY_POLL_MS
        if is_quiet and not is_asking and not self._has_answers:
            return _IDLE_POLL_MS
        until_s = self._due_s - now_s
        if is_asking or self._has_answers:
            shortest_s = 0.0 if self._has_answers else _ANSWER_POLL_MS / 1000
            spared_s = self._missing_s + _PARSING_S if self._missing_s > 0 else 0.0
            until_s = min(until_s, max(shortest_s, self._early_s - now_s, spared_s))
        return min(max(round(1000 * until_s), _BUSY_POLL_MS), _IDLE_POLL_MS)

    @property
    def _missing_s(self) -> float:
        """How much longer the loop must have waited before an early commit."""
        return self._cost_s / _SHARE - self._spare_s
