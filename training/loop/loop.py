"""The loop: one optimiser, rates by group, the best round on validation, and a checkpoint to resume from.

A round is a pass over the training clips, or `evaluate_steps` steps. Each draw is a function of the seed and the step,
so a checkpoint needs no state of a generator: it holds the step, the weights, Adam's moments and the schedule.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from callmood.training import signals
from callmood.training.loop import schedule
from callmood.training.loop.data import Clip, Draw, Plan
from callmood.training.loop.place import Place
from callmood.training.networks.freeze import parameter_groups
from callmood.training.options import TrainConfig
from callmood.worker.errors import ConfigurationError

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


class Task(Protocol):
    """What is learned; the batches are its own, the loop asks of them `inputs` and `to` alone."""

    @property
    def net(self) -> nn.Module:
        """What is called with a batch's `inputs`."""

    @property
    def clips(self) -> Sequence[Clip]:
        """The clips of a pass."""

    def to_train(self) -> None:
        """Switch to training mode."""

    def batches(self, draws: Iterable[list[Draw]]) -> Iterator[Any]:
        """The batches of a `Plan` of `clips`."""

    def loss(self, found: Any, batch: Any) -> Tensor:
        """The mean loss of what `net` found in `batch.inputs`."""

    def measure(self) -> tuple[float, float]:
        """Error and negative log-likelihood on clips of no training."""


class Loop:
    """One run's optimiser, schedule and counters, around the model whose weights learn the task.

    `run` leaves the model in evaluation mode, with the weights of the round in which `task.measure` found the lowest
    error; among equal errors, the lower negative log-likelihood decides.
    """

    def __init__(self, model: nn.Module, task: Task, config: TrainConfig, place: Place) -> None:
        self._model = model
        self._task = task
        self._config = config
        self._place = place
        groups = parameter_groups(model, self._config)
        self._optimizer = torch.optim.Adam(groups, weight_decay=self._config.weight_decay)
        self._learning = [parameter for group in groups for parameter in group["params"]]
        self._schedule = schedule.new(self._config)
        self._plan = Plan(task.clips, self._config, place.share)
        self._end = self._config.steps or self._config.epochs * self._plan.steps_per_pass
        self._round = self._config.evaluate_steps or self._plan.steps_per_pass
        self._progress = Progress()
        self._best: dict[str, torch.Tensor] = {}
        self._net = task.net
        if place.share.world > 1:  # LayerDrop leaves parameters without a gradient
            self._net = DistributedDataParallel(task.net, find_unused_parameters=True)
        # Read once a round: to read a value of a GPU is to wait for it.
        self._losses = torch.zeros((), dtype=torch.float64, device=place.device)
        self._largest_norm = torch.zeros((), device=place.device)

    def run(self) -> list[Epoch]:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            ConfigurationError: the checkpoint is of another run, or training diverges.
            Stopped: at Ctrl-C or SIGTERM, after the step, which is saved.
        """
        if (state := self._place.checkpoint()) is not None:
            self._restore(state)
        progress = self._progress
        batches = self._task.batches(self._plan.from_step(progress.step, self._end))
        started_s = time.monotonic()
        self._task.to_train()
        with self._place.tracked(progress.epochs), signals.between_steps() as stopped:
            for _ in self._place.bar(range(progress.step, self._end), self._end):
                self.step(list(islice(batches, self._config.accumulate)))
                if progress.step % self._round == 0 or progress.step == self._end:
                    self._validate(time.monotonic() - started_s)
                    started_s = time.monotonic()
                    self._task.to_train()
                    self._place.save(self._state)
                elif stopped() or progress.step % self._config.checkpoint_steps == 0:
                    self._refuse_divergence()
                    self._place.save(self._state)
                if signal := stopped():
                    raise signal
        self._model.load_state_dict(self._best)
        self._model.eval()
        return progress.epochs

    def step(self, batches: Sequence[Any]) -> None:
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
                    found = self._net(*moved.inputs)
                loss = self._task.loss(found, moved) / len(batches)
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
        error, nll = self._place.from_first(self._task.measure)
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


def seed(*numbers: int) -> None:
    """Set what dropout, LayerDrop and transformers' SpecAugment draw from, by a few numbers."""
    drawn = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 - transformers draws SpecAugment's masks from the global generator


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in bfloat16 where the precision is `bf16`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
