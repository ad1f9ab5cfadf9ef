"""Records whose media time or number cannot be: refused alone, believed if the next record confirms it. Pure."""

from callmood.schemas.common import Event
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.records import Chunk
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream_state import DoubtState

_MAX_REFUSED = 64
_CONFIRMS_MS = 60_000  # media time in ticks of 48 kHz leaps 48 s with each second
_CONFIRMS_SEQS = 256


class Doubt:
    """One garbled timestamp or number costs its record. One that jumped for good costs one record and then holds.

    A number far ahead would wait for its turn: it would hold the watermark, and at the next pause of its stream, all
    that follows would look like copies.
    """

    def __init__(self, state: DoubtState | None = None) -> None:
        self._newest_seq, refused, self._doubted_ms, self._doubted_seq, misnumbered = state or DoubtState()
        self._refused, self._misnumbered = list(refused), list(misnumbered)

    def is_clear(self, chunk: Chunk) -> bool:
        """Whether nothing is in doubt and the record is newer than all before: then, unless absurd, it is believed."""
        return self._doubted_ms is None and self._doubted_seq is None and chunk.seq > self._newest_seq

    def believe(self, chunk: Chunk) -> None:
        """Take a record that is clear, and is not absurd."""
        self._newest_seq = chunk.seq

    def judge(self, chunk: Chunk, time: MediaTime, missing_seqs: int) -> None:
        """Believe the record or refuse it; `time` is the position of its stream, before the records that are missing.

        Raises:
            BadRecord: its media time or its number cannot be.
        """
        if chunk.position.offset in self._misnumbered or self._is_misnumbered(chunk, time, missing_seqs):
            raise BadRecord(Reason.BAD_HEADER, f"seq is {missing_seqs} ahead, and neither time is")
        if chunk.seq in self._refused or self._is_new_doubt(chunk, time):
            media_ms = chunk.media_ms or 0.0
            raise BadRecord(Reason.BAD_MEDIA_TIME, f"media_ms is {media_ms:.0f}, and the capture time is not")

    def _is_misnumbered(self, chunk: Chunk, time: MediaTime, missing_seqs: int) -> bool:
        if chunk.seq <= self._newest_seq:
            return False  # as in `_is_new_doubt`
        is_absurd = chunk.event is not Event.END and time.has_absurd_number(chunk, missing_seqs)
        is_confirmed = self._doubted_seq is not None and 0 < chunk.seq - self._doubted_seq <= _CONFIRMS_SEQS
        is_refused = is_absurd and not is_confirmed
        self._doubted_seq = chunk.seq if is_absurd else None
        if is_refused:
            self._misnumbered = [*self._misnumbered, chunk.position.offset][-_MAX_REFUSED:]
        return is_refused

    def _is_new_doubt(self, chunk: Chunk, time: MediaTime) -> bool:
        if chunk.seq <= self._newest_seq:
            return False  # not newer than what was judged before, or taken again after a restart
        self._newest_seq = chunk.seq
        if chunk.media_ms is None or not time.is_absurd(chunk):
            self._doubted_ms = None
            return False
        is_confirmed = self._is_confirmed(chunk.media_ms)
        self._doubted_ms = chunk.media_ms  # until the stream has moved, the records that follow look the same
        if not is_confirmed:
            self._refused = [*self._refused, chunk.seq][-_MAX_REFUSED:]
        return not is_confirmed

    def _is_confirmed(self, media_ms: float) -> bool:
        return self._doubted_ms is not None and 0 <= media_ms - self._doubted_ms <= _CONFIRMS_MS

    def save(self) -> DoubtState:
        """The state to restore from."""
        return DoubtState(
            self._newest_seq, tuple(self._refused), self._doubted_ms, self._doubted_seq, tuple(self._misnumbered)
        )
