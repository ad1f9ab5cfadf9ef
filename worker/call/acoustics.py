"""Acoustics of an utterance: level, noise, clipping, bandwidth. Pure; deterministic; under 1 ms for 5 s of audio.

The figures help to judge a label (one of a clipped or noisy utterance is less reliable). They are estimates from the
utterance alone.
"""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from callmood.worker.records import Acoustics
from callmood.worker.speech.percentiles import percentiles

_FULL_SCALE: Final = 32768.0
_FLOOR_DBFS: Final = -96.0  # below one step of 16 bits
_CLIPPED: Final = 32_000  # G.711 ends at 32124 (mu-law) and 32256 (A-law)
_FLAT_FROM: Final = 650  # -34 dBFS: below, few quantisation steps are left, and flat tops mean nothing
_FLAT_OVER_NEXT: Final = 4  # a sine in mu-law reaches its highest step 2.4 times as often as the next
_MIN_RUN: Final = 3  # samples of a flat top
_FRAME_MS: Final = 20
_MAX_SNR_DB: Final = 60.0
_QUIETEST: Final = 25  # percentile of the frames' spread: their mean is the offset
_QUIET, _LOUD = 10, 75  # percentiles of frame power taken for the pauses and for the speech
_SPECTRUM_MS: Final = 32
_SPECTRA: Final = 32  # at least, and at most twice as many, spread over the utterance; more change little
_BAND_FLOOR_DB: Final = -40.0  # of the strongest band; in speech, mu-law's noise in an empty band lies below
_BAND_HZ: Final = 125


def measure(pcm: npt.NDArray[np.int16], rate_hz: int, noise_dbfs: float | None = None) -> Acoustics:
    """Measure one utterance.

    The DC offset of cheap gateways counts nowhere: it is the mean of the quietest quarter of the 20 ms frames.

    Level is the RMS of all samples; 0 dBFS is a full-scale square wave. The signal-to-noise ratio compares frames (an
    utterance holds pauses and padding): the power of the 75th percentile, less the noise, over the power of the 10th
    percentile, or over `noise_dbfs` where the channel's noise is known; within -20..60 dB. Clipping is the share of
    samples at the end of what G.711 can carry, or in flat tops below it, where audio was clipped and then attenuated.
    Resampling after the clipping removes flat tops, and then none is found. Bandwidth is the upper edge of the highest
    125 Hz band within 40 dB of the strongest in the mean spectrum.

    Args:
        pcm: samples, shape [samples].
        rate_hz: their rate.
        noise_dbfs: noise level of the channel, where it is known from silence.
    """
    if not pcm.size:
        return Acoustics(rms_dbfs=_FLOOR_DBFS, snr_db=0.0, clipping=0.0, bandwidth_hz=0)
    samples = pcm * np.float32(1 / _FULL_SCALE)
    samples -= np.add.reduce(samples) / samples.size  # what remains of the offset is small: float32 can tell it
    offset, frame_power = _without_offset(_framed(samples, rate_hz * _FRAME_MS // 1000))
    samples -= offset
    power = float(np.dot(samples, samples)) / samples.size
    return Acoustics(
        rms_dbfs=round(_db(power), 1),
        snr_db=round(_snr_db(frame_power, noise_dbfs), 1),
        clipping=round(_clipped(pcm) / pcm.size, 6),
        bandwidth_hz=_bandwidth_hz(samples, rate_hz),
    )


def _clipped(pcm: npt.NDArray[np.int16]) -> int:
    """Number of samples at full scale; without any, of those in flat tops."""
    highest, lowest = int(pcm.max()), int(pcm.min())
    if max(highest, -lowest) >= _CLIPPED:
        return int(np.count_nonzero((pcm >= _CLIPPED) | (pcm <= -_CLIPPED)))
    return _flat(pcm, highest) + _flat(-pcm, -lowest) if highest - lowest >= 2 * _FLAT_FROM else 0


def _flat(pcm: npt.NDArray[np.int16], highest: int) -> int:
    """Samples in runs of three and more at the highest value, if they are far more than at the next lower one."""
    at = pcm == highest
    if np.count_nonzero(at) < _MIN_RUN:
        return 0
    inner = at[:-2] & at[1:-1] & at[2:]
    if not inner.any():
        return 0
    below = pcm[~at]
    following = int(np.count_nonzero(below == below.max())) if below.size else 0
    if np.count_nonzero(at) < _FLAT_OVER_NEXT * following:
        return 0
    runs = int(inner[0]) + int(np.count_nonzero(inner[1:] & ~inner[:-1]))
    return int(np.count_nonzero(inner)) + 2 * runs


def _framed(samples: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    """Whole frames: [frames, length]; an utterance shorter than a frame is one."""
    whole = samples[: max(1, samples.size // length) * length]
    return whole.reshape(-1, min(length, whole.size))


def _without_offset(frames: npt.NDArray[np.float32]) -> tuple[np.float32, npt.NDArray[np.float32]]:
    """The offset of the samples, and the power of each frame without it; frames: [frames, samples]."""
    power = np.einsum("ij,ij->i", frames, frames) / frames.shape[1]
    means = np.add.reduce(frames, axis=1) / frames.shape[1]
    spread = power - means * means
    (quiet,) = percentiles(spread, _QUIETEST)
    quietest = means[spread <= quiet]
    offset: np.float32 = np.add.reduce(quietest) / quietest.dtype.type(quietest.size)
    return offset, power - 2 * offset * means + offset * offset


def _snr_db(frame_power: npt.NDArray[np.float32], noise_dbfs: float | None) -> float:
    quiet, loud = percentiles(frame_power, _QUIET, _LOUD)
    floor = 10 ** (_FLOOR_DBFS / 10)
    noise = max(quiet if noise_dbfs is None else 10 ** (noise_dbfs / 10), floor)
    return float(np.clip(_db(max(loud - noise, floor)) - _db(noise), -20.0, _MAX_SNR_DB))


def _bandwidth_hz(samples: npt.NDArray[np.float32], rate_hz: int) -> int:
    """Highest frequency above the floor, in steps of a band; 0 for silence."""
    size = rate_hz * _SPECTRUM_MS // 1000
    if samples.size < size:
        samples = np.pad(samples, (0, size - samples.size))
    frames = samples[: samples.size // size * size].reshape(-1, size)
    frames = frames[:: max(1, len(frames) // _SPECTRA)]
    spectrum = np.fft.rfft(frames * _window(size), axis=1)
    power = np.add.reduce(spectrum.real**2 + spectrum.imag**2, axis=0)
    bins = _BAND_HZ * _SPECTRUM_MS // 1000
    bands = power[1 : 1 + (power.size - 1) // bins * bins].reshape(-1, bins).sum(axis=1)
    strongest = float(bands.max())
    if strongest <= 0:
        return 0
    return int(np.flatnonzero(bands > strongest * 10 ** (_BAND_FLOOR_DB / 10))[-1] + 1) * _BAND_HZ


@lru_cache(maxsize=8)
def _window(size: int) -> npt.NDArray[np.float32]:
    window: npt.NDArray[np.float32] = np.hanning(size).astype(np.float32)
    window.setflags(write=False)
    return window


def _db(power: float) -> float:
    return max(10 * float(np.log10(power)) if power > 0 else _FLOOR_DBFS, _FLOOR_DBFS)
