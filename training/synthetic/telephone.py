"""Simulates a telephone line: band-pass, 8 kHz, level, noise, mu-law."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from callmood.training.synthetic.arrays import Samples
from callmood.worker.g711 import PCMU_TO_S16, encode_pcmu

RATE_HZ = 8000


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line: its pass band (edges are raised cosines), the speech level and the noise below it."""

    low_hz: float = 300.0
    high_hz: float = 3400.0
    level_dbfs: float = -24.0
    snr_db: float = 35.0


def draw(rng: np.random.Generator) -> Line:
    """Draw a line with the properties of call-centre lines."""
    return Line(rng.uniform(200, 400), rng.uniform(3100, 3700), rng.uniform(-32, -18), rng.uniform(15, 40))


def narrow(samples: Samples, rate_hz: int, line: Line) -> Samples:
    """Band-limit to the line, resample to 8 kHz and set the level.

    Args:
        samples: Float samples at `rate_hz`, speech only: their RMS becomes the line's level.
        rate_hz: Their rate.
        line: The line.

    Returns:
        Float samples in -1..1 at 8 kHz.
    """
    length = round(samples.size * RATE_HZ / rate_hz)
    # Whole milliseconds at both rates, with room for the filter's ringing: the FFT is circular.
    padded_ms = samples.size * 1000 // rate_hz + 100
    padded_ms += -padded_ms % 20
    spectrum = np.fft.rfft(samples, padded_ms * rate_hz // 1000)[: padded_ms * RATE_HZ // 2000 + 1]
    frequency_hz = np.arange(spectrum.size) * 1000 / padded_ms
    low = _edge(frequency_hz, line.low_hz - 100, line.low_hz)
    high = _edge(-frequency_hz, -line.high_hz - 200, -line.high_hz)
    narrowed = np.fft.irfft(spectrum * low * high, padded_ms * RATE_HZ // 1000)[:length]
    rms = max(float(np.sqrt(np.mean(narrowed**2))), 1e-9)
    level: Samples = narrowed * 10 ** (line.level_dbfs / 20) / rms
    return level


def transmit(samples: Samples, line: Line, rng: np.random.Generator) -> NDArray[np.int16]:
    """Add the line's noise to `samples` (8 kHz), clip, and send them through mu-law.

    Returns:
        What comes out at the far end: int16, one of the 255 values of G.711.
    """
    noise = rng.normal(size=samples.size) * 10 ** ((line.level_dbfs - line.snr_db) / 20)
    pcm = np.clip((samples + noise) * 32768, -32768, 32767).astype(np.int16)
    received: NDArray[np.int16] = PCMU_TO_S16[np.frombuffer(encode_pcmu(pcm), dtype=np.uint8)]
    return received


def _edge(frequency_hz: Samples, start_hz: float, end_hz: float) -> Samples:
    """0 below `start_hz`, 1 above `end_hz`, a raised cosine between."""
    position = np.clip((frequency_hz - start_hz) / (end_hz - start_hz), 0, 1)
    edge: Samples = 0.5 - 0.5 * np.cos(np.pi * position)
    return edge
