"""How an utterance sounds: level, noise, clipping, bandwidth. Pure; deterministic; below a millisecond for 5 s.

The figures qualify a label (a clipped or noisy utterance is worth less); they are estimates from the utterance alone.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from callmood.worker.records import Acoustics

_FULL_SCALE: Final = 32768.0
_FLOOR_DBFS: Final = -96.0  # below one step of 16 bits
_CLIPPED: Final = 32_000  # G.711 ends at 32124 (mu-law) and 32256 (A-law)
_FRAME_MS: Final = 20
_MAX_SNR_DB: Final = 60.0
_QUIET, _LOUD = 10, 75  # percentiles of frame power taken for the pauses and for the speech
_SPECTRUM_MS: Final = 32
_MAX_SPECTRA: Final = 64  # spread over the utterance; more change little and cost time
_BAND_FLOOR_DB: Final = -40.0  # of the strongest band; in speech, mu-law's noise in an empty band lies below
_BAND_HZ: Final = 125


def measure(pcm: npt.NDArray[np.int16], rate_hz: int, noise_dbfs: float | None = None) -> Acoustics:
    """Measure one utterance.

    Level is the RMS of all samples; 0 dBFS is a full-scale square wave. The signal-to-noise ratio compares 20 ms frames
    (an utterance holds pauses and padding): the power of the 75th percentile, less the noise, over the power of the
    10th percentile, or over `noise_dbfs` where the channel's noise is known; within -20..60 dB. Clipping is the share
    of samples at the end of what G.711 can carry. Bandwidth is the upper edge of the highest 125 Hz band within 40 dB
    of the strongest in the mean spectrum.

    Args:
        pcm: samples, shape [samples].
        rate_hz: their rate.
        noise_dbfs: noise level of the channel, where it is known from silence.
    """
    if not pcm.size:
        return Acoustics(rms_dbfs=_FLOOR_DBFS, snr_db=0.0, clipping=0.0, bandwidth_hz=0)
    samples = pcm.astype(np.float32) / np.float32(_FULL_SCALE)
    frame_power = _frame_power(samples, rate_hz * _FRAME_MS // 1000)
    power = float(np.dot(samples, samples)) / samples.size
    peak = max(int(pcm.max()), -int(pcm.min()))
    clipped = int(np.count_nonzero((pcm >= _CLIPPED) | (pcm <= -_CLIPPED))) if peak >= _CLIPPED else 0
    return Acoustics(
        rms_dbfs=round(_db(power), 1),
        snr_db=round(_snr_db(frame_power, noise_dbfs), 1),
        clipping=round(clipped / pcm.size, 6),
        bandwidth_hz=_bandwidth_hz(samples, rate_hz),
    )


def _frame_power(samples: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    whole = samples[: max(1, samples.size // length) * length]
    frames = whole.reshape(-1, min(length, whole.size))
    power: npt.NDArray[np.float32] = np.einsum("ij,ij->i", frames, frames) / frames.shape[1]
    return power


def _snr_db(frame_power: npt.NDArray[np.float32], noise_dbfs: float | None) -> float:
    quiet, loud = (float(p) for p in np.percentile(frame_power, (_QUIET, _LOUD)))
    floor = 10 ** (_FLOOR_DBFS / 10)
    noise = max(quiet if noise_dbfs is None else 10 ** (noise_dbfs / 10), floor)
    return float(np.clip(_db(max(loud - noise, floor)) - _db(noise), -20.0, _MAX_SNR_DB))


def _bandwidth_hz(samples: npt.NDArray[np.float32], rate_hz: int) -> int:
    """Highest frequency above the floor, in steps of a band; 0 for silence."""
    size = rate_hz * _SPECTRUM_MS // 1000
    if samples.size < size:
        samples = np.pad(samples, (0, size - samples.size))
    frames = samples[: samples.size // size * size].reshape(-1, size)
    frames = frames[:: -(-len(frames) // _MAX_SPECTRA)]
    spectrum = np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)
    bins = _BAND_HZ * _SPECTRUM_MS // 1000
    bands = power[1 : 1 + (power.size - 1) // bins * bins].reshape(-1, bins).sum(axis=1)
    strongest = float(bands.max())
    if strongest <= 0:
        return 0
    return int(np.flatnonzero(bands > strongest * 10 ** (_BAND_FLOOR_DB / 10))[-1] + 1) * _BAND_HZ


def _db(power: float) -> float:
    return max(10 * float(np.log10(power)) if power > 0 else _FLOOR_DBFS, _FLOOR_DBFS)
