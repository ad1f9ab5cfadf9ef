"""Records with which their calls only go on: each call takes its own together, some polls later. Pure.

Such records close nothing, whatever they hold, so nothing that is published depends on when the call takes them. It
does before anything else is done with the call: a record that cannot wait, a deadline, a commit that stores it.
"""

from collections.abc import Callable

from callmood.worker.errors import CallmoodError
from callmood.worker.partition.carried import Live
from callmood.worker.records import Chunk, Record


class Gathering:
    """The records that wait.

    Args:
        waits: called with a call when records of it begin to wait.
        failed: called with a call, each of its records and our fault, if it fails on them.
    """

    def __init__(self, waits: Callable[[Live], None], failed: Callable[[Live, Record, Exception], None]) -> None:
        self._waits = waits
        self._failed = failed

    def add(self, live: Live | None, record: Record, chunk: Chunk, elapsed_ms: int) -> bool:
        """Whether the record waits now. If not, none of its call waits any more, and it has to be taken alone."""
        if live is None:
            return False
        is_first = not live.waiting
        while not live.can_wait(record, chunk, elapsed_ms):
            if not live.waiting:
                return False
            self.take(live)
            is_first = True
        if is_first:
            self._waits(live)
        return True

    def take(self, live: Live) -> None:
        """Let the call take its records."""
        if not live.waiting:
            return
        waiting, live.waiting = live.waiting, {}
        for series, records in waiting.values():
            try:
                live.call.take_series(series)
            except CallmoodError:
                raise
            except Exception as error:  # noqa: BLE001 - a fault of ours costs the records, not the call
                for record in records:
                    self._failed(live, record, error)
