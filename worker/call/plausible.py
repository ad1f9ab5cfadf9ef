"""Whether audio looks as if it had been decoded wrongly: bytes swapped, or the other law of G.711. Pure.

A wrong decoder makes noise of a voice: neighbouring samples differ more, and the level rises. So the samples are
encoded as they were, decoded in the other way and compared: if that is much smoother and quieter, it is right.
A voice that was decoded rightly becomes rougher and louder; music and noise become rougher, or not quieter.
"""

from typing import Final, NamedTuple

import numpy as np

from callmood.schemas.common import Encoding, LooksLike
from callmood.worker.g711 import Samples, encode_pcma, encode_pcmu, to_s16

_SMOOTHER: Final = 1.3
"""So many times the roughness of the other decoding: a voice has 1.6 to 4 times for G.711, and more for bytes."""
_LOUDER: Final = 1.5
_MAX_ROUGH: Final = 1.0
"""Most roughness of a voice; white noise has 2."""
_MIN_VALUES: Final = 64
"""Different samples that are needed: a steady tone can have so few that any order of them is smooth."""

_ENOUGH: Final = 4_000
"""Samples that tell: more change little and cost time."""
_PIECE: Final = 400

_EVERY_SAMPLE: Final = np.arange(65_536).astype(np.uint16).view(np.int16)
_AS_OTHER_LAW: Final = {
    LooksLike.PCMA: to_s16(Encoding.PCMA, encode_pcmu(_EVERY_SAMPLE)),
    LooksLike.PCMU: to_s16(Encoding.PCMU, encode_pcma(_EVERY_SAMPLE)),
}
"""Each sample, indexed as uint16, encoded by one law and decoded by the other."""


class _Sound(NamedTuple):
    roughness: float
    """Power of the differences of neighbouring samples, relative to the power of the samples."""
    power: float


def looks_like(pcm: Samples) -> LooksLike | None:
    """What the audio probably is instead; None if it looks right.

    Args:
        pcm: decoded samples, int16 [samples].
    """
    part = _spread(pcm)
    given = _sound(part)
    if given is None:
        return None
    laws = {name: table.take(part.view(np.uint16), mode="clip") for name, table in _AS_OTHER_LAW.items()}
    others = {LooksLike.SWAPPED_BYTES: part.byteswap(), **laws}
    sounds = {name: sound for name, samples in others.items() if (sound := _sound(samples)) is not None}
    likely = [name for name, sound in sounds.items() if _is_likelier(sound, given)]
    if not likely or np.count_nonzero(np.bincount(pcm.view(np.uint16))) < _MIN_VALUES:
        return None
    return min(likely, key=lambda name: sounds[name].roughness)


def _is_likelier(other: _Sound, given: _Sound) -> bool:
    is_voice = other.roughness < _MAX_ROUGH
    return is_voice and given.roughness > _SMOOTHER * other.roughness and given.power > _LOUDER * other.power


def _spread(pcm: Samples) -> Samples:
    """Pieces of the audio, spread over it: [pieces, samples]; all of it where it is short."""
    if pcm.size < 2 * _ENOUGH:
        return pcm.reshape(1, -1)
    pieces = pcm[: pcm.size // _PIECE * _PIECE].reshape(-1, _PIECE)
    return np.ascontiguousarray(pieces[:: pcm.size // _ENOUGH])


def _sound(pcm: Samples) -> _Sound | None:
    """The sound of pieces of audio [pieces, samples]."""
    samples = pcm.astype(np.float32)
    samples -= np.add.reduce(samples, axis=None) / max(1, samples.size)
    power = float(np.vdot(samples, samples)) / max(1, samples.size)
    if power <= 0:
        return None
    steps = samples[:, 1:] - samples[:, :-1]
    return _Sound(float(np.vdot(steps, steps)) / steps.size / power, power)
