"""Other sounds of a telephone line: beside speech, as ringback before an answer, or behind it, as a radio."""

from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from callmood.training.synthetic import sounds
from callmood.training.synthetic.arrays import Samples

_BESIDE: Final = 0.5
"""Share of the sounds that are before or after the speech; the others are behind it."""
_BESIDE_S: Final = (0.2, 0.9)  # the speech check cuts off a longer one
_BREAK_S: Final = (0.0, 0.3)
_BESIDE_DB: Final = (-12.0, 6.0)  # relative to the speech
_BEHIND_DB: Final = (-30.0, -12.0)
_PAUSE: Final = 0.25
"""Share of a sound's mean power up to which a stretch counts as a pause: the rest of it, scaled, would be too loud."""

Waveform: TypeAlias = NDArray[np.float32]


@cache
def _kinds() -> Sequence[Sequence[Waveform]]:
    """The sounds of each kind, in an order that is drawn; countries with the same tone have one sound."""
    kinds: dict[str, dict[bytes, Waveform]] = {}
    for sound in sounds.every(recorded=False):
        kept = sound.samples.astype(np.float32)
        kinds.setdefault(sound.kind, {})[kept.tobytes()] = kept
    rng = np.random.default_rng(1)
    return [[list(kind.values())[i] for i in rng.permutation(len(kind))] for kind in kinds.values()]


@cache
def pool(*, held_out: bool = False) -> Sequence[Waveform]:
    """The generated sounds for training, or those that are held out for a test: half of each kind."""
    return [sound for kind in _kinds() for sound in kind[int(held_out) :: 2]]


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


def _part(sound: Waveform, size: int, speech: Samples, level_db: float, rng: np.random.Generator) -> Samples:
    """A stretch of a sound, so much louder than the speech; not one of a pause."""
    power = 0.0
    while power <= _PAUSE * np.square(sound).mean():
        stretch = np.resize(np.roll(sound, -int(rng.integers(sound.size))), size)
        power = float(np.square(stretch).mean())
    part: Samples = stretch * np.sqrt(np.square(speech).mean() / power) * 10 ** (level_db / 20)
    return part
