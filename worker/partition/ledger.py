"""Tracks which records of a partition are done. It is the only source of committable offsets. Pure.

A record is *open* from the moment it is read until nobody needs to read it again. The watermark is the lowest open
offset; a successor that resumes there with the stored call states loses nothing.
"""

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

Mark = TypeVar("Mark")


class Ledger(Generic[Mark]):
    """Open offsets of one partition.

    Each offset carries a `mark`, which a successor that resumes there also needs: the partition's clock just before
    that record.
    """

    def __init__(self, next_offset: int, mark: Mark) -> None:
        self._next_offset = next_offset
        self._next_mark = mark
        self._open: deque[tuple[int, Mark, int]] = deque()  # offset, mark, capture time
        self._settled: set[int] = set()

    def open(self, offset: int, *, capture_ms: int, mark_after: Mark) -> None:
        """A record was read. Offsets only grow; Kafka's control records leave holes.

        Raises:
            ValueError: the offset was read before, so position and state disagree.
        """
        if offset < self._next_offset:
            raise ValueError(f"offset {offset} read again; {self._next_offset} was next")
        self._open.append((offset, self._next_mark, capture_ms))
        self._next_offset = offset + 1
        self._next_mark = mark_after

    def skip_to(self, offset: int) -> None:
        """The records before this offset cannot be read: they are not open, and no owner needs to read them again."""
        self._next_offset = max(self._next_offset, offset)

    def settle(self, *offsets: int) -> None:
        """Nothing needs these records again; settling one twice is harmless."""
        if not self._open:
            return
        first = self._open[0][0]
        self._settled.update(offset for offset in offsets if offset >= first)
        while self._open and self._open[0][0] in self._settled:
            self._settled.discard(self._open.popleft()[0])

    def watermark_after(self, offsets: Iterable[int]) -> tuple[int, Mark]:
        """Watermark and mark as they will be once these offsets are settled too."""
        known, settled = self._settled, set(offsets)
        for offset, mark, _ in self._open:
            if offset not in settled and offset not in known:
                return offset, mark
        return self._next_offset, self._next_mark

    @property
    def watermark(self) -> int:
        """Where a successor must start to read."""
        return self._open[0][0] if self._open else self._next_offset

    @property
    def position(self) -> int:
        """The next offset to read."""
        return self._next_offset

    @property
    def open_records(self) -> int:
        """Records that a successor would have to read again."""
        return len(self._open) - len(self._settled)

    @property
    def oldest_capture_ms(self) -> int | None:
        """Capture time of the oldest unprocessed audio, or None when nothing is open."""
        return self._open[0][2] if self._open else None
