"""The settings of segmentation in frames, samples and bit masks."""

import math
from dataclasses import dataclass
from hashlib import sha256

from callmood.schemas.common import Encoding
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.vad import FRAME_MS, VAD_VERSION

_HISTORY_SPARE_S = 10  # one channel can be decided this long before another asks for its votes


@dataclass(frozen=True, slots=True)
class Rules:
    """Derived once per channel. A window of votes is an integer: one bit a frame, bit 0 the newest."""

    settings: SegmentSettings
    rate_hz: int
    version: str
    frame_samples: int
    padding_samples: int
    min_samples: int
    max_samples: int
    search_samples: int
    open_mask: int
    open_votes: int
    """Voiced frames in the opening window that open."""
    close_mask: int
    close_votes: int
    """Voiced frames in the closing window that it may still hold to close."""
    window_mask: int
    silent_samples: int
    """Silence after which nothing is open and nothing can open."""
    history_frames: int
    history_mask: int

    @classmethod
    def of(cls, encoding: Encoding, rate_hz: int, settings: SegmentSettings) -> "Rules":
        """The rules at a sample rate; `version` changes with everything that a detector's memory depends on."""
        per_ms = rate_hz / 1000
        open_frames = max(1, settings.open_window_ms // FRAME_MS)
        close_frames = max(1, settings.close_window_ms // FRAME_MS)
        history_frames = math.ceil((settings.max_utterance_s + _HISTORY_SPARE_S) * 1000 / FRAME_MS)
        facts = f"{VAD_VERSION} {encoding} {rate_hz} {settings.model_dump_json()}"
        return cls(
            settings=settings,
            rate_hz=rate_hz,
            version=sha256(facts.encode()).hexdigest()[:16],
            frame_samples=rate_hz * FRAME_MS // 1000,
            padding_samples=round(settings.padding_ms * per_ms),
            min_samples=round(settings.min_utterance_ms * per_ms),
            max_samples=round(settings.max_utterance_s * rate_hz),
            search_samples=round(settings.split_search_s * rate_hz),
            open_mask=_ones(open_frames),
            open_votes=_votes(settings.open_ratio, open_frames),
            close_mask=_ones(close_frames),
            close_votes=close_frames - _votes(settings.close_ratio, close_frames),
            window_mask=_ones(max(open_frames, close_frames)),
            silent_samples=(max(open_frames, close_frames) + 2) * (rate_hz * FRAME_MS // 1000)
            + round(settings.padding_ms * per_ms),
            history_frames=history_frames,
            history_mask=_ones(history_frames),
        )

    def frames_before_close(self, frame: int, window: int, start: int, *, is_open: bool) -> int:
        """How many frames can follow and, whatever they hold, close nothing.

        Args:
            frame: the next one.
            window: votes of the frames before it.
            start: the first sample of what is open, or of what can open next.
            is_open: whether something is open. Only after some voiced frames does something open, and then with a
                closing window full of speech.
        """
        before_open = 0 if is_open else max(1, self.open_votes - (window & self.open_mask).bit_count())
        votes = (window & self.close_mask if is_open else self.close_mask).bit_count()
        before_split = (start + self.max_samples) // self.frame_samples - frame - 1
        return min(before_open + votes - self.close_votes - 1, before_split)

    def is_long(self, first_frame: int, end_frame: int) -> bool:
        """Whether these frames are enough for an utterance."""
        return (end_frame - first_frame) * FRAME_MS >= self.settings.min_utterance_ms

    def split_range(self, start: int) -> tuple[int, int]:
        """The frames among which an utterance that is too long is split."""
        limit = start + self.max_samples
        earliest = max(limit - self.search_samples, start + self.min_samples)
        return -(-earliest // self.frame_samples), limit // self.frame_samples


def _ones(bits: int) -> int:
    return (1 << bits) - 1


def _votes(ratio: float, frames: int) -> int:
    return max(1, math.ceil(ratio * frames - 1e-9))
