"""Call audio to the encoder's input, in batches, on the model's device: G.711 decoding, resampling to 16 kHz, padding.

Training prepares its audio here too, so that both use the same samples.
"""

from collections.abc import Sequence
from functools import cache
from math import gcd
from typing import Final

import numpy as np
import torch
from torch import Tensor

from callmood.schemas.common import Encoding
from callmood.worker.g711 import PCMA_TO_S16, PCMU_TO_S16

RATE_HZ: Final = 16_000
Sound = tuple[Encoding, int, bytes]
"""Encoding, sample rate in Hz, and the samples of one channel."""

_TABLES: Final = {Encoding.PCMU: PCMU_TO_S16, Encoding.PCMA: PCMA_TO_S16}
_DTYPES: Final = {Encoding.PCMU: "u1", Encoding.PCMA: "u1", Encoding.S16LE: "<i2", Encoding.S16BE: ">i2"}
_FULL_SCALE: Final = 32_768.0

# The resampler's low-pass: passes up to about 90 % of the lower Nyquist frequency, and is 100 dB down at it.
_ZERO_CROSSINGS: Final = 64
_ROLL_OFF: Final = 0.95
_KAISER_BETA: Final = 10.0


def prepare(sounds: Sequence[Sound], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Decode, resample and pad a batch of utterances.

    Args:
        sounds: at least one; encodings and rates may differ.
        device: where the work is done and the batch will be.

    Returns:
        Waveforms, float32 [batch, samples] at 16 kHz, full scale is 1, zero beyond the end; and their lengths,
        int64 [batch].

    Raises:
        ValueError: the bytes are no whole number of samples, or a rate is not positive.
    """
    lengths = [resampled(len(audio) // encoding.bytes_per_sample, rate_hz) for encoding, rate_hz, audio in sounds]
    waveforms = torch.zeros(len(sounds), max(lengths), device=device)
    for encoding, rate_hz in {(encoding, rate_hz) for encoding, rate_hz, _ in sounds}:
        rows = [row for row, sound in enumerate(sounds) if sound[:2] == (encoding, rate_hz)]
        group = resample(_decoded(encoding, [sounds[row][2] for row in rows], device), rate_hz)
        waveforms[_sent(torch.tensor(rows), device), : group.shape[1]] = group
    valid = _sent(torch.tensor(lengths), device)
    return waveforms.masked_fill_(torch.arange(max(lengths), device=device) >= valid[:, None], 0.0), valid


def waveform(sound: Sound, rate_hz: int) -> Tensor:
    """One utterance on the CPU: float32 [samples] at `rate_hz`, full scale is 1.

    Raises:
        ValueError: the bytes are no whole number of samples, or a rate is not positive.
    """
    encoding, old_hz, audio = sound
    return resample(_decoded(encoding, [audio], "cpu"), old_hz, rate_hz)[0]


def resampled(samples: int, rate_hz: int, new_hz: int = RATE_HZ) -> int:
    """Samples at `new_hz` that `samples` samples at `rate_hz` become."""
    if rate_hz <= 0:
        raise ValueError(f"the sample rate is {rate_hz} Hz: it must be positive")
    return -(-samples * new_hz // rate_hz)


def resample(waveforms: Tensor, rate_hz: int, new_hz: int = RATE_HZ) -> Tensor:
    """Bring float32 [batch, samples] from `rate_hz` to `new_hz`: [batch, `resampled(samples)`].

    A Kaiser-windowed sinc in polyphase form; beyond both ends there is silence. Linear phase, without delay.
    """
    if rate_hz == new_hz:
        return waveforms
    samples = waveforms.shape[1]
    common = gcd(rate_hz, new_hz)
    old, new = rate_hz // common, new_hz // common
    kernel = _kernel(waveforms.device, old, new)
    reach = (kernel.shape[2] - old) // 2
    padded = torch.nn.functional.pad(waveforms[:, None], (reach, reach + old))
    phases = torch.nn.functional.conv1d(padded, kernel, stride=old)  # one output channel per phase
    return phases.transpose(1, 2).flatten(1)[:, : resampled(samples, rate_hz, new_hz)]


def _decoded(encoding: Encoding, audios: Sequence[bytes], device: torch.device | str) -> Tensor:
    """Samples of one encoding as float32 [batch, samples], zero beyond the end."""
    arrays = [np.frombuffer(audio, dtype=_DTYPES[encoding]) for audio in audios]
    lengths = _sent(torch.tensor([array.size for array in arrays]), device)
    native = np.zeros(
        (len(arrays), max(array.size for array in arrays)), dtype=np.dtype(_DTYPES[encoding]).newbyteorder("=")
    )
    for row, array in zip(native, arrays, strict=True):
        row[: array.size] = array
    samples = _sent(torch.from_numpy(native), device)
    if encoding in _TABLES:
        samples = _table(device, encoding)[samples.int()]
        samples = samples.masked_fill_(torch.arange(samples.shape[1], device=device) >= lengths[:, None], 0)
    return samples.float() / _FULL_SCALE


def _sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """On the device, without waiting until a GPU has it."""
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@cache
def _table(device: torch.device | str, encoding: Encoding) -> Tensor:
    return torch.tensor(_TABLES[encoding], device=device)


@cache
def _kernel(device: torch.device, old: int, new: int) -> Tensor:
    """Filter bank [new, 1, taps]: phase `p` gives the sample at `p / new` of a block of `old` input samples."""
    pass_band = min(old, new) * _ROLL_OFF
    reach = int(np.ceil(_ZERO_CROSSINGS * old / pass_band))
    taps = np.arange(-reach, reach + old) / old
    crossings = (taps[None, :] - np.arange(new)[:, None] / new) * pass_band
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (crossings / _ZERO_CROSSINGS) ** 2, 0, None))) / np.i0(
        _KAISER_BETA
    )
    kernel = np.sinc(crossings) * np.where(np.abs(crossings) <= _ZERO_CROSSINGS, window, 0) * pass_band / old
    return torch.from_numpy(kernel[:, None, :].astype(np.float32)).to(device)
