"""The released records of a stream whose audio a later span can need. Pure."""

from collections import deque

from callmood.worker.records import Chunk, Span
from callmood.worker.speech.heard import Heard
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream_state import MediaTimeState


class HeardRecords:
    """Oldest first."""

    def __init__(self) -> None:
        self._records: deque[Heard] = deque()

    def add(self, chunk: Chunk, before: MediaTimeState, end_sample: int, concealed_seqs: int = 0) -> None:
        """A record was released.

        Args:
            chunk: the record.
            before: the position before it, and before lost audio that was concealed with it.
            end_sample: the position after it.
            concealed_seqs: how many lost records held the concealed audio.
        """
        end_ms = chunk.capture_ms + (chunk.samples * 1000 / chunk.format.rate_hz if chunk.format else 0.0)
        bounds = (before.sample, end_sample, end_ms)
        seq = chunk.seq - concealed_seqs
        self._records.append(Heard(seq, chunk.position, *bounds, chunk.traceparent, before, before.record_ms))

    def add_next(self, chunk: Chunk, before: MediaTimeState, time: MediaTime) -> None:
        """A record is next, and begins at `time`; since `before`, only audio has come."""
        first, length_ms = time.sample, time.ms(chunk.samples)
        bounds = (first, first + chunk.samples, chunk.capture_ms + length_ms)
        self._records.append(Heard(chunk.seq, chunk.position, *bounds, chunk.traceparent, before, time.record_ms))

    def __len__(self) -> int:
        return len(self._records)

    @property
    def oldest(self) -> Heard | None:
        """The record that a successor must take first; None: no record is needed."""
        return self._records[0] if self._records else None

    def sources(self, span: Span) -> list[Heard]:
        """The records that hold the span, in media order; their order on the topic may differ."""
        start, end = span.start_sample, span.end_sample
        inside = [h for h in self._records if max(start, h.first_sample) < min(end, h.end_sample)]
        return inside or [self._records[-1]]  # all of it is concealed silence

    def forget(self, needed_from: int) -> None:
        """Drop the records that end at or before this sample."""
        while self._records and self._records[0].end_sample <= needed_from:
            self._records.popleft()

    def clear(self) -> None:
        """No record is needed."""
        self._records.clear()
