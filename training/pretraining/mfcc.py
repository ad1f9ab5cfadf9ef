"""Mel-frequency cepstral coefficients as Kaldi computes them, with their first and second differences."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from callmood.worker.model.audio import RATE_HZ

HOP: Final = RATE_HZ // 100
WINDOW: Final = RATE_HZ // 40
WIDTH: Final = 39
_BANDS: Final = 23
_COEFFICIENTS: Final = WIDTH // 3
_FFT: Final = 512
_PRE_EMPHASIS: Final = 0.97
_LIFTER: Final = 22
_LOWEST_POWER: Final = float(torch.finfo(torch.float32).eps)
_SLOPE: Final = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]) / 10  # regression over five frames

_BANK: Final = torch.from_numpy(
    mel_filter_bank(
        _FFT // 2 + 1, _BANDS, 20.0, RATE_HZ / 2, RATE_HZ, mel_scale="kaldi", triangularize_in_mel_space=True
    )
)
_ANGLES: Final = torch.outer(torch.arange(_BANDS, dtype=torch.float64) + 0.5, torch.arange(_COEFFICIENTS).double())
_SCALES: Final = torch.tensor([1.0] + [2.0] * (_COEFFICIENTS - 1), dtype=torch.float64).div(_BANDS).sqrt()
_COSINES: Final = torch.cos(torch.pi / _BANDS * _ANGLES) * _SCALES  # the orthonormal DCT-II
_WEIGHTS: Final = 1 + _LIFTER / 2 * torch.sin(torch.pi * torch.arange(_COEFFICIENTS, dtype=torch.float64) / _LIFTER)
_POVEY: Final = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64) ** 0.85


def mfcc(waveform: Tensor) -> NDArray[np.float32]:
    """The 39 features of HuBERT's first iteration.

    Args:
        waveform: float32 [samples], 16 kHz, at least `WINDOW` samples.

    Returns:
        [frames, 39], a frame for each whole window, every 10 ms.
    """
    frames = waveform.double().unfold(0, WINDOW, HOP)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = torch.nn.functional.pad(frames[:, None], (1, 0), mode="replicate")[:, 0, :-1]
    power = torch.fft.rfft((frames - _PRE_EMPHASIS * before) * _POVEY, n=_FFT).abs() ** 2
    cepstra = (power @ _BANK).clamp(min=_LOWEST_POWER).log() @ _COSINES * _WEIGHTS
    first = _differences(cepstra)
    found: NDArray[np.float32] = torch.cat([cepstra, first, _differences(first)], dim=1).float().numpy()
    return found


def _differences(features: Tensor) -> Tensor:
    """Slope of each column over five frames: [frames, columns]."""
    around = torch.nn.functional.pad(features.T[None], (2, 2), mode="replicate")[0]
    return (around.unfold(1, 5, 1) @ _SLOPE.to(features)).T
