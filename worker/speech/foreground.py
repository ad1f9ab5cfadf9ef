"""Speech in the background that goes on: where the voice in front of it begins and ends in one utterance. Pure.

A television or a colleague leaves no silence between the sentences of the caller, so no silence closes the utterance.
The power of each 100 ms tells the two apart: what is 16 dB below the loudest 100 ms of the utterance for a whole second
is the background. Shorter, it can be a pause or a quiet word.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np

from callmood.worker.g711 import Samples

BLOCK_FRAMES: Final = 5
"""100 ms, on an absolute grid."""
_MIN_BLOCKS: Final = 10
LEAST_FRAMES: Final = _MIN_BLOCKS * BLOCK_FRAMES
"""Of an utterance that fades."""
_RATIO: Final = 10 ** (16 / 10)
_UNKNOWN: Final = -1.0
"""The power of a block in which audio was lost: it is neither loud nor quiet."""


class Loudness:
    """The power of each block of the open utterance, computed once.

    Args:
        read: all frames [frames, samples] from one on that there are, and the indices of those that hold lost audio.
    """

    def __init__(self, read: Callable[[int], tuple[Samples, Collection[int]]]) -> None:
        self._read = read
        self._first = 0
        self._powers: list[float] = []

    def begin(self, frame: int) -> None:
        """An utterance begins at this frame, or in it."""
        self._first = -(-frame // BLOCK_FRAMES)
        self._powers = []

    def onset(self, end_frame: int) -> int | None:
        """The frame with which the voice in front begins after background; None without a second of that."""
        powers = self._until(end_frame)
        quiet = _quiet(powers, powers)
        return (self._first + quiet) * BLOCK_FRAMES if _MIN_BLOCKS <= quiet < len(powers) else None

    def fade(self, end_frame: int) -> int | None:
        """The frame from which on there is only background, to the end of a block; None without a second of it."""
        quiet = self._quiet_at_end(end_frame)
        return end_frame - quiet * BLOCK_FRAMES if quiet == _MIN_BLOCKS else None

    def next_fade(self, frame: int) -> int:
        """The first frame at which, whatever follows this one, there can be a second of background."""
        block = frame // BLOCK_FRAMES
        is_known = self._first + len(self._powers) >= block
        quiet = self._quiet_at_end(frame) if is_known else _MIN_BLOCKS - 1
        return (block + _MIN_BLOCKS - quiet) * BLOCK_FRAMES

    def _quiet_at_end(self, end_frame: int) -> int:
        powers = self._until(end_frame)
        return _quiet(powers[: -_MIN_BLOCKS - 1 : -1], powers)

    def _until(self, end_frame: int) -> list[float]:
        blocks = end_frame // BLOCK_FRAMES - self._first
        if len(self._powers) < blocks:
            since = (self._first + len(self._powers)) * BLOCK_FRAMES
            frames, lost = self._read(since)
            self._powers += _powers(frames[: len(frames) - len(frames) % BLOCK_FRAMES], lost)
        return self._powers[: max(0, blocks)]


def _powers(frames: Samples, lost: Collection[int]) -> list[float]:
    """The mean power of each block of whole blocks."""
    blocks = frames.reshape(-1, BLOCK_FRAMES * frames.shape[1]).astype(np.float64)
    powers: list[float] = np.square(blocks).mean(axis=1).tolist()
    for block in {frame // BLOCK_FRAMES for frame in lost}:
        powers[block : block + 1] = [_UNKNOWN] * (block < len(powers))
    return powers


def _quiet(powers: Sequence[float], among: Sequence[float]) -> int:
    """How many of the powers, from the first on, are background among others."""
    loudest = max(among, default=0.0)
    quiet = (0 <= power * _RATIO < loudest for power in powers)
    return next((number for number, is_quiet in enumerate(quiet) if not is_quiet), len(powers))
