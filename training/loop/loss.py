"""The loss: cross-entropy with targets that may be soft, weighted, smoothed or focal."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from callmood.schemas.common import EMOTIONS
from callmood.training.loop.data import Batch, Clip
from callmood.training.manifest import DIMENSIONS
from callmood.training.options import LossConfig
from callmood.worker.errors import ConfigurationError

_EPS: Final = 1e-8  # equal values have no spread


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


class LossWithDimensions:
    """`Loss`, and the weighted mean of one minus the concordance of valence, arousal and dominance.

    A dimension that fewer than two utterances of the batch have adds nothing.

    Raises:
        ConfigurationError: see `Loss`; or no training utterance has a dimension.
    """

    def __init__(self, config: LossConfig, clips: Sequence[Clip]) -> None:
        self._emotions = Loss(config, clips)
        self._weight = config.dimensions
        if not any(clip.levels for clip in clips):
            raise ConfigurationError(f"loss.dimensions is on, but no training utterance has {' or '.join(DIMENSIONS)}")

    def __call__(self, found: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
        """The loss of logits [batch, 4] and levels [batch, 3]."""
        logits, levels = found
        known = ~batch.levels.isnan()
        losses = [
            1 - concordance(levels[has, index], batch.levels[has, index])
            for index, has in enumerate(known.T)
            if has.sum() > 1
        ]
        auxiliary = torch.stack(losses).mean() if losses else levels.sum() * 0  # each parameter needs a gradient
        return self._emotions(logits, batch) + self._weight * auxiliary


def concordance(found: Tensor, true: Tensor) -> Tensor:
    """Lin's concordance correlation coefficient (1989) of two vectors of at least two values, with biased moments."""
    both = (found - found.mean()) * (true - true.mean())
    spread = found.var(correction=0) + true.var(correction=0) + (found.mean() - true.mean()) ** 2
    return 2 * both.mean() / (spread + _EPS)


def _inverse_frequency(clips: Sequence[Clip]) -> Tensor:
    counts = np.bincount([clip.label for clip in clips], minlength=len(EMOTIONS))
    if not counts.all():
        missing = ", ".join(str(EMOTIONS[i]) for i in np.flatnonzero(counts == 0))
        raise ConfigurationError(f"loss.class_weights: the training split has no {missing}")
    return torch.tensor(1 / counts / np.mean(1 / counts), dtype=torch.float32)
