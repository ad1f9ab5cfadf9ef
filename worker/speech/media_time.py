"""The position of a stream: media time in ms until its rate is known, then in samples. Pure."""

from bisect import bisect_right
from math import copysign
from typing import NamedTuple

from callmood.schemas.common import Event
from callmood.worker.records import Chunk
from callmood.worker.speech.media_rate import MediaRate
from callmood.worker.speech.stream_state import MediaTimeState

# Media clocks are rounded to milliseconds or to frames; below this a difference is rounding, not a gap.
_TOLERANCE_MS = 20
_EXACT_MS = 1  # the same where the numbers show that records are missing
_LONGEST_LEAP_MS = 1e9  # the largest media_ms; a garbled seq can leap much further
_JITTER_MS = 100  # gateways stamp and batch records; below this a capture time is no later than the audio
_LONGEST_WAIT_MS = 4 * 3_600_000  # a capture time that is later than this was set, or is garbled
_SET_BACK_MS = 10_000  # a capture time so much earlier than the audio is that of a clock that was set back
_ABSURD_MS = 10_000  # media time so far ahead of the capture time is not believed, nor so much loss that it denies
_ABSURD_SHARE = 1e-3  # the same, per ms of the stream: clocks drift
_UNCLOCKED_MS = 3_600_000  # the same where capture times do not keep step with the audio
_RAN_BACK_MS = 1_000  # media time so far behind has started again, or is garbled
_JOINED_LATE_MS = 4 * 3_600_000  # media time of a first record; more is a random base (RFC 3550, 5.1)
_BEGINS_SILENT_MS = 60_000  # the same where no record came before: nobody had spoken yet
_DRIFT_MS = 50  # a capture time within this of the audio says nothing of drift
_DRIFT_STEP_MS = 5
_DRIFT_SHARE = 1e-3  # followed per ms of audio: several times the drift of two clocks
_NO_DRIFT_MS = 2_000  # a capture time so far off is not drift
_KEPT_SHIFTS = 16
_LITTLE_MS = 60  # audio that an `end` does not wait for: three packets of RTP


class Step(NamedTuple):
    """How far a stream moves before a record: over audio that was lost, and over silence that nobody sent."""

    lost_ms: float
    silent_ms: float


