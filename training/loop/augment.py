"""Makes speech sound as over a telephone: level, other sounds, noise, band-pass, 8 kHz, G.711, lost packets.

The steps and their ranges are those of call recordings (Fernandez-Gallego & Toledano 2022 for packet loss). The
worker's own resampler brings the batch back to 16 kHz afterwards.
"""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from callmood.schemas.common import Encoding
from callmood.training.options import AugmentConfig
from callmood.training.synthetic import around, telephone
from callmood.training.synthetic.arrays import Samples
from callmood.worker import g711

RATE_HZ: Final = telephone.RATE_HZ
Pcm = NDArray[np.int16]

_FRAME: Final = RATE_HZ // 50  # 20 ms, the packet of nearly every line
_BURST_FRAMES: Final = (1.0, 3.0)  # mean length of a burst, drawn
_FADE: Final = 0.5  # a repeated packet is this much quieter than the one before
_LEVEL_DBFS: Final = (-32.0, -12.0)
_QUIET_DB: Final = 60.0  # signal to noise of a line without noise

CONDITIONS: Final = {
    "clean": AugmentConfig(),
    "8 kHz": AugmentConfig(probability=1, noise=0, mu_law=0, a_law=0, loss=0),
    "8 kHz, mu-law": AugmentConfig(probability=1, noise=0, mu_law=1, a_law=0, loss=0),
    "8 kHz, mu-law, noise": AugmentConfig(probability=1, noise=1, noise_snr_db=(10, 10), mu_law=1, a_law=0, loss=0),
    "8 kHz, mu-law, noise, loss": AugmentConfig(
        probability=1, noise=1, noise_snr_db=(10, 10), mu_law=1, a_law=0, loss=1, loss_rate=0.1
    ),
}
"""The lines of a robustness table; each adds to the one before."""


def telephone_line(samples: Pcm, rate_hz: int, config: AugmentConfig, rng: np.random.Generator) -> Pcm:
    """Send an utterance over a randomly drawn line.

    Args:
        samples: int16 [samples].
        rate_hz: their rate.
        config: probabilities of the steps; the caller applies `probability`.
        rng: source of all draws.

    Returns:
        int16 at 8 kHz, of the same duration, and of a sound that is beside it.
    """
    line = dataclasses.replace(telephone.draw(rng), level_dbfs=rng.uniform(*_LEVEL_DBFS))
    narrow = telephone.narrow(samples / 32768, rate_hz, line)
    if config.sounds and rng.random() < config.sounds:
        narrow = around.add(narrow, rng)
    snr_db = rng.uniform(config.noise_snr_db[0], config.noise_snr_db[1]) if rng.random() < config.noise else _QUIET_DB
    narrow = narrow + noise(narrow.size, rng) * 10 ** ((line.level_dbfs - snr_db) / 20)
    pcm = np.clip(narrow * 32768, -32768, 32767).astype(np.int16)
    law = rng.random()
    if law < config.mu_law:
        pcm = g711.to_s16(Encoding.PCMU, g711.encode_pcmu(pcm))
    elif law < config.mu_law + config.a_law:
        pcm = g711.to_s16(Encoding.PCMA, g711.encode_pcma(pcm))
    if rng.random() < config.loss:
        burst = rng.uniform(*_BURST_FRAMES)
        lost = lost_packets(-(-pcm.size // _FRAME), rng.uniform(0, config.loss_rate), burst, rng)
        pcm = conceal(pcm, lost, repeat=bool(rng.random() < 0.5))  # noqa: PLR2004 - as often as not
    return pcm


def noise(size: int, rng: np.random.Generator) -> Samples:
    """Noise of unit power, [size]: between white and pink, as in offices and on lines."""
    spectrum = np.fft.rfft(rng.normal(size=size))
    spectrum *= np.maximum(np.arange(spectrum.size), 1.0) ** (-rng.uniform(0, 1) / 2)
    coloured: Samples = np.fft.irfft(spectrum, size)
    return coloured / max(float(np.sqrt(np.mean(coloured**2))), 1e-9)


def lost_packets(count: int, rate: float, burst: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of `count` packets are lost, by the model of Gilbert and Elliott: one state loses all packets, one none.

    Args:
        count: packets.
        rate: mean share that is lost, below 1.
        burst: mean length of a burst, in packets.
        rng: source of all draws.
    """
    end = 1 / burst
    begin = min(rate * end / (1 - rate), 1.0)
    lost = np.zeros(count, dtype=bool)
    is_lost = bool(rng.random() < rate)
    for index, draw in enumerate(rng.random(count)):
        lost[index] = is_lost
        is_lost = draw >= end if is_lost else draw < begin
    return lost


def conceal(pcm: Pcm, lost: NDArray[np.bool_], *, repeat: bool) -> Pcm:
    """Fill lost packets [packets] of `pcm` (int16 at 8 kHz) with the last good one, fading, or with silence."""
    filled = pcm.copy()
    last: NDArray[np.float64] = np.zeros(_FRAME)
    for index, is_lost in enumerate(lost):
        frame = filled[index * _FRAME : (index + 1) * _FRAME]
        if is_lost:
            last = last * _FADE
            frame[:] = last[: frame.size] if repeat else 0
        else:
            last = np.zeros(_FRAME)
            last[: frame.size] = frame
    return filled
