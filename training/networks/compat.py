"""The forward pass of the authors' code of 2021. For exact reproduction only: logits depend on the batch.

The waveform and the encoder's output are normalised over the whole padded batch, attention sees the padding, and only
pooling knows lengths. (Their pooling added noise of 1e-5 to the mean, too; nothing here does.)

Source: `speechbrain/speechbrain@2bf7e6f5f`, recipes/IEMOCAP and lobes/models/huggingface_wav2vec.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from callmood.worker.model.heads import MeanLinear
from callmood.worker.model.model import EmotionModel


class Model2021(nn.Module):
    """The weights of an `EmotionModel` with that forward pass."""

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.model = model

    @property
    def min_samples(self) -> int:
        """As `EmotionModel.min_samples`."""
        return self.model.min_samples

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """As `EmotionModel.forward`."""
        model = self.model
        assert isinstance(model.head, MeanLinear)
        if model.spec.normalize:
            waveforms = functional.layer_norm(waveforms, waveforms.shape)
        hidden = model.encoder(waveforms)[0]
        if model.spec.output_norm:
            hidden = functional.layer_norm(hidden, hidden.shape)
        frames = torch.round(lengths / lengths.max() * hidden.shape[1]).long()
        pooled = torch.stack([row[:count].mean(dim=0) for row, count in zip(hidden, frames.tolist(), strict=True)])
        logits: Tensor = model.head.linear(pooled)
        return logits.float()