class MediaTime:
    """The position of one stream, and its place on the call's time line.

    Media time tells how far a record is ahead; without it, the capture time does. What of that was lost, the numbers
    tell: a jump without a missing number is silence that was not sent (silence suppression, hold, comfort noise). Where
    media time starts again, its source has: what was captured until then was lost, whatever the numbers tell.

    Media time that starts again, or that persistently runs ahead of the capture times, is continued where those say.
    The clock of the samples drifts against that of the capture times; the place on the call's time line follows the
    latter, slowly, so that legs with different clocks stay together.

    Args:
        offset_ms: the stream's media time 0 on the call's time line.
    """

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms
        self.rate_hz: int | None = None
        self.sample = 0
        """The next sample; counts once the rate is known."""
        self.record_ms = 0.0
        """Length of the newest record with audio."""
        self._early_ms = 0.0
        self._zero_ms: float | None = None  # capture time of position 0
        self._base_ms: float | None = None  # media time at position 0
        self._again: tuple[int, float] | None = None  # the record that media time started again with, and its end
        self._drift_ms = 0.0
        self._rate = MediaRate()
        self._shifts: tuple[tuple[int, int], ...] = ()  # from a sample on, its place is so much later: the newest few

    def begin(self, rate_hz: int) -> None:
        """The first audio has come."""
        self.rate_hz = rate_hz
        self.sample = self._samples(self._early_ms)

    def advance(self, samples: int) -> None:
        """Move on by a record's audio."""
        self.sample += samples
        self.record_ms = self.ms(samples)

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
        record_ms = chunk.samples * 1000 / chunk.format.rate_hz if chunk.format else self.record_ms
        lost_ms = missing_seqs * record_ms
        self._anchor(chunk, lost_ms)
        if chunk.media_ms is not None and not self._rate.is_wrong:
            starts_again = chunk.media_ms - (self._base_ms or 0.0) - self.position_ms < -_RAN_BACK_MS
            ahead_ms = self._ahead_ms(chunk.media_ms, chunk, lost_ms)
            if ahead_ms <= (_EXACT_MS if missing_seqs else _TOLERANCE_MS):
                ahead_ms = 0.0
            elif starts_again and chunk.event is Event.MEDIA:
                lost_ms = ahead_ms
        elif chunk.event is Event.GAP:  # its capture time may be that of either end
            ahead_ms = lost_ms
        else:
            ahead_ms = lost_ms + self._waited_ms(chunk, lost_ms)
        lost_ms = min(lost_ms, ahead_ms)
        silent_ms = ahead_ms - lost_ms
        if silent_ms and self.record_ms and chunk.event is Event.MEDIA and chunk.media_ms is not None:
            self._rate = self._rate.after_jump(chunk, self.position_ms + lost_ms, self.record_ms, silent_ms)
            if self._rate.is_wrong:  # the capture times decide, from here on
                self._zero_ms = chunk.capture_ms - self.position_ms - ahead_ms - self._drift_ms
        return Step(lost_ms, silent_ms)

    def is_nearly_at(self, end: Chunk, next_seq: int) -> bool:
        """Whether an `end` that waits for the records from `next_seq` on waits for too little audio to be worth it."""
        is_waiting = end.event is Event.END and next_seq <= end.seq
        return is_waiting and self.step_to(end, end.seq - next_seq).lost_ms <= _LITTLE_MS

    def goes_on(self, chunk: Chunk, samples: int = 0) -> bool:
        """Whether a record with audio begins where the stream is; if no number is missing, the step to it is none.

        With `samples`, records with so much audio, which go on too, come before it; at each, drift may be followed.
        """
        if self._zero_ms is None or not self.record_ms or self._again is not None:
            return False
        position_ms = self.ms(self.sample + samples) if samples else self.position_ms
        if chunk.media_ms is not None and not self._rate.is_wrong:
            base_ms = self._base_ms
            return base_ms is not None and -_RAN_BACK_MS <= chunk.media_ms - base_ms - position_ms <= _TOLERANCE_MS
        late_ms = chunk.capture_ms - self._zero_ms - position_ms - self._drift_ms
        followed_ms = _DRIFT_SHARE * self.ms(samples) if samples else 0.0
        return followed_ms - _SET_BACK_MS <= late_ms <= _JITTER_MS - followed_ms

    def _anchor(self, chunk: Chunk, lost_ms: float) -> None:
        """The first record ties media time and capture time to the position."""
        position_ms = self.position_ms
        if self._base_ms is None and chunk.media_ms is not None:
            most_ms = _JOINED_LATE_MS if lost_ms else _BEGINS_SILENT_MS
            self._base_ms = 0.0 if chunk.media_ms <= most_ms else chunk.media_ms - position_ms
        if self._zero_ms is None:
            if chunk.media_ms is not None and self._base_ms is not None:
                position_ms = max(position_ms, chunk.media_ms - self._base_ms)
            self._zero_ms = chunk.capture_ms - position_ms

    def is_absurd(self, chunk: Chunk) -> bool:
        """Whether the record's media time is further ahead than its capture time allows."""
        if self.rate_hz is None or chunk.media_ms is None or self._base_ms is None or self._zero_ms is None:
            return False
        if self._rate.is_wrong:
            return False
        return chunk.media_ms - self._base_ms - self.position_ms > self._most_ms(chunk)

    def has_absurd_number(self, chunk: Chunk, missing_seqs: int) -> bool:
        """Whether far more audio is missing by the record's number than fits before it by its times."""
        if self._zero_ms is None or not self.record_ms:
            return False
        ahead_ms = max(0.0, chunk.capture_ms - self._zero_ms - self.position_ms)
        if chunk.media_ms is not None and self._base_ms is not None:
            ahead_ms = max(ahead_ms, chunk.media_ms - self._base_ms - self.position_ms)
        return missing_seqs * self.record_ms - ahead_ms > _ABSURD_MS

    def _most_ms(self, chunk: Chunk) -> float:
        """How far media time may be ahead of the position."""
        assert self._zero_ms is not None
        late_ms = chunk.capture_ms - self._zero_ms - self.position_ms
        slack_ms = _ABSURD_MS + _ABSURD_SHARE * self.position_ms
        return max(late_ms, 0.0) + slack_ms if -slack_ms <= late_ms <= _LONGEST_WAIT_MS else _UNCLOCKED_MS

    def _ahead_ms(self, media_ms: float, chunk: Chunk, lost_ms: float) -> float:
        """How far media time is ahead; where it cannot be believed, how far the capture time is."""
        assert self._base_ms is not None
        ahead_ms = media_ms - self._base_ms - self.position_ms
        if not self.record_ms:  # no audio before it to tell: the capture time does, if it is later
            captured_ms = self._waited_ms(chunk, 0.0)
            if captured_ms > ahead_ms:
                self._base_ms = media_ms - self.position_ms - captured_ms
                return captured_ms
        if ahead_ms >= -_RAN_BACK_MS and (self.rate_hz is None or ahead_ms <= self._most_ms(chunk)):
            self._again = None
            return ahead_ms
        again_seq, again_ms = self._again or (chunk.seq, 0.0)
        goes_on = again_seq < chunk.seq and abs(media_ms - again_ms) <= _RAN_BACK_MS
        captured_ms = lost_ms + self._waited_ms(chunk, lost_ms)
        self._again = chunk.seq, media_ms + (chunk.samples * 1000 / chunk.format.rate_hz if chunk.format else 0.0)
        if goes_on or ahead_ms > 0:
            self._base_ms = media_ms - self.position_ms - captured_ms
            self._again = None
        return captured_ms

    def _waited_ms(self, chunk: Chunk, lost_ms: float) -> float:
        """By how much the record was captured later than the audio before it ended."""
        assert self._zero_ms is not None
        late_ms = chunk.capture_ms - self._zero_ms - self.position_ms - self._drift_ms - lost_ms
        if not -_SET_BACK_MS <= late_ms <= _LONGEST_WAIT_MS:
            self._zero_ms = chunk.capture_ms - self.position_ms - self._drift_ms - lost_ms
            return 0.0
        least_ms = _JITTER_MS if chunk.event in (Event.MEDIA, Event.START) else 0
        return late_ms if late_ms > least_ms else 0.0

    def follow(self, chunk: Chunk) -> bool:
        """At a record with audio: its capture time tells how far the clock of the samples has drifted.

        Returns whether that has changed.
        """
        if self._zero_ms is None or not chunk.format:
            return False
        off_ms = chunk.capture_ms - self._zero_ms - self.position_ms - self._drift_ms
        if not _DRIFT_MS < abs(off_ms) <= _NO_DRIFT_MS:
            return False
        most_ms = _DRIFT_SHARE * chunk.samples * 1000 / chunk.format.rate_hz
        self._drift_ms += copysign(min(abs(off_ms) - _DRIFT_MS, most_ms), off_ms)
        shifted_ms = self._shifts[-1][1] if self._shifts else 0
        if abs(self._drift_ms - shifted_ms) >= _DRIFT_STEP_MS:
            self._shifts = (*self._shifts, (self.sample, round(self._drift_ms)))[-_KEPT_SHIFTS:]
        return True

    @property
    def zero_ms(self) -> float | None:
        """Capture time of position 0; None before the first record."""
        return self._zero_ms

    @property
    def position_ms(self) -> float:
        """The position on the stream's own time line."""
        return self._early_ms if self.rate_hz is None else self.ms(self.sample)

    @property
    def call_position_ms(self) -> int:
        """The position on the call's time line."""
        return self.offset_ms + round(self._early_ms) if self.rate_hz is None else self.call_ms(self.sample)

    def call_ms(self, sample: int) -> int:
        """A sample on the call's time line; never earlier than a sample before it, whichever way the clocks drift."""
        oldest = self._shifts[0][1] if len(self._shifts) == _KEPT_SHIFTS else 0
        shifts = ((0, oldest), *self._shifts)
        at = bisect_right(shifts, sample, lo=1, key=lambda shift: shift[0]) - 1
        (since, shift_ms), (_, before_ms) = shifts[at], shifts[max(0, at - 1)]
        place_ms = max(round(self.ms(sample)) + shift_ms, round(self.ms(since)) + before_ms)
        return self.offset_ms + place_ms

    def ms(self, samples: int) -> float:
        """The duration of that many samples."""
        assert self.rate_hz is not None
        return samples * 1000 / self.rate_hz

    def _samples(self, ms: float) -> int:
        assert self.rate_hz is not None
        return round(ms * self.rate_hz / 1000)

    def save(self) -> MediaTimeState:
        """The state to restore from."""
        return MediaTimeState(
            self.offset_ms,
            self.rate_hz,
            self.sample,
            self._early_ms,
            self._zero_ms,
            self.record_ms,
            self._base_ms,
            self._again,
            self._drift_ms,
            self._shifts,
            self._rate,
        )

    @classmethod
    def load(cls, saved: MediaTimeState) -> "MediaTime":
        """The position that was saved."""
        time = cls(saved.offset_ms)
        time.rate_hz = saved.rate_hz
        time.sample = saved.sample
        time._early_ms = saved.early_ms
        time._zero_ms = saved.zero_ms
        time.record_ms = saved.record_ms
        time._base_ms = saved.base_ms
        time._again = saved.again
        time._drift_ms = saved.drift_ms
        time._shifts = saved.shifts
        time._rate = MediaRate(*saved.rate)
        return time
