"""Statistics over valid samples and frames only: the padding of a batch does not count."""

from typing import Final

import torch
from torch import Tensor, nn

_OUTPUT_EPS: Final = 1e-5  # as torch's layer_norm, with which SpeechBrain's checkpoints were trained


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Mask [batch, size]: True below each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def normalized(waveforms: Tensor, valid: Tensor, eps: float) -> Tensor:
    """Zero mean and unit variance over the valid samples of each row; the padding is zero and stays zero."""
    count = valid.sum(dim=1, keepdim=True)
    centred = (waveforms - waveforms.sum(dim=1, keepdim=True) / count) * valid
    return centred / (centred.square().sum(dim=1, keepdim=True) / count + eps).sqrt()


def group_norm(features: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm with one group per channel over valid frames only: [batch, channels, frames], statistics in float32."""
    wide = features.float()
    mask = valid[:, None, :]
    count = mask.sum(dim=2, keepdim=True)
    mean = (wide * mask).sum(dim=2, keepdim=True) / count
    centred = wide - mean
    variance = (centred * mask).square().sum(dim=2, keepdim=True) / count
    scaled = centred * (variance + norm.eps).rsqrt()
    return (scaled * norm.weight[:, None] + norm.bias[:, None]).to(features.dtype)


def mean(hidden: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid frames: [batch, frames, width] -> [batch, width]."""
    return (hidden * valid[:, :, None]).sum(dim=1) / valid.sum(dim=1, keepdim=True)


def output_norm(hidden: Tensor, valid: Tensor) -> Tensor:
    """Each utterance to zero mean and unit variance over all its valid frames and channels: [batch, frames, width]."""
    mask = valid[:, :, None]
    count = mask.sum(dim=(1, 2), keepdim=True) * hidden.shape[2]
    centred = (hidden.float() - (hidden.float() * mask).sum(dim=(1, 2), keepdim=True) / count) * mask
    scale = (centred.square().sum(dim=(1, 2), keepdim=True) / count + _OUTPUT_EPS).rsqrt()
    return (centred * scale).to(hidden.dtype)
