"""Speech in the background that goes on: where the voice in front of it begins and ends in one utterance. Pure.

A television or a colleague leaves no silence between the sentences of the caller, so no silence closes the utterance.
The power of each 100 ms tells the two apart: what is 16 dB below the loudest 100 ms of the utterance for a whole second
is the background. Shorter, it can be a pause or a quiet word.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

import numpy as np

from callmood.worker.g711 import Samples

_BLOCK_FRAMES: Final = 5
"""100 ms, on an absolute grid."""
_MIN_BLOCKS: Final = 10
CHECK_FRAMES: Final = 25
"""How often an utterance is looked at, once it can hold a second of background."""
LEAST_FRAMES: Final = _MIN_BLOCKS * _BLOCK_FRAMES
"""Of an utterance that fades."""
_RATIO: Final = 10 ** (16 / 10)
_UNKNOWN: Final = -1.0
"""The power of a block that is lost: it is neither loud nor quiet."""


class Loudness:
    """The power of each block of the open utterance, computed once.

    Args:
        read: all frames [frames, samples] from one on that there are, and the indices of those that hold lost audio.
    """

    def __init__(self, read: Callable[[int], tuple[Samples, Collection[int]]]) -> None:
        self._read = read
        self.begin(0)

    def begin(self, frame: int) -> None:
        """An utterance begins at this frame, or in it."""
        self._first = -(-frame // _BLOCK_FRAMES)
        self._powers: list[float] = []
        self._least = (self._first + _MIN_BLOCKS) * _BLOCK_FRAMES  # where a second of background can end

    def onset(self, end_frame: int) -> int | None:
        """The frame with which the voice in front begins after background; None without a second of that."""
        powers = self._until(end_frame)
        quiet, blocks = _quiet(powers, max(powers, default=0.0))
        return (self._first + blocks) * _BLOCK_FRAMES if quiet >= _MIN_BLOCKS and blocks < len(powers) else None

    def fade(self, end_frame: int) -> int | None:
        """The frame from which on there is only background, to the end of a block; None without a second of it."""
        if end_frame < self._least:
            return None
        powers = self._until(end_frame)
        quiet, blocks = _quiet(reversed(powers), max(powers, default=0.0))
        self._least = end_frame + (_MIN_BLOCKS - quiet) * _BLOCK_FRAMES
        return end_frame - blocks * _BLOCK_FRAMES if quiet >= _MIN_BLOCKS else None

    def next_fade(self, frame: int) -> int:
        """No check before this frame finds a second of background, whatever follows the given one."""
        return -(-max(self._least, frame + 1) // CHECK_FRAMES) * CHECK_FRAMES

    def _until(self, end_frame: int) -> list[float]:
        blocks = end_frame // _BLOCK_FRAMES - self._first
        if len(self._powers) < blocks:
            frames, lost = self._read((self._first + len(self._powers)) * _BLOCK_FRAMES)
            self._powers += _powers(frames[: len(frames) - len(frames) % _BLOCK_FRAMES], lost)
        return self._powers[: max(0, blocks)]


def _powers(frames: Samples, lost: Collection[int]) -> list[float]:
    """The power of each block of whole blocks, without an offset, over its frames that are not lost."""
    length, wide = frames.shape[1], frames.astype(np.float64)  # in which the sums are exact, in any order
    samples = [_BLOCK_FRAMES * length] * (len(frames) // _BLOCK_FRAMES)
    for frame in lost:
        if frame < len(frames):
            wide[frame] = 0.0
            samples[frame // _BLOCK_FRAMES] -= length
    blocks = wide.reshape(-1, _BLOCK_FRAMES * length)
    sums, energies = blocks.sum(axis=1).tolist(), np.einsum("ij,ij->i", blocks, blocks).tolist()
    return [
        energy / known - (total / known) * (total / known) if known else _UNKNOWN
        for total, energy, known in zip(sums, energies, samples, strict=True)
    ]


def _quiet(powers: Iterable[float], loudest: float) -> tuple[int, int]:
    """How many of the powers, from the first on, are background, and how many there are up to the last of these."""
    quiet = blocks = 0
    for number, power in enumerate(powers, 1):
        if power * _RATIO >= loudest:
            break
        if power >= 0:
            quiet, blocks = quiet + 1, number
    return quiet, blocks
