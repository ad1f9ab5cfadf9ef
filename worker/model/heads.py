"""What stands on the encoder: layers [batch, frames, width] and the mask of valid frames in, logits [batch, 4] out."""

from typing import Any, Final

import torch
from torch import Tensor, nn

from callmood.schemas.common import EMOTIONS
from callmood.worker.model import masked
from callmood.worker.model.checkpoints import HeadKind, ModelSpec

_ATTENTION_WIDTH: Final = 128
_VARIANCE_FLOOR: Final = 1e-6  # the root of a variance of zero has no gradient


class MeanLinear(nn.Module):
    """Mean of the last layer over valid frames, one linear layer without bias; before both, perhaps the output norm."""

    def __init__(self, width: int, *, output_norm: bool) -> None:
        super().__init__()
        self.output_norm = output_norm
        self.linear = nn.Linear(width, len(EMOTIONS), bias=False)

    def forward(self, layers: list[Tensor], valid: Tensor) -> Tensor:
        """Logits of the last of the layers."""
        last = masked.output_norm(layers[-1], valid) if self.output_norm else layers[-1]
        logits: Tensor = self.linear(masked.mean(last, valid))
        return logits


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
