"""Records with which one stream of a call goes on, taken as one. Pure.

A producer that sends 20 ms at a time sends many records that only go on: each is the next of its stream, is plain
audio, and can close nothing, whatever it holds (`Stream.room`). Taken one by one or together, they lead to the same
state; together, most of the work is done once.
"""

from typing import Final, Self

from callmood.schemas.common import Event
from callmood.worker.call.told import Told
from callmood.worker.records import Chunk
from callmood.worker.speech.stream import Stream

_MOST_RECORDS: Final = 25
"""What waits takes memory, and a fault of ours costs all of it."""


class Series:
    """The records, in order.

    Attributes:
        chunks: the records.
        elapsed_ms: the partition's clock at the newest of them.
    """

    __slots__ = ("_room", "_samples", "_stream", "_told", "chunks", "elapsed_ms")

    def __init__(self, stream: Stream, first: Chunk, elapsed_ms: int, told: Told) -> None:
        self.chunks = [first]
        self.elapsed_ms = elapsed_ms
        self._stream = stream
        self._told = told
        self._samples = first.samples
        self._room = stream.room

    @classmethod
    def begin(cls, stream: Stream, first: Chunk, elapsed_ms: int, told: Told) -> Self | None:
        """A series with this record, which brings no news; None unless it is the stream's next and closes nothing."""
        series = cls(stream, first, elapsed_ms, told)
        return series if series._samples <= series._room and stream.is_next(first) else None

    def add(self, chunk: Chunk, elapsed_ms: int) -> bool:
        """Add the call's next record, if the stream goes on with it; returns whether it does."""
        newest, samples = self.chunks[-1], self._samples + chunk.samples
        goes_on = (
            chunk.seq == newest.seq + 1
            and (chunk.format is newest.format or chunk.format == newest.format)
            and chunk.event is Event.MEDIA
            and samples <= self._room
            and len(self.chunks) < _MOST_RECORDS
            and not self._told.is_news(chunk)
            and self._stream.time.goes_on(chunk, self._samples)
        )
        if goes_on:
            self.chunks.append(chunk)
            self.elapsed_ms, self._samples = elapsed_ms, samples
        return goes_on

    def take(self) -> None:
        """Let the stream hear the records."""
        closed = self._stream.take_next(self.chunks)
        assert not closed
        self._stream.mark_active(self.elapsed_ms)
        self._stream.forget_covered()

    @property
    def last_offset(self) -> int:
        """Offset of the newest record."""
        return self.chunks[-1].position.offset
