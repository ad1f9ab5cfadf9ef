"""Copies of records told from numbers that start again: both bring a `seq` that was taken before. Pure.

A producer that retries, or a gateway that sends its buffer again, sends the same record twice; the copy may have a
newer timestamp (LogAppendTime). A gateway that counts from 0 again without a new stream sends other audio under old
numbers. The checksums of the first records, and of those at powers of two, tell the two apart: numbers that start again
reach them one after the other. At most 60 checksums are kept. A number a little below the first one is only late.
"""

import zlib
from collections.abc import Iterable

from callmood.worker.records import Chunk

_FIRST_RECORDS = 8
_LATE_RECORDS = 16


class TakenNumbers:
    """What one stream remembers of the records that it has taken.

    Args:
        reorder_records: how far below the first number one may be late (at least 16).
    """

    def __init__(self, reorder_records: int) -> None:
        self.started_again = False
        """Whether the newest numbers were old ones with other content."""
        self._late_records = max(_LATE_RECORDS, reorder_records)
        self._checksums: dict[int, int] = {}
        self._taken_offset = -1

    def restore(self, checksums: Iterable[tuple[int, int]], taken_offset: int, *, started_again: bool) -> None:
        """Take what was saved, `checksums` by `seq`; records up to `taken_offset` are read again and change nothing."""
        self.started_again = started_again
        self._checksums = dict(checksums)
        self._taken_offset = taken_offset

    def add(self, chunk: Chunk) -> None:
        """A record with a new number was taken."""
        if chunk.position.offset > self._taken_offset:
            self.started_again = False
        if chunk.seq < _FIRST_RECORDS or chunk.seq & (chunk.seq - 1) == 0 or not self._checksums:
            self._checksums.setdefault(chunk.seq, _checksum(chunk))

    def is_copy(self, chunk: Chunk) -> bool:
        """Whether a record with an old number is a copy, as far as the checksums show, or is only late."""
        known, started_again = self._checksums.get(chunk.seq), self.started_again
        if known is not None:
            started_again = known != _checksum(chunk)
        elif chunk.seq + self._late_records < min(self._checksums, default=0):
            started_again = True
        if chunk.position.offset > self._taken_offset:
            self.started_again = started_again
        return not started_again

    def save(self) -> list[tuple[int, int]]:
        """The checksums to restore from."""
        return list(self._checksums.items())


def _checksum(chunk: Chunk) -> int:
    facts = f"{chunk.event} {chunk.media_ms} {chunk.discarded_ms}"
    return zlib.crc32(chunk.audio, zlib.crc32(facts.encode()))
