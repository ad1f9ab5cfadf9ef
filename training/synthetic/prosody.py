"""Acted emotions of the synthetic speakers: heuristics from the prosody literature, not learned from speech.

Anger is fast, loud at high frequencies and rough; happiness high, wide and swinging; sadness low, flat, slow, dull and
trembling; neutral is the unchanged voice. Strength and deviations are drawn at random for each utterance, so that the
classes overlap.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from callmood.schemas.common import Emotion
from callmood.training.synthetic.arrays import Samples
from callmood.training.synthetic.speak import RATE_HZ, Pitch, Voice, speak

STRENGTH: Final = (0.85, 1.2)  # uniform; below 1 an utterance moves towards neutral


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """Sound of an utterance. Every field is zero for the unchanged voice, so that a style can be scaled."""

    pitch_percent: float = 0.0
    range_percent: float = 0.0
    rate_percent: float = 0.0
    tilt_db_per_octave: float = 0.0  # around 1 kHz
    shift_percent: float = 0.0  # of the whole spectrum: a smile shortens the vocal tract
    roughness: float = 0.0  # depth of an amplitude modulation near 70 Hz
    tremor: float = 0.0  # depth of one near 5 Hz
    vibrato_percent: float = 0.0  # swing of the pitch near 5.5 Hz
    pause_ms: float = 0.0  # added between sentences


STYLES: Final[Mapping[Emotion, Style]] = MappingProxyType(
    {
        Emotion.ANGER: Style(
            pitch_percent=15, range_percent=60, rate_percent=20, tilt_db_per_octave=5, roughness=0.7, pause_ms=-60
        ),
        Emotion.HAPPINESS: Style(
            pitch_percent=42,
            range_percent=100,
            rate_percent=6,
            tilt_db_per_octave=1,
            shift_percent=6,
            vibrato_percent=2.5,
        ),
        Emotion.NEUTRAL: Style(),
        Emotion.SADNESS: Style(
            pitch_percent=-22, range_percent=-50, rate_percent=-22, tilt_db_per_octave=-5, tremor=0.55, pause_ms=120
        ),
    }
)
# Standard deviations of variation that carries no emotion.
SPREAD: Final = Style(
    pitch_percent=6,
    range_percent=12,
    rate_percent=6,
    tilt_db_per_octave=0.8,
    shift_percent=1,
    roughness=0.05,
    tremor=0.05,
    vibrato_percent=0.2,
    pause_ms=30,
)
_POSITIVE: Final = frozenset({"roughness", "tremor", "vibrato_percent"})
_PAUSE_MS: Final = 160.0


def draw(emotion: Emotion, rng: np.random.Generator, strength: float | None = None) -> Style:
    """Draw the style of one utterance; `strength` is 1 for the full emotion, and drawn if it is None."""
    strength = rng.uniform(*STRENGTH) if strength is None else strength
    values = {}
    for field in dataclasses.fields(Style):
        value = strength * getattr(STYLES[emotion], field.name) + rng.normal() * getattr(SPREAD, field.name)
        values[field.name] = max(value, 0.0) if field.name in _POSITIVE else value
    return Style(**values)


def act(sentences: Sequence[str], voice: Voice, style: Style, rng: np.random.Generator) -> Samples:
    """Speak sentences in a style, as one utterance.

    Returns:
        Float samples in -1..1 at `speak.RATE_HZ`, without silence around them.
    """
    pitch = Pitch(style.pitch_percent, style.range_percent, style.rate_percent)
    pause = np.zeros(round(max(_PAUSE_MS + style.pause_ms, 40.0) * RATE_HZ / 1000))
    parts: list[Samples] = []
    for sentence in sentences:
        parts += [speak(sentence, voice, pitch), pause]
    samples = np.concatenate(parts[:-1])
    samples = _warp(samples, 1 + style.shift_percent / 100, style.vibrato_percent / 100, rng)
    samples = _tilt(samples, style.tilt_db_per_octave)
    samples = _modulate(samples, 70.0 * rng.uniform(0.8, 1.2), style.roughness, rng)
    samples = _modulate(samples, 5.0 * rng.uniform(0.8, 1.2), style.tremor, rng)
    return samples / max(float(np.abs(samples).max(initial=0)), 1e-9)


def _warp(samples: Samples, speed: float, swing: float, rng: np.random.Generator) -> Samples:
    """Play at `speed`, which swings by `swing` around it."""
    time_s = np.arange(int(samples.size / speed)) / RATE_HZ
    rate = 2 * np.pi * 5.5 * rng.uniform(0.9, 1.1)
    position_s = time_s * speed + swing / rate * np.sin(rate * time_s + rng.uniform(0, 2 * np.pi))
    return np.interp(position_s * RATE_HZ, np.arange(samples.size), samples)


def _tilt(samples: Samples, db_per_octave: float) -> Samples:
    spectrum = np.fft.rfft(samples)
    frequency_hz = np.clip(np.fft.rfftfreq(samples.size, 1 / RATE_HZ), 200, 4000)
    gain = 10 ** (db_per_octave * np.log2(frequency_hz / 1000) / 20)
    return np.fft.irfft(spectrum * gain, samples.size)


def _modulate(samples: Samples, rate_hz: float, depth: float, rng: np.random.Generator) -> Samples:
    # The rate varies by a tenth: no voice trembles at a constant rate.
    wander = np.interp(np.arange(samples.size), np.linspace(0, samples.size, 20), rng.normal(1, 0.1, 20))
    phase = 2 * np.pi * np.cumsum(rate_hz * wander) / RATE_HZ + rng.uniform(0, 2 * np.pi)
    return samples * (1 + min(depth, 0.9) * np.sin(phase))
