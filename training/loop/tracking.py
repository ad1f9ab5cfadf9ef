"""The figures of a run in MLflow, for those who ask for it: the configuration, then each round."""

import dataclasses
import importlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from callmood.training import checkpoint
from callmood.worker.errors import ConfigurationError

RUN: Final = "mlflow.txt"
_LONGEST: Final = 500  # characters of a parameter that every MLflow server takes
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Instead of MLflow's 7 and 120 s: training waits for each request."""

_log = logging.getLogger(__name__)


class Mlflow:
    """A run of an experiment in the MLflow of `MLFLOW_TRACKING_URI`; its id is kept in the run's folder for `--resume`.

    Raises:
        ConfigurationError: MLflow is not installed, or refuses the run.
    """

    def __init__(self, experiment: str, folder: Path, settings: Mapping[str, Any]) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            mlflow = importlib.import_module("mlflow")  # an extra, and slow to import
        except ImportError as error:
            raise ConfigurationError("--mlflow needs MLflow: pip install 'callmood[mlflow]'") from error
        self._refusals = (mlflow.exceptions.MlflowException, OSError)
        self._folder = folder
        try:
            self._metric = mlflow.entities.Metric
            self._client = mlflow.MlflowClient()
            self._run_id = self._kept() or self._new(experiment, settings)
            self._client.update_run(self._run_id, status="RUNNING")
            history = self._client.get_metric_history(self._run_id, "train_loss")
        except self._refusals as error:
            raise ConfigurationError(f"MLflow refuses the run: {error}") from error
        self._written = len({point.step for point in history})

    def rounds(self, rounds: Sequence[Any]) -> None:
        """Write the rounds that MLflow does not have; if it is not available, they are written after the next round."""
        try:
            for one in rounds[self._written :]:
                now_ms = round(time.time() * 1000)
                values = dataclasses.asdict(one).items()
                metrics = [self._metric(name, value, now_ms, one.number) for name, value in values]
                self._client.log_batch(self._run_id, metrics=metrics)
                self._written = one.number
        except self._refusals as error:
            _log.warning("a round is not in MLflow yet: %s", error)

    def end(self, rounds: Sequence[Any], status: str) -> None:
        """Write the rounds that MLflow does not have, and mark the run as `FINISHED`, `FAILED` or `KILLED`."""
        self.rounds(rounds)
        try:
            self._client.set_terminated(self._run_id, status)
        except self._refusals as error:
            _log.warning("the run is not marked as ended in MLflow: %s", error)

    def _kept(self) -> str:
        """The id of the run that is resumed, or empty."""
        path = self._folder / RUN
        is_resumed = path.exists() and (self._folder / checkpoint.CHECKPOINT).exists()
        return path.read_text(encoding="utf-8").strip() if is_resumed else ""

    def _new(self, experiment: str, settings: Mapping[str, Any]) -> str:
        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        run_id: str = self._client.create_run(number, run_name=self._folder.name).info.run_id
        for name, value in _flat(settings):
            self._client.log_param(run_id, name, str(value)[:_LONGEST])
        checkpoint.write_text(self._folder / RUN, run_id + "\n")
        return run_id


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Names such as `train.steps`, and their values; without those that are not set."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((f"{prefix}{name}", value))
    return found
