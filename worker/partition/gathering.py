"""Records of a poll with which their calls only go on: each call takes its own together. Pure."""

from collections.abc import Callable

from callmood.worker.errors import CallmoodError
from callmood.worker.partition.carried import Live
from callmood.worker.records import Chunk, Record


class Gathering:
    """The records that wait.

    Args:
        taken: called after a call has taken its records.
        failed: called with a call, each of its records and our fault, if it fails on them.
    """

    def __init__(self, taken: Callable[[Live], None], failed: Callable[[Live, Record, Exception], None]) -> None:
        self._taken = taken
        self._failed = failed
        self._open: list[Live] = []

    def add(self, live: Live | None, record: Record, chunk: Chunk, elapsed_ms: int) -> bool:
        """Whether the record waits now. If not, none of its call waits any more, and it has to be taken alone."""
        if live is None:
            return False
        while not live.can_wait(record, chunk, elapsed_ms):
            if live.series is None:
                return False
            self.take(live)
        if len(live.waiting) == 1:
            self._open.append(live)
        return True

    def take(self, live: Live) -> None:
        """Let the call take its records."""
        series, live.series, records, live.waiting = live.series, None, live.waiting, []
        if series is None:
            return
        try:
            live.call.take_series(series)
        except CallmoodError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the records, not the call
            for record in records:
                self._failed(live, record, error)
        self._taken(live)

    def take_all(self) -> None:
        """Let all calls take their records."""
        calls, self._open = self._open, []
        for live in calls:
            self.take(live)
