"""The loop: one optimiser, rates by group, the best round on validation, and a checkpoint to resume from.

A round is a pass over the training split, or `evaluate_steps` steps. Each draw is a function of the seed and the step,
so a checkpoint needs no state of a generator: it holds the step, the weights, Adam's moments and the schedule.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from callmood.schemas.common import EMOTIONS
from callmood.training import signals
from callmood.training.config import Config
from callmood.training.evaluate import Labels, Logits, confusion, negative_log_likelihood, softmax, weighted_accuracy
from callmood.training.loop import data, schedule
from callmood.training.loop.data import Batch, Clip
from callmood.training.loop.loss import Loss
from callmood.training.loop.place import Place
from callmood.training.networks.compat import Model2021
from callmood.training.networks.freeze import parameter_groups
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.model import EmotionModel

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """Figures of one round; `seconds` is wall time since the round began or the run was resumed."""

    number: int
    train_loss: float
    valid_error: float
    valid_nll: float
    rate_factor: float
    seconds: float


@dataclasses.dataclass(slots=True)
class Progress:
    """Counters of a run, beside its weights."""

    step: int = 0
    loss_count: int = 0
    best: tuple[float, float] = (float("inf"), float("inf"))
    epochs: list[Epoch] = dataclasses.field(default_factory=list)


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
    return Loop(model, settings, (train_clips, valid_clips), place or Place()).run()


class Loop:
    """One run's optimiser, schedule and counters, around its model; arguments as `train`."""

    def __init__(
        self, model: nn.Module, settings: Config, clips: tuple[Sequence[Clip], Sequence[Clip]], place: Place
    ) -> None:
        self._model = model
        self._settings = settings
        self._config = settings.train
        self._place = place
        self._train, self._valid = clips
        self._loss = Loss(settings.loss, self._train)
        groups = parameter_groups(model, self._config)
        self._optimizer = torch.optim.Adam(groups, weight_decay=self._config.weight_decay)
        self._learning = [parameter for group in groups for parameter in group["params"]]
        self._schedule = schedule.new(self._config)
        self._plan = data.Plan(self._train, self._config, place.share)
        self._end = self._config.steps or self._config.epochs * self._plan.steps_per_pass
        self._round = self._config.evaluate_steps or self._plan.steps_per_pass
        self._progress = Progress()
        self._best: dict[str, torch.Tensor] = {}
        self._forward = as_trained(model, settings)
        self._net = self._forward
        if place.share.world > 1:  # LayerDrop leaves parameters without a gradient
            self._net = DistributedDataParallel(self._forward, find_unused_parameters=True)
        # Read once a round: to read a value of a GPU is to wait for it.
        self._losses = torch.zeros((), dtype=torch.float64, device=place.device)
        self._largest_norm = torch.zeros((), device=place.device)

    def run(self) -> list[Epoch]:
        """Train to the end, from the checkpoint if there is one."""
        if (state := self._place.checkpoint()) is not None:
            self._restore(state)
        progress = self._progress
        batches = data.training_batches(
            self._train, self._config, self._plan.from_step(progress.step, self._end), self._settings.augment
        )
        started_s = time.monotonic()
        self.to_train()
        with signals.between_steps() as stopped:
            for _ in self._place.bar(range(progress.step, self._end), self._end):
                self.step(list(islice(batches, self._config.accumulate)))
                if progress.step % self._round == 0 or progress.step == self._end:
                    self._validate(time.monotonic() - started_s)
                    started_s = time.monotonic()
                    self.to_train()
                    self._place.save(self._state)
                elif stopped() or progress.step % self._config.checkpoint_steps == 0:
                    self._refuse_divergence()
                    self._place.save(self._state)
                if signal := stopped():
                    raise signal
        self._model.load_state_dict(self._best)
        self._model.eval()
        return progress.epochs

    def to_train(self) -> None:
        """Switch to training mode; a frozen encoder stays in evaluation mode and drops nothing, as in SUPERB."""
        self._forward.train()
        if self._config.train == "head" and isinstance(self._model, EmotionModel):
            self._model.encoder.eval()

    def step(self, batches: list[Batch]) -> None:
        """One step of the optimiser on the gradients of these batches."""
        config, progress, share = self._config, self._progress, self._place.share
        rate = self._schedule.factor * min(1.0, (progress.step + 1) / max(config.warmup_steps, 1))
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_lr"] * rate
        self._optimizer.zero_grad()
        for index, batch in enumerate(batches):
            seed(config.seed, progress.step, index * share.world + share.rank)
            moved = batch.to(self._place.device)
            with self._together(index == len(batches) - 1):
                with autocast(self._place.device, config.precision):
                    logits = self._net(moved.waveforms, moved.lengths)
                loss = self._loss(logits, moved) / len(batches)
                loss.backward()  # type: ignore[no-untyped-call]
            self._losses += loss.detach()
        norm = nn.utils.clip_grad_norm_(self._learning, config.max_grad_norm)
        self._largest_norm = torch.maximum(self._largest_norm, norm.detach().float())  # NaN stays NaN
        self._optimizer.step()
        progress.step += 1
        progress.loss_count += 1

    def _together(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:  # noqa: FBT001 - one flag, one meaning
        """Exchange gradients between processes with a step's last batch only."""
        if is_last or not isinstance(self._net, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._net.no_sync()

    def _refuse_divergence(self, *figures: float) -> None:
        """An infinite gradient is clipped to zero: without this check, training would stand still unnoticed."""
        step = self._progress.step
        norm = float(self._largest_norm)
        if not np.isfinite(norm):
            raise ConfigurationError(
                f"training diverged before step {step}; lower the rates, or warm up: the norm of a gradient was {norm}"
            )
        if not np.isfinite(sum(figures)):
            raise ConfigurationError(f"training diverged before step {step}; lower the rates, or warm up")
        self._largest_norm.zero_()

    def _validate(self, seconds: float) -> None:
        """One process measures and sends the figures to all, so that all decide alike."""
        progress = self._progress
        loss = float(self._losses) / progress.loss_count
        self._refuse_divergence(loss)
        error, nll = self._place.from_first(self._measure)
        self._refuse_divergence(nll)
        epoch = Epoch(len(progress.epochs) + 1, loss, error, nll, self._schedule.factor, seconds)
        progress.epochs.append(epoch)
        progress.loss_count = 0
        self._losses.zero_()
        _log.info("%s", epoch)
        if (error, nll) < progress.best:
            progress.best = (error, nll)
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}
        self._schedule.step(error)
        self._place.log(progress.epochs)

    def _measure(self) -> tuple[float, float]:
        logits, labels = predict(
            self._forward,
            self._valid,
            batch_size=self._config.batch_size,
            precision=self._config.precision,
        )
        error = 1 - weighted_accuracy(confusion(labels, logits.argmax(axis=1)))
        return error, negative_log_likelihood(softmax(logits), labels)

    def _state(self) -> dict[str, Any]:
        return {
            "progress": dataclasses.asdict(self._progress),
            "schedule": dataclasses.asdict(self._schedule),
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "losses": float(self._losses),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        progress = state["progress"]
        epochs = [Epoch(**epoch) for epoch in progress.pop("epochs")]
        self._progress = Progress(**{**progress, "best": tuple(progress["best"]), "epochs": epochs})
        self._best = state["best"]
        self._place.log(epochs)
        if "optimizer" not in state:  # a finished run: no step is left
            return
        self._schedule = type(self._schedule)(**state["schedule"])
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses.fill_(state["losses"])


def as_trained(model: nn.Module, settings: Config) -> nn.Module:
    """The model as the loop runs it: unchanged, or with the forward pass of 2021."""
    if settings.paper_compat.batch_statistics:
        assert isinstance(model, EmotionModel)
        return Model2021(model)
    return model


def seed(*numbers: int) -> None:
    """Set what dropout, LayerDrop and transformers' SpecAugment draw from, by a few numbers."""
    drawn = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 - transformers draws SpecAugment's masks from the global generator


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in bfloat16 where the precision is `bf16`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


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
