"""What is fully done, per partition: the only source of committable offsets. Pure.

A record is *open* from the moment it is read until nothing durable depends on reading it again. The watermark is the
lowest open offset; a successor that resumes there with the stored call states loses nothing.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

Mark = TypeVar("Mark")


class _Open(NamedTuple, Generic[Mark]):
    offset: int
    mark: Mark
    capture_ms: int


class Ledger(Generic[Mark]):
    """Open offsets of one partition.

    A `mark` travels with each offset: what a successor that resumes there must also know (the partition's clock
    just before that record).
    """

    def __init__(self, next_offset: int, mark: Mark) -> None:
        self._next_offset = next_offset
        self._next_mark = mark
        self._open: deque[_Open[Mark]] = deque()
        self._settled: set[int] = set()

    def open(self, offset: int, *, capture_ms: int, mark_after: Mark) -> None:
        """A record was read. Offsets only grow; control records leave holes, which are nobody's work.

        Raises:
            ValueError: the offset was read before, which means that the position and the state disagree.
        """
        if offset < self._next_offset:
            raise ValueError(f"offset {offset} read again; {self._next_offset} was next")
        self._open.append(_Open(offset, self._next_mark, capture_ms))
        self._next_offset = offset + 1
        self._next_mark = mark_after

    def settle(self, offset: int) -> None:
        """Nothing needs this record again."""
        self._settled.add(offset)
        while self._open and self._open[0].offset in self._settled:
            self._settled.discard(self._open.popleft().offset)

    @property
    def watermark(self) -> int:
        """Where a successor must start to read."""
        return self._open[0].offset if self._open else self._next_offset

    @property
    def mark(self) -> Mark:
        """The mark that belongs to the watermark."""
        return self._open[0].mark if self._open else self._next_mark

    @property
    def position(self) -> int:
        """The next offset to read."""
        return self._next_offset

    @property
    def open_records(self) -> int:
        """Records between the watermark and the position that still count."""
        return len(self._open) - len(self._settled)

    @property
    def oldest_capture_ms(self) -> int | None:
        """Capture time of the oldest unprocessed audio, or None when nothing is open."""
        return self._open[0].capture_ms if self._open else None
