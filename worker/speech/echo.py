"""Crosstalk: what another channel says, heard again on this one, lower and a moment later. Pure.

Only levels are compared: one byte for each frame of what a channel has taken for speech. An echo follows the levels of
its source, less what it has lost on its way, down to the noise of its line. Two people who speak at once do not, as
long as the utterance is long enough to tell.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from callmood.worker.g711 import Samples
from callmood.worker.speech.percentiles import percentiles

Levels = npt.NDArray[np.float64]

MAX_LAG_FRAMES: Final = 40
"""0.8 s: from side tone to the loudspeaker of a mobile phone behind a satellite."""
MAX_CHANNELS: Final = 4
"""In streams with more, no levels are kept: the state of a call must not outgrow its topic."""
MIN_FRAMES: Final = 25
"""Shorter utterances are not judged: two words of two people can be as alike."""
_LONG_FRAMES: Final = 50
_MIN_LOSS_DB: Final = 4
_LIMITS: Final = (2.5, 0.95)
"""The largest error (dB) and the least correlation of an echo, for utterances below a second."""
_LONG_LIMITS: Final = (4.0, 0.9)
_LOUD_DB: Final = 6
"""So far above the noise of the line, a level tells how much is lost."""
_MIN_LOUD_FRAMES: Final = 8


class Stretch(NamedTuple):
    """What a channel took for speech: from when it was known, where it begins, and the level of each frame in dB."""

    known_frame: int
    first_frame: int
    levels: bytes

    def since(self, frame: int) -> "Stretch":
        """The part from a frame on."""
        before = max(0, frame - self.first_frame)
        return Stretch(self.known_frame, self.first_frame + before, self.levels[before:])


def levels_of(frames: Samples, lost: Collection[int] = ()) -> bytes:
    """The level of each frame [frames, samples], dB above one bit; a `lost` frame has that of the one before."""
    power = np.add.reduce(np.square(frames, dtype=np.float64), axis=1) / frames.shape[1]
    levels = np.rint(10 * np.log10(power + 1)).astype(np.uint8)
    for frame in sorted(lost):
        levels[frame] = levels[max(0, frame - 1)]
    return bytes(levels)


class Stretches:
    """What a channel took for speech lately, oldest first."""

    def __init__(self, saved: Iterable[tuple[int, int, bytes]] = ()) -> None:
        self._stretches = [Stretch(*stretch) for stretch in saved]

    def add(self, stretch: Stretch, *, oldest_frame: int) -> None:
        """Keep one that was closed, and forget what was before a frame."""
        kept = [old.since(oldest_frame) for old in self._stretches]
        self._stretches = [*(old for old in kept if old.levels), stretch]

    def levels(self, first_frame: int, end_frame: int, *, known_by: int, more: Sequence[Stretch] = ()) -> Levels:
        """The levels [frames] of what was known by a frame; 0 where nothing was taken for speech."""
        found = np.zeros(end_frame - first_frame)
        for stretch in [*self._stretches, *more]:
            start = max(stretch.first_frame, first_frame)
            end = min(stretch.first_frame + len(stretch.levels), end_frame)
            if stretch.known_frame <= known_by and start < end:
                levels = np.frombuffer(stretch.levels, np.uint8)[
                    start - stretch.first_frame : end - stretch.first_frame
                ]
                found[start - first_frame : end - first_frame] = levels
        return found

    def save(self) -> tuple[Stretch, ...]:
        """What to restore from."""
        return tuple(self._stretches)


def is_echo(own: Levels, other: Levels) -> bool:
    """Whether a channel's utterance is an echo.

    Args:
        own: the levels of the utterance's voiced frames.
        other: those of another channel for the same frames and the `MAX_LAG_FRAMES` before them.
    """
    if len(own) < MIN_FRAMES or not other.any():
        return False
    (noise_db,) = percentiles(own, 10)
    is_loud = own > noise_db + _LOUD_DB
    loud = np.count_nonzero(is_loud)
    # The median of what is lost is at least 4 dB only if half of the loud frames have a source that is louder by 4 dB.
    if loud < _MIN_LOUD_FRAMES or 2 * np.count_nonzero(other >= own[is_loud].min() + _MIN_LOSS_DB) < loud:
        return False
    lagged = np.lib.stride_tricks.sliding_window_view(other, len(own))
    lost_db = np.median((lagged - own)[:, is_loud], axis=1)
    if lost_db.max() < _MIN_LOSS_DB:
        return False
    copied = lagged - lost_db[:, None]  # a copy has the other line's noise as well
    in_noise = 10 * np.log10(10 ** (copied / 10) + 10 ** (noise_db / 10))
    return any(_follows(own, expected, lost_db) for expected in (in_noise, copied))


def _follows(own: Levels, expected: Levels, lost_db: Levels) -> bool:
    """Whether the levels follow those that are expected at one of the lags, [lags, frames]."""
    errors = np.sqrt(np.square(own - expected).mean(axis=1))
    best = int(errors.argmin())
    most_db, least = _LONG_LIMITS if len(own) >= _LONG_FRAMES else _LIMITS
    if errors[best] > most_db or lost_db[best] < _MIN_LOSS_DB:
        return False
    return bool(np.corrcoef(own, expected[best])[0, 1] >= least)
