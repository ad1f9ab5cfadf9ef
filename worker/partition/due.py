"""Selects the calls that the next commit examines, so its work grows with changed calls, not live ones. Pure."""

from collections.abc import Mapping

from callmood.worker.partition.carried import Carried, Live
from callmood.worker.partition.deadlines import Deadlines


class DueCalls:
    """Calls that have changed, and those that have held the watermark for so long that they are stored all the same.

    Args:
        every_ms: how long a call with open records goes without a stored state, by the partition's clock.
    """

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms
        self._due: dict[str, Live] = {}
        self._unsaved = Deadlines()

    def change(self, live: Live) -> None:
        """Something happened that the next commit must hold."""
        live.changes += 1
        self._due[live.call.id] = live

    def wait(self, live: Live) -> None:
        """Records of the call wait: until its state is stored, a new owner would have to read them again."""
        self._unsaved.pull(live.call.id, live.saved_at_ms + self._every_ms)

    def take(self, live: Live) -> None:
        """The call has taken a record."""
        self.wait(live)
        if live.call.has_news:
            self.change(live)

    def at(self, elapsed_ms: int, calls: Mapping[str, Live], *, is_whole: bool) -> list[Live]:
        """Those of these calls that are due, or all, in the order in which they came."""
        for call_id in self._unsaved.pop_due(elapsed_ms):
            live = calls.get(call_id)  # it may have been given up before the store confirmed its commit
            if live is not None and live.is_open:
                self._due[call_id] = live
        return sorted((calls if is_whole else self._due).values(), key=lambda live: live.number)

    def confirm(self, carried: Carried, elapsed_ms: int) -> None:
        """The store has this; `elapsed_ms` is the partition's clock when it was collected."""
        live, call_id = carried.live, carried.live.call.id
        live.saved_at_ms = elapsed_ms
        if live.changes == carried.changes:
            self._due.pop(call_id, None)
        self._unsaved.drop(call_id)
        if live.is_open:
            self._unsaved.set(call_id, elapsed_ms + self._every_ms)

    def forget(self, call_id: str) -> None:
        """The call is no more."""
        self._due.pop(call_id, None)
        self._unsaved.drop(call_id)
