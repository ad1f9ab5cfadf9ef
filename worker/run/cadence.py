"""When the ingest loop commits."""

_SHARE = 0.25
"""Of the time in which the loop would wait for records: so much goes into commits that are made early."""
_BUSY_POLL_MS, _ANSWER_POLL_MS, _IDLE_POLL_MS = 10, 20, 1_000


class Cadence:
    """A commit is due after the interval, and earlier once there are answers of the model and time to spare.

    A supervisor sees a result after its commit. A loop that is busy commits once an interval, because a commit costs
    the same however little it holds; one that waits for records uses a quarter of that time for earlier commits.

    Args:
        interval_s: longest time between the beginnings of two commits.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_s = 0.0
        self._spare_s = 0.0
        self._cost_s = interval_s
        self._has_answers = False

    def waited(self, seconds: float) -> None:
        """The loop has waited for records."""
        self._spare_s += seconds

    def answered(self) -> None:
        """The model has answered: the next commit has results."""
        self._has_answers = True

    def is_due(self, now_s: float) -> bool:
        """Whether to commit now."""
        return now_s >= self._due_s or (self._has_answers and _SHARE * self._spare_s >= self._cost_s)

    def began(self, now_s: float) -> None:
        """A commit has begun."""
        self._due_s, self._spare_s, self._has_answers = now_s + self._interval_s, 0.0, False

    def took(self, seconds: float) -> None:
        """That commit is in the store."""
        self._cost_s = seconds

    def failed(self, again_s: float) -> None:
        """That commit is repeated at this time, and not earlier."""
        self._due_s, self._cost_s = again_s, self._interval_s

    def wait_ms(self, now_s: float, *, is_busy: bool, is_quiet: bool, is_asking: bool) -> int:
        """How long to wait for records: until the next commit is due, or shortly if an answer may bring it forward.

        Args:
            now_s: the time.
            is_busy: something else is to be done soon.
            is_quiet: nothing has come since a commit that held nothing.
            is_asking: utterances are at the model.
        """
        if is_busy:
            return _BUSY_POLL_MS
        if is_quiet and not is_asking:
            return _IDLE_POLL_MS
        until_ms = min(max(round(1000 * (self._due_s - now_s)), _BUSY_POLL_MS), _IDLE_POLL_MS)
        return min(until_ms, _ANSWER_POLL_MS) if is_asking or self._has_answers else until_ms
