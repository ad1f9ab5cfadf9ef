"""The position of a stream: media time in ms until its rate is known, then in samples. Pure."""

from typing import NamedTuple

# Media clocks are rounded to milliseconds or to frames; below this a difference is rounding, not a gap.
_TOLERANCE_MS = 20
_LONGEST_LEAP_MS = 1e9  # the largest media_ms; a garbled seq can leap much further


class MediaTimeState(NamedTuple):
    """What a successor needs to know of a position."""

    offset_ms: int
    rate_hz: int | None
    sample: int
    early_ms: float


class MediaTime:
    """The position of one stream, and its place on the call's time line.

    Args:
        offset_ms: the stream's media time 0 on the call's time line.
    """

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms
        self.rate_hz: int | None = None
        self.sample = 0
        """The next sample; counts once the rate is known."""
        self._early_ms = 0.0

    def begin(self, rate_hz: int, media_ms: float | None) -> None:
        """The first audio has come. Media time that runs back is ignored, here and later."""
        self.rate_hz = rate_hz
        self.sample = self._samples(max(self._early_ms, media_ms or 0.0))

    def advance(self, samples: int) -> None:
        """Move on by a record's audio."""
        self.sample += samples

    def skip(self, ms: float) -> int:
        """Move on without audio; returns how many samples that is (0 while there is no rate)."""
        ms = min(ms, _LONGEST_LEAP_MS)
        if self.rate_hz is None:
            self._early_ms += ms
            return 0
        samples = self._samples(ms)
        self.sample += samples
        return samples

    def ahead_ms(self, media_ms: float | None) -> float:
        """How far a record's media time is ahead; 0 within rounding, and behind, where the order of records wins."""
        if media_ms is None:
            return 0.0
        ahead_ms = media_ms - (self._early_ms if self.rate_hz is None else self.ms(self.sample))
        return ahead_ms if ahead_ms > _TOLERANCE_MS else 0.0

    @property
    def call_position_ms(self) -> int:
        """The position on the call's time line."""
        return self.call_ms(self.sample) if self.rate_hz else self.offset_ms + round(self._early_ms)

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

    def save(self, sample: int) -> MediaTimeState:
        """The state to restore from, as of an earlier sample."""
        return MediaTimeState(self.offset_ms, self.rate_hz, sample, self._early_ms)

    @classmethod
    def load(cls, saved: MediaTimeState) -> "MediaTime":
        """The position that was saved."""
        time = cls(saved.offset_ms)
        time.rate_hz = saved.rate_hz
        time.sample = saved.sample
        time._early_ms = saved.early_ms
        return time
