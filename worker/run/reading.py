"""Unread records of a consumer, and the partitions that a producer's open transaction holds back.

A reader of committed records gets no record after the start of an open transaction. A producer that exits without
closing its transaction can stop a partition until the transaction times out, or forever. No restart of the worker
helps, so such a partition counts as held, not as work.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

import structlog

from callmood.worker.commits import TopicPartition

log = structlog.get_logger()


class Positions(Protocol):
    """What is asked of the consumer."""

    def lag(self, source: TopicPartition) -> int | None:
        """Records that have not been read yet; None before the first fetch."""

    def position(self, source: TopicPartition) -> int:
        """The next offset to read."""

    def stable_ends(self, sources: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where committed records end, from the broker; empty without an answer."""


class _Stand(NamedTuple):
    """Where a partition is read, and since when; `asked_s` is when the broker was last asked why."""

    position: int
    since_s: float
    asked_s: float = -math.inf
    can_move: bool = True
    is_held: bool = False


class Reading:
    """The reader's position in each partition, and why it stands.

    Args:
        consumer: the reader.
        ask_after_s: a partition that stands for so long with unread records is asked about, and again after as long.
            While reading is paused, the ends of all partitions are asked for as often.

    Attributes:
        unread: records on all partitions that are not read yet.
        has_work: whether there are records that the broker would give.
        has_moved: whether a position has moved between the last two looks.
    """

    def __init__(self, consumer: Positions, ask_after_s: float = 10.0) -> None:
        self.unread = 0
        self.has_work = False
        self.has_moved = False
        self._consumer = consumer
        self._ask_after_s = ask_after_s
        self._stands: dict[TopicPartition, _Stand] = {}
        self._ends: Mapping[TopicPartition, int] = {}
        """As last asked for during a pause; ends only grow."""
        self._asked_s = -math.inf

    @property
    def held(self) -> int:
        """Partitions that an open transaction of a producer holds back."""
        return sum(stand.is_held for stand in self._stands.values())

    def look(self, sources: Iterable[TopicPartition], now_s: float, *, is_paused: bool) -> None:
        """Note the position of each partition; asks the broker once at most.

        Args:
            sources: the partitions that are read.
            now_s: monotonic.
            is_paused: the loop has paused reading.
        """
        lags = {source: self._consumer.lag(source) or 0 for source in sources}
        before, self._stands = self._stands, {source: self._stand(source, now_s) for source in lags}
        self.has_moved = any(
            before.get(source, stand).position != stand.position for source, stand in self._stands.items()
        )
        self.unread = sum((self._paused_lags(lags, now_s) if is_paused else lags).values())
        waiting = [source for source, lag in lags.items() if lag]
        for source, stand in self._stands.items():
            if is_paused or source not in waiting:
                self._stands[source] = stand._replace(since_s=now_s)
        if not is_paused:
            self._ask(waiting, now_s)
        self.has_work = not is_paused and any(self._stands[source].can_move for source in waiting)

    def _stand(self, source: TopicPartition, now_s: float) -> _Stand:
        position, before = self._consumer.position(source), self._stands.get(source)
        if before is not None and before.position == position:
            return before
        if before is not None and before.is_held:
            log.info("open transaction of a producer has ended", topic=source.topic, partition=source.partition)
        return _Stand(position, now_s)

    def _paused_lags(self, lags: Mapping[TopicPartition, int], now_s: float) -> dict[TopicPartition, int]:
        """A reader that is paused fetches nothing, so it does not learn of new records by itself."""
        if lags and now_s - self._asked_s >= self._ask_after_s:
            self._asked_s = now_s
            self._ends = self._consumer.stable_ends(lags) or self._ends
        return {one: max(lag, self._ends.get(one, 0) - self._stands[one].position) for one, lag in lags.items()}

    def _ask(self, waiting: list[TopicPartition], now_s: float) -> None:
        """Ask the broker about the partition that was asked about longest ago, if one has stood for long enough."""
        due = [s for s in waiting if now_s - max(self._stands[s].since_s, self._stands[s].asked_s) >= self._ask_after_s]
        if not due:
            return
        source = min(due, key=lambda one: self._stands[one].asked_s)
        stand, end = self._stands[source], self._consumer.stable_ends([source]).get(source)
        is_held = end is not None and end <= stand.position
        if is_held and not stand.is_held:
            log.warning(
                "open transaction of a producer holds back a partition",
                topic=source.topic,
                partition=source.partition,
                offset=stand.position,
            )
        can_move = end is not None and end > stand.position
        self._stands[source] = stand._replace(asked_s=now_s, can_move=can_move, is_held=is_held)
