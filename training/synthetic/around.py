"""Other sounds of a telephone line: beside speech, as ringback before an answer, or behind it, as a radio."""

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np

from callmood.training.synthetic import sounds
from callmood.training.synthetic.arrays import Samples

_BESIDE: Final = 0.5
"""Share of the sounds that are before or after the speech; the others are behind it."""
_BESIDE_S: Final = (0.2, 0.9)  # the speech check cuts off a longer one
_BREAK_S: Final = (0.0, 0.3)
_BESIDE_DB: Final = (-12.0, 6.0)  # relative to the speech
_BEHIND_DB: Final = (-30.0, -12.0)


@cache
def _every() -> Sequence[Samples]:
    return [sound.samples for sound in sounds.every() if sound.kind != sounds.RECORDED]


def pool(*, held_out: bool = False) -> Sequence[Samples]:
    """The generated sounds for training, or those that are held out for a test."""
    return _every()[int(held_out) :: 2]


def add(speech: Samples, rng: np.random.Generator, *, held_out: bool = False) -> Samples:
    """Speech with a sound that is drawn for it.

    Args:
        speech: float [samples] at 8 kHz.
        rng: source of all draws.
        held_out: with a sound that is not for training.

    Returns:
        Float [samples] at 8 kHz, longer by a sound that is beside the speech.
    """
    drawn = pool(held_out=held_out)
    sound = drawn[int(rng.integers(len(drawn)))]
    if rng.random() >= _BESIDE:
        return speech + _part(sound, speech.size, speech, rng.uniform(*_BEHIND_DB), rng)
    size, gap = (round(rng.uniform(*seconds) * sounds.RATE_HZ) for seconds in (_BESIDE_S, _BREAK_S))
    parts = [_part(sound, size, speech, rng.uniform(*_BESIDE_DB), rng), np.zeros(gap), speech]
    return np.concatenate(parts if rng.random() < 0.5 else parts[::-1])  # noqa: PLR2004 - as often as not


def _part(sound: Samples, size: int, speech: Samples, level_db: float, rng: np.random.Generator) -> Samples:
    """A stretch of a sound, so much louder than the speech."""
    stretch = np.resize(np.roll(sound, -int(rng.integers(sound.size))), size)
    gain = 10 ** (level_db / 20) * np.sqrt(np.square(speech).mean() / np.square(sound).mean())
    part: Samples = stretch * gain
    return part
