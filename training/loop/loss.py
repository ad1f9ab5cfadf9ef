"""The loss: cross-entropy with targets that may be soft, weighted, smoothed or focal."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from callmood.schemas.common import EMOTIONS
from callmood.training.loop.data import Batch, Clip
from callmood.training.options import LossConfig
from callmood.worker.errors import ConfigurationError


class Loss:
    """The loss of a batch: logits [batch, 4] and the batch's targets in, the mean over utterances out.

    Raises:
        ConfigurationError: classes are weighted, and one does not occur in training; or votes are used, and there are
            none.
    """

    def __init__(self, config: LossConfig, clips: Sequence[Clip]) -> None:
        self._config = config
        self._weights = torch.ones(len(EMOTIONS))
        if config.class_weights == "inverse_frequency":
            self._weights = _inverse_frequency(clips)
        if config.soft_labels and not any(clip.votes for clip in clips):
            raise ConfigurationError("loss.soft_labels is on, but no training utterance has votes")

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean loss."""
        config = self._config
        log_probabilities = logits.float().log_softmax(dim=1)
        hard = torch.nn.functional.one_hot(batch.labels, len(EMOTIONS)).float()
        targets = batch.votes if config.soft_labels else hard
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / len(EMOTIONS)
        weighted = targets * self._weights.to(logits.device)
        losses = -(weighted * log_probabilities).sum(dim=1)
        if config.kind == "focal":
            losses = losses * (1 - (targets * log_probabilities.exp()).sum(dim=1)) ** config.focal_gamma
        return losses.sum() / weighted.sum()


def _inverse_frequency(clips: Sequence[Clip]) -> Tensor:
    counts = np.bincount([clip.label for clip in clips], minlength=len(EMOTIONS))
    if not counts.all():
        missing = ", ".join(str(EMOTIONS[i]) for i in np.flatnonzero(counts == 0))
        raise ConfigurationError(f"loss.class_weights: the training split has no {missing}")
    return torch.tensor(1 / counts / np.mean(1 / counts), dtype=torch.float32)
