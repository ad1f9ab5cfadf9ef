"""Heads: the layers of the encoder in, logits [batch, 4] out.

Each head has two ways that give the same logits:

- `forward`, the reference, on padded layers [batch, frames, width] and the mask of valid frames;
- `packed`, without padding: each layer is [frames, width], utterance after utterance, and `frames` counts each one's
  frames. It is for inference alone, takes the layers as they are computed, and decides in float32, whatever the type
  of the weights: it costs nothing there.
"""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from callmood.schemas.common import EMOTIONS
from callmood.worker.model import masked
from callmood.worker.model.checkpoints import HeadKind, ModelSpec

_ATTENTION_WIDTH: Final = 128
_VARIANCE_FLOOR: Final = 1e-6  # the root of a variance of zero has no gradient


class MeanLinear(nn.Module):
    """Mean of the last layer over valid frames, one linear layer without bias; with `output_norm`, that comes first."""

    def __init__(self, width: int, *, output_norm: bool) -> None:
        super().__init__()
        self.output_norm = output_norm
        self.linear = nn.Linear(width, len(EMOTIONS), bias=False)

    def forward(self, layers: list[Tensor], valid: Tensor) -> Tensor:
        """Logits of the last of the layers."""
        last = masked.output_norm(layers[-1], valid) if self.output_norm else layers[-1]
        logits: Tensor = self.linear(masked.mean(last, valid))
        return logits

    def packed(self, layers: Iterable[Tensor], frames: list[int]) -> Tensor:
        """Logits of the last of the layers."""
        *_, last = layers
        if self.output_norm:
            last = torch.cat([functional.layer_norm(part.float(), part.shape) for part in split(last, frames)])
        return _linear(self.linear, _means(last, frames))


class SuperbHead(nn.Module):
    """Weighted sum of all layers, projector, mean over valid frames, linear layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, len(EMOTIONS))
        self.weighted = bool(config.use_weighted_layer_sum)

    def forward(self, layers: list[Tensor], valid: Tensor) -> Tensor:
        """Logits of all of the layers."""
        hidden = layers[-1]
        if self.weighted:
            weights = self.layer_weights.softmax(dim=-1)
            hidden = torch.stack([weight * layer for weight, layer in zip(weights, layers, strict=True)]).sum(dim=0)
        logits: Tensor = self.classifier(masked.mean(self.projector(hidden), valid))
        return logits

    def packed(self, layers: Iterable[Tensor], frames: list[int]) -> Tensor:
        """Logits of all of the layers. The mean is taken before the projector, not after it: both are linear."""
        if self.weighted:
            weights = self.layer_weights.float().softmax(dim=-1)
            weighted = [weight * _means(layer, frames) for weight, layer in zip(weights, layers, strict=True)]
            mean = torch.stack(weighted).sum(dim=0)
        else:
            *_, last = layers
            mean = _means(last, frames)
        return _linear(self.classifier, _linear(self.projector, mean))


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation of the last layer, weighted by attention over valid frames; then a linear layer.

    Source: Okabe, Koshinaka & Shinoda 2018, "Attentive Statistics Pooling for Deep Speaker Embedding".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, _ATTENTION_WIDTH), nn.Tanh(), nn.Linear(_ATTENTION_WIDTH, 1))
        self.linear = nn.Linear(2 * width, len(EMOTIONS))

    def forward(self, layers: list[Tensor], valid: Tensor) -> Tensor:
        """Logits of the last of the layers."""
        last = layers[-1]
        scores = self.attention(last).float().masked_fill(~valid[:, :, None], -torch.inf)
        weights = scores.softmax(dim=1)
        hidden = last.float().masked_fill(~valid[:, :, None], 0.0)
        mean = (weights * hidden).sum(dim=1)
        variance = (weights * (hidden - mean[:, None]).square()).sum(dim=1)
        statistics = torch.cat([mean, (variance + _VARIANCE_FLOOR).sqrt()], dim=1)
        logits: Tensor = self.linear(statistics.to(last.dtype))
        return logits

    def packed(self, layers: Iterable[Tensor], frames: list[int]) -> Tensor:
        """Logits of the last of the layers."""
        *_, last = layers
        parts = [part[None] for part in split(last, frames)]
        return torch.cat([self([part], part.new_ones(part.shape[:2], dtype=torch.bool)) for part in parts])


Head = MeanLinear | SuperbHead | AttentiveStatistics


def build(spec: ModelSpec, config: Any) -> Head:
    """The head of a spec on an encoder of this configuration."""
    match spec.head:
        case HeadKind.MEAN_LINEAR:
            return MeanLinear(config.hidden_size, output_norm=spec.output_norm)
        case HeadKind.HF_SUPERB:
            return SuperbHead(config)
        case HeadKind.ATTENTIVE_STATISTICS:
            return AttentiveStatistics(config.hidden_size)


def split(packed: Tensor, frames: list[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of each utterance's part of a packed tensor."""
    parts: tuple[Tensor, ...] = packed.split(frames, dim)  # type: ignore[no-untyped-call]
    return parts


def _means(hidden: Tensor, frames: list[int]) -> Tensor:
    """Mean of each utterance's frames, in float32: [frames, width] -> [batch, width]."""
    return torch.stack([part.mean(dim=0, dtype=torch.float32) for part in split(hidden, frames)])


def _linear(layer: Any, inputs: Tensor) -> Tensor:
    """The layer in float32, whatever the type of its weights."""
    bias = None if layer.bias is None else layer.bias.float()
    return functional.linear(inputs, layer.weight.float(), bias)
