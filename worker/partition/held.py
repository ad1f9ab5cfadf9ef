"""Records that wait until the end of a call is stored, so that a later call with its id can begin. Pure.

A worker that reads a backlog comes to the end of a call's memory time before the model has answered for its last
utterance. From there on, the id starts a new call, but only one call with an id can wait for its results to be stored.
"""

import math
from collections.abc import Iterable
from typing import Final

from callmood.worker.partition.carried import Live
from callmood.worker.partition.ended import Ended, EndedCalls
from callmood.worker.records import Record
from callmood.worker.stream_time import STEP_MS

Item = Record | int
"""A record, or the offset up to which records cannot be read."""


class Held:
    """What waits, in its order.

    Args:
        ended: knows until when a call that is over is remembered.
        memory_ms: a call that ends is remembered for at least so long.
    """

    def __init__(self, ended: EndedCalls, memory_ms: int) -> None:
        self._ended: Final = ended
        self._memory_ms: Final = memory_ms
        self._items: list[Item] = []
        self._look_ms = 0.0
        """No record at which the partition's clock is earlier needs to wait."""

    def __bool__(self) -> bool:
        return bool(self._items)

    def keep(self, item: Item) -> None:
        """It comes after those that wait."""
        self._items.append(item)

    def release(self) -> list[Item]:
        """Take out all that waits."""
        items, self._items = self._items, []
        return items

    def must_wait(self, calls: Iterable[Live], elapsed_ms: int) -> bool:
        """Whether the next record has to wait: others do, or it may be past the memory time of one of these calls."""
        if self._items:
            return True
        next_ms = elapsed_ms + STEP_MS
        if next_ms < self._look_ms:
            return False
        over = (Ended.of(live.call, b"") for live in calls if live.call.is_over)
        until_ms = min(map(self._ended.until_ms, over), default=math.inf)
        self._look_ms = min(until_ms, elapsed_ms + self._memory_ms)
        return next_ms >= until_ms
