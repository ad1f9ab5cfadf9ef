"""The position of a stream: media time in ms until its rate is known, then in samples. Pure."""

from typing import NamedTuple

from callmood.schemas.common import Event
from callmood.worker.records import Chunk

# Media clocks are rounded to milliseconds or to frames; below this a difference is rounding, not a gap.
_TOLERANCE_MS = 20
_EXACT_MS = 1  # the same where the numbers show that records are missing
_LONGEST_LEAP_MS = 1e9  # the largest media_ms; a garbled seq can leap much further
_JITTER_MS = 100  # gateways stamp and batch records; below this a capture time is no later than the audio
_LONGEST_WAIT_MS = 4 * 3_600_000  # a capture time that is later than this was set, or is garbled
_SET_BACK_MS = 10_000  # a capture time so much earlier than the audio is that of a clock that was set back


class Step(NamedTuple):
    """How far a stream moves before a record: over audio that was lost, and over silence that nobody sent."""

    lost_ms: float
    silent_ms: float


class MediaTimeState(NamedTuple):
    """What a successor needs to know of a position; states of earlier versions end with `early_ms`."""

    offset_ms: int
    rate_hz: int | None
    sample: int
    early_ms: float
    zero_ms: float | None = None
    record_ms: float = 0.0


class MediaTime:
    """The position of one stream, and its place on the call's time line.

    Media time tells how far a record is ahead; without it, the capture time does. What of that was lost, the numbers
    tell: a jump without a missing number is silence that was not sent (silence suppression, hold, comfort noise).

    Args:
        offset_ms: the stream's media time 0 on the call's time line.
    """

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms
        self.rate_hz: int | None = None
        self.sample = 0
        """The next sample; counts once the rate is known."""
        self._early_ms = 0.0
        self._zero_ms: float | None = None  # capture time of position 0
        self._record_ms = 0.0  # length of the newest record with audio

    def begin(self, rate_hz: int) -> None:
        """The first audio has come."""
        self.rate_hz = rate_hz
        self.sample = self._samples(self._early_ms)

    def advance(self, samples: int) -> None:
        """Move on by a record's audio."""
        self.sample += samples
        self._record_ms = self.ms(samples)

    def skip(self, ms: float) -> int:
        """Move on without audio; returns how many samples that is (0 while there is no rate)."""
        ms = min(ms, _LONGEST_LEAP_MS)
        if self.rate_hz is None:
            self._early_ms += ms
            return 0
        samples = self._samples(ms)
        self.sample += samples
        return samples

    def step_to(self, chunk: Chunk, missing_seqs: int) -> Step:
        """How far the record is ahead of the position; nothing within rounding, and behind, where their order wins."""
        if self._zero_ms is None:
            self._zero_ms = chunk.capture_ms - max(self.position_ms, chunk.media_ms or 0.0)
        record_ms = chunk.samples * 1000 / chunk.format.rate_hz if chunk.format else self._record_ms
        lost_ms = missing_seqs * record_ms
        if chunk.media_ms is not None:
            ahead_ms = chunk.media_ms - self.position_ms
            if ahead_ms <= (_EXACT_MS if missing_seqs else _TOLERANCE_MS):
                ahead_ms = 0.0
        elif chunk.event is Event.GAP:  # its capture time may be that of either end
            ahead_ms = lost_ms
        else:
            ahead_ms = lost_ms + self._waited_ms(chunk, lost_ms)
        lost_ms = min(lost_ms, ahead_ms)
        return Step(lost_ms, ahead_ms - lost_ms)

    def _waited_ms(self, chunk: Chunk, lost_ms: float) -> float:
        """By how much the record was captured later than the audio before it ended."""
        assert self._zero_ms is not None
        late_ms = chunk.capture_ms - self._zero_ms - self.position_ms - lost_ms
        if not -_SET_BACK_MS <= late_ms <= _LONGEST_WAIT_MS:
            self._zero_ms = chunk.capture_ms - self.position_ms - lost_ms
            return 0.0
        least_ms = _JITTER_MS if chunk.event in (Event.MEDIA, Event.START) else 0
        return late_ms if late_ms > least_ms else 0.0

    @property
    def position_ms(self) -> float:
        """The position on the stream's own time line."""
        return self._early_ms if self.rate_hz is None else self.ms(self.sample)

    @property
    def call_position_ms(self) -> int:
        """The position on the call's time line."""
        return self.offset_ms + round(self.position_ms)

    def call_ms(self, sample: int) -> int:
        """A sample on the call's time line."""
        return self.offset_ms + round(self.ms(sample))

    def ms(self, samples: int) -> float:
        """The duration of that many samples."""
        assert self.rate_hz is not None
        return samples * 1000 / self.rate_hz

    def _samples(self, ms: float) -> int:
        assert self.rate_hz is not None
        return round(ms * self.rate_hz / 1000)

    def save(self) -> MediaTimeState:
        """The state to restore from."""
        return MediaTimeState(self.offset_ms, self.rate_hz, self.sample, self._early_ms, self._zero_ms, self._record_ms)

    @classmethod
    def load(cls, saved: MediaTimeState) -> "MediaTime":
        """The position that was saved."""
        time = cls(saved.offset_ms)
        time.rate_hz = saved.rate_hz
        time.sample = saved.sample
        time._early_ms = saved.early_ms
        time._zero_ms = saved.zero_ms
        time._record_ms = saved.record_ms
        return time
