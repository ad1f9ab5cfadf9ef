"""The simulated line."""

import numpy as np
import pytest

from callmood.training.synthetic import telephone
from callmood.worker.g711 import PCMU_TO_S16

RATE_HZ = 22050


def tone(frequency_hz: float, seconds: float = 0.5) -> telephone.Samples:
    """A sine."""
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def level_db(samples: telephone.Samples) -> float:
    """RMS."""
    return float(10 * np.log10(np.mean(samples**2)))


@pytest.mark.parametrize(("frequency_hz", "lost_db"), [(100, 40), (3800, 40), (5000, 40), (10_000, 40)])
def test_what_lies_outside_the_band_is_gone(frequency_hz: float, lost_db: float):
    """Next to speech in the band, a tone outside it loses at least 40 dB, also above the new Nyquist frequency."""
    line = telephone.Line()
    with_tone, without = (telephone.narrow(tone(1000) + extra, RATE_HZ, line) for extra in (tone(frequency_hz), 0.0))
    middle = slice(800, -800)
    assert level_db((with_tone - without)[middle]) < level_db(without[middle]) - lost_db


def test_the_band_keeps_time_and_pitch():
    """A tone in the band comes out as the same tone, at 8 kHz, in phase and at the line's level."""
    line = telephone.Line(level_dbfs=-20)
    narrowed = telephone.narrow(tone(1000, 1.0), RATE_HZ, line)
    expected = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000) * np.sqrt(2) * 0.1
    np.testing.assert_allclose(narrowed[400:-400], expected[400:-400], atol=1e-3)


def test_the_far_end_hears_mu_law():
    """Every received sample is a value of G.711, and quiet samples are not all zero."""
    line = telephone.Line(level_dbfs=-26, snr_db=20)
    received = telephone.transmit(np.zeros(4000), line, np.random.default_rng(1))
    assert set(received.tolist()) <= set(PCMU_TO_S16.tolist())
    assert level_db(received / 32768) == pytest.approx(-46, abs=1)


def test_loud_speech_is_clipped_and_does_not_wrap():
    """Beyond full scale the sign stays."""
    received = telephone.transmit(np.full(800, 3.0), telephone.Line(), np.random.default_rng(1))
    assert received.min() > 30_000
