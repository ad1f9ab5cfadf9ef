"""Schedules: each takes the validation error of a round and sets the factor of the learning rates."""

import dataclasses
from typing import Protocol

from callmood.training.options import TrainConfig


class Schedule(Protocol):
    """What the loop uses; a dataclass, so that a checkpoint can hold it."""

    factor: float

    def step(self, error: float) -> None:
        """Take the error of a round."""


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


@dataclasses.dataclass(slots=True)
class Stairs:
    """The factor shrinks every `every` rounds, whatever the error."""

    anneal_factor: float
    every: int
    factor: float = 1.0
    rounds: int = 0

    def step(self, error: float) -> None:  # noqa: ARG002 - the protocol's
        """Take the error of a round."""
        self.rounds += 1
        if self.rounds % self.every == 0:
            self.factor *= self.anneal_factor


@dataclasses.dataclass(slots=True)
class Constant:
    """The factor stays 1."""

    factor: float = 1.0

    def step(self, error: float) -> None:
        """Take the error of a round."""


def new(config: TrainConfig) -> NewBob | Stairs | Constant:
    """The schedule of a configuration."""
    match config.schedule:
        case "newbob":
            return NewBob(config.anneal_factor, config.anneal_threshold)
        case "step":
            return Stairs(config.anneal_factor, config.anneal_epochs)
    return Constant()
