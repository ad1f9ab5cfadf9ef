"""Low-rank adapters: a frozen matrix plus the product of two thin ones. Merging leaves a plain matrix to serve.

Source: Hu et al. 2021, arXiv 2106.09685. Implemented with torch's parametrizations.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from callmood.training.options import LoraConfig
from callmood.worker.model.model import EmotionModel

_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")


class LowRank(nn.Module):
    """`weight + up @ down * alpha / rank`; `up` starts at zero, so that the weight is unchanged at first."""

    def __init__(self, weight: Tensor, config: LoraConfig) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.randn(config.rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(outputs, config.rank))
        self.scale = config.alpha / config.rank

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, [out, in]."""
        return weight + self.up @ self.down * self.scale


def adapt(model: EmotionModel, config: LoraConfig) -> None:
    """Put an adapter on each projection of the transformer; rank 0 changes nothing."""
    if config.rank:
        for layer in _linears(model):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, config))


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by its name."""
    return ".parametrizations.weight.0." in name


def merge(model: EmotionModel) -> None:
    """Fold every adapter into its weight, and remove it."""
    for layer in _linears(model):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")


def _linears(model: EmotionModel) -> list[nn.Linear]:
    return [
        module
        for name, module in model.encoder.encoder.layers.named_modules()
        if name.rpartition(".")[2] in _TARGETS and isinstance(module, nn.Linear)
    ]
