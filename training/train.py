"""The loop: one optimiser, two rates, the best epoch on validation. Reads top to bottom."""

import copy
import dataclasses
import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from schemas.common import EMOTIONS
from training import data
from training.config import TrainConfig
from training.data import Clip
from training.evaluate import Labels, Logits, confusion, negative_log_likelihood, softmax, weighted_accuracy
from training.freeze import parameter_groups
from worker.model import EmotionModel

_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class NewBob:
    """Learning-rate factor: shrinks whenever an epoch improves the validation error by too little.

    Source: SpeechBrain's `NewBobScheduler` with patience 0; an error of zero counts as no improvement.
    """

    anneal_factor: float
    threshold: float
    factor: float = 1.0
    previous: float | None = None

    def step(self, error: float) -> None:
        """Take the error of an epoch."""
        if self.previous is not None:
            improvement = (self.previous - error) / self.previous if self.previous > 0 else 0.0
            if improvement < self.threshold:
                self.factor *= self.anneal_factor
        self.previous = error


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to; `seconds` is wall time."""

    number: int
    train_loss: float
    valid_error: float
    valid_nll: float
    rate_factor: float
    seconds: float


def train(
    model: EmotionModel, config: TrainConfig, train_clips: Sequence[Clip], valid_clips: Sequence[Clip]
) -> list[Epoch]:
    """Train `model` in place; it ends in evaluation mode, with the weights of the epoch of the lowest validation error.

    Equal errors are told apart by the negative log-likelihood. The same seed, clips and thread count give the same
    weights.
    """
    optimizer = torch.optim.Adam(parameter_groups(model, config))
    newbob = NewBob(config.anneal_factor, config.anneal_threshold)
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)  # dropout
    np.random.seed(config.seed)  # noqa: NPY002 - transformers draws SpecAugment's masks from the global generator
    step = 0
    epochs: list[Epoch] = []
    best = (float("inf"), float("inf"))
    best_weights = copy.deepcopy(model.state_dict())
    for number in range(1, config.epochs + 1):
        started_s = time.monotonic()
        losses: list[float] = []
        model.train()
        for batch in data.training_batches(train_clips, config, rng):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * newbob.factor * min(1.0, step / max(config.warmup_steps, 1))
            loss = nn.functional.cross_entropy(model(batch.waveforms, batch.lengths), batch.labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            losses.append(loss.item())
        logits, labels = predict(model, valid_clips, batch_size=config.batch_size)
        error = 1 - weighted_accuracy(confusion(labels, logits.argmax(axis=1)))
        nll = negative_log_likelihood(softmax(logits), labels)
        epochs.append(Epoch(number, float(np.mean(losses)), error, nll, newbob.factor, time.monotonic() - started_s))
        _log.info("%s", epochs[-1])
        if (error, nll) < best:
            best, best_weights = (error, nll), copy.deepcopy(model.state_dict())
        newbob.step(error)
    model.load_state_dict(best_weights)
    model.eval()
    return epochs


def predict(model: EmotionModel, clips: Sequence[Clip], *, batch_size: int) -> tuple[Logits, Labels]:
    """Logits [n, 4] and labels [n] of whole clips, in their order; leaves the model in evaluation mode."""
    model.eval()
    logits = np.zeros((len(clips), len(EMOTIONS)))
    with torch.inference_mode():
        for indices, batch in data.evaluation_batches(clips, batch_size=batch_size):
            logits[indices] = model(batch.waveforms, batch.lengths).numpy()
    return logits, np.array([clip.label for clip in clips], dtype=np.int64)
