"""Utterances for measurements: as long as those of calls, and something like voices."""

from typing import Final

import numpy as np

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcmu
from callmood.worker.model.audio import Sound

LONGEST_S: Final = 15.0
_RATE_HZ: Final = 8_000
_MEDIAN_S, _SIGMA, _SHORTEST_S = 2.5, 0.7, 0.4


def lengths_s(number: int, seed: int) -> list[float]:
    """Lengths of utterances as calls have them: lognormal, median 2.5 s, at most 15 s."""
    drawn = np.random.default_rng(seed).lognormal(np.log(_MEDIAN_S), _SIGMA, number)
    return [float(length) for length in drawn.clip(_SHORTEST_S, LONGEST_S)]


def speak(seconds: float, seed: int) -> Sound:
    """Something like a voice, as PCMU: harmonics of a moving pitch through moving resonances, syllables, some noise."""
    random = np.random.default_rng(seed)
    times = np.arange(int(seconds * _RATE_HZ)) / _RATE_HZ
    pitch_hz = random.uniform(80, 300) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.2, 2) * times))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / _RATE_HZ
    centres_hz, width_hz = random.uniform(200, 3_400, 3), random.uniform(80, 500)
    samples = random.normal(0, 10 ** random.uniform(-2.5, -0.5), times.size)
    for harmonic in range(1, 25):
        loudness = sum(np.exp(-(((harmonic * pitch_hz - centre) / width_hz) ** 2)) for centre in centres_hz)
        samples += loudness * np.sin(harmonic * phase)
    samples *= 1 + np.sin(2 * np.pi * random.uniform(2, 6) * times)
    scaled = samples / np.abs(samples).max() * 10 ** random.uniform(-1.5, -0.1) * 32_767
    return Encoding.PCMU, _RATE_HZ, encode_pcmu(scaled.astype(np.int16))


def duration_s(sound: Sound) -> float:
    """Length of an utterance."""
    encoding, rate_hz, data = sound
    return len(data) / (encoding.bytes_per_sample * rate_hz)
