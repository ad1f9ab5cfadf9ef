"""Whether the work moves on: for how long a partition with something to read has stood still. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from callmood.worker.commits import TopicPartition


class Status(NamedTuple):
    """What a loop tells the supervisor about once a second."""

    partitions: int
    restoring: int
    is_store_healthy: bool
    stuck_s: float
    """For how long a partition with unread records has not moved its watermark."""


class Progress:
    """The watermark of each partition, and since when it stands there unread."""

    def __init__(self) -> None:
        self._stands: dict[TopicPartition, tuple[int, float]] = {}

    def note(self, source: TopicPartition, watermark: int, now_s: float) -> None:
        """The partition was taken over at this watermark, or has committed it."""
        if watermark != self._stands.get(source, (None,))[0]:
            self._stands[source] = (watermark, now_s)

    def forget(self, source: TopicPartition) -> None:
        """The partition is another's now."""
        self._stands.pop(source, None)

    def stuck_s(self, unread: Mapping[TopicPartition, int | None], now_s: float) -> float:
        """The longest standstill of a partition with unread records; where nothing is unread, none has begun."""
        for source, (watermark, _) in list(self._stands.items()):
            if not unread.get(source):
                self._stands[source] = (watermark, now_s)
        return max((now_s - since_s for _, since_s in self._stands.values()), default=0.0)
