"""Frames that no voice makes, whatever the network finds: sounds that do not move, and the keys of a telephone. Pure.

Mains hum, notes of an instrument and tones keep their spectrum for a quarter of a second; a voice, whose pitch glides,
rarely does. Keys are two tones of Q.23, dialled as fast as syllables.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.bool_]
Waveform = npt.NDArray[np.float32]

RATE_HZ: Final = 8_000
FRAME: Final = 256

_SIZE: Final = 2 * FRAME
_HZ: Final = np.fft.rfftfreq(_SIZE, 1 / RATE_HZ)
_WINDOW: Final = np.hanning(_SIZE).astype(np.float32)

_APART: Final = 8
"""Frames, 256 ms, between spectra that are compared: at half of it, a long vowel of a high voice has not moved."""
_STILL: Final = 0.85
"""Correlation of two spectra from which a sound has not moved; bench/RESULTS.md has the errors."""
_PITCHES_HZ: Final = (200, 2_000)
_FLOOR: Final = 1e-5  # of the strongest part: below is the noise of the line
_FLAT: Final = np.float32(1)  # a spectrum without anything in it; a voice's has 5 to 20

_KEYS: Final = ((697, 770, 852, 941), (1209, 1336, 1477, 1633))
_NEAR_HZ: Final = 40
_BAND_HZ: Final = (300, 3_700)
_OF_KEYS: Final = 0.75  # of the band's power, and of it at least this in each of the two tones:
_OF_TONE: Final = 0.1


def unvoiced(waveform: Waveform) -> Frames:
    """Which frames [frames] of a waveform, [samples] at 8 kHz, no voice makes. Silence fills the last frame."""
    frames = -(-waveform.size // FRAME)
    padded = np.pad(waveform, (FRAME // 2, frames * FRAME - waveform.size + FRAME // 2))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, _SIZE)[::FRAME]
    power = np.square(np.abs(np.fft.rfft(pieces * _WINDOW))).astype(np.float32)
    return _still(power[:, _bins(*_PITCHES_HZ)]) | _dialled(power)


def _bins(low_hz: float, high_hz: float) -> slice:
    return slice(*np.searchsorted(_HZ, (low_hz, high_hz)).tolist())


def _still(power: Waveform) -> Frames:
    """Whether the spectrum, [frames, frequencies], is the same shortly before or after."""
    still = np.zeros(len(power), np.bool_)
    levels = np.log(power + _FLOOR * power.max(initial=0) + np.float32(1e-12))
    levels -= levels.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(levels).sum(axis=1, keepdims=True))
    levels *= (spread > _FLAT) / np.maximum(spread, _FLAT)
    alike = (levels[_APART:] * levels[:-_APART]).sum(axis=1) > _STILL
    still[_APART:] |= alike
    still[:-_APART] |= alike
    return still


def _dialled(power: Waveform) -> Frames:
    """Whether a key is pressed, or was, or will be, a frame away."""
    whole = power[:, _bins(*_BAND_HZ)].sum(axis=1) + np.float32(1e-12)
    tones = [np.max([power[:, abs(_HZ - hz) <= _NEAR_HZ].sum(axis=1) for hz in some], axis=0) / whole for some in _KEYS]
    pressed = (np.minimum(*tones) > _OF_TONE) & (sum(tones) > _OF_KEYS)
    around: Frames = pressed.copy()
    around[1:] |= pressed[:-1]
    around[:-1] |= pressed[1:]
    return around
