"""Valence, arousal and dominance as an auxiliary task: a linear layer beside the head, which no bundle has."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from callmood.training.manifest import DIMENSIONS
from callmood.worker.model import masked
from callmood.worker.model.model import EmotionModel

_NAME: Final = "dimensions"


class WithDimensions(nn.Module):
    """The forward pass of a model with the auxiliary task; the layer is one of the model's, so checkpoints have it."""

    def __init__(self, model: EmotionModel, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layer = nn.Linear(model.encoder.config.hidden_size, len(DIMENSIONS))
        model.add_module(_NAME, layer.to(model.encoder.device))
        self.model = model

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits as of `EmotionModel.forward`, and levels [batch, 3] of the mean of the last layer."""
        model: Any = self.model
        features, valid = model.features(waveforms, lengths)
        layers = model.layers(features, valid)
        return model.head(layers, valid).float(), model.dimensions(masked.mean(layers[-1], valid)).float()


def served(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model without the auxiliary layer."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(f"{_NAME}.")}
