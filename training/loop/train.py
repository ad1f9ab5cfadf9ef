"""Fine-tuning: the emotions of utterances as the loop's task, and a model's answers to clips."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from callmood.schemas.common import EMOTIONS
from callmood.training.config import Config
from callmood.training.evaluate import Labels, Logits, confusion, negative_log_likelihood, softmax, weighted_accuracy
from callmood.training.loop import data
from callmood.training.loop.data import Batch, Clip, Draw
from callmood.training.loop.loop import Epoch, Loop, autocast
from callmood.training.loop.loss import Loss, LossWithDimensions
from callmood.training.loop.place import Place
from callmood.training.networks.compat import Model2021
from callmood.training.networks.dimensions import WithDimensions
from callmood.worker.model.model import EmotionModel


def train(
    model: nn.Module,
    settings: Config,
    train_clips: Sequence[Clip],
    valid_clips: Sequence[Clip],
    place: Place | None = None,
) -> list[Epoch]:
    """Train `model` in place; it ends in evaluation mode, with the weights of the round of the lowest validation error.

    Among equal errors, the lower negative log-likelihood decides. The same seed, clips and thread count give the same
    weights, whether or not the run was killed and resumed in between.

    Raises:
        ConfigurationError: the configuration does not fit the clips or the model, the checkpoint is of another run, or
            training diverges.
        Stopped: at Ctrl-C or SIGTERM, after the step, which is saved.
    """
    task = Emotions(model, settings, train_clips, valid_clips)
    return Loop(model, task, settings.train, place or Place()).run()


class Emotions:
    """The task of `train`; arguments as there."""

    def __init__(
        self, model: nn.Module, settings: Config, train_clips: Sequence[Clip], valid_clips: Sequence[Clip]
    ) -> None:
        self._forward = as_trained(model, settings)
        self.net = self._forward
        self.clips = train_clips
        self.loss: Any = Loss(settings.loss, train_clips)
        if settings.loss.dimensions:
            assert isinstance(model, EmotionModel)
            self.net = WithDimensions(model, settings.train.seed)
            self.loss = LossWithDimensions(settings.loss, train_clips)
        self._model = model
        self._settings = settings
        self._valid = valid_clips

    def to_train(self) -> None:
        """Switch to training mode; a frozen encoder stays in evaluation mode and drops nothing, as in SUPERB."""
        self.net.train()
        if self._settings.train.train == "head" and isinstance(self._model, EmotionModel):
            self._model.encoder.eval()

    def batches(self, draws: Iterable[list[Draw]]) -> Iterator[Batch]:
        """See `Task`."""
        return data.training_batches(self.clips, self._settings.train, draws, self._settings.augment)

    def measure(self) -> tuple[float, float]:
        """See `Task`: on the validation clips."""
        config = self._settings.train
        logits, labels = predict(self._forward, self._valid, batch_size=config.batch_size, precision=config.precision)
        error = 1 - weighted_accuracy(confusion(labels, logits.argmax(axis=1)))
        return error, negative_log_likelihood(softmax(logits), labels)


def as_trained(model: nn.Module, settings: Config) -> nn.Module:
    """The model as the loop runs it: unchanged, or with the forward pass of 2021."""
    if settings.paper_compat.batch_statistics:
        assert isinstance(model, EmotionModel)
        return Model2021(model)
    return model


def predict(
    model: nn.Module, clips: Sequence[Clip], *, batch_size: int, precision: str = "fp32"
) -> tuple[Logits, Labels]:
    """Logits [n, 4] and labels [n] of whole clips, in their order; leaves the model in evaluation mode.

    Raises:
        ConfigurationError: a clip is too short for the model; the message has its file.
    """
    min_samples: Any = model.min_samples
    data.refuse_short(clips, min_samples)
    model.eval()
    device = next(model.parameters()).device
    logits = np.zeros((len(clips), len(EMOTIONS)))
    for indices, batch in data.evaluation_batches(clips, batch_size=batch_size):
        moved = batch.to(device)
        with torch.inference_mode(), autocast(device, precision):  # not around the batches: resampling is in float32
            found = model(moved.waveforms, moved.lengths)
        logits[indices] = found.float().cpu().numpy()
    return logits, np.array([clip.label for clip in clips], dtype=np.int64)
