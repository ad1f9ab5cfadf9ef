"""The place of a run: its folder, its device, and its rank among the processes that `torchrun` starts."""

import contextlib
import csv
import dataclasses
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import distributed

from callmood.training import checkpoint
from callmood.training.loop.data import Share
from callmood.training.loop.tracking import Mlflow
from callmood.worker.errors import ConfigurationError

LOG: Final = "log.csv"
_TENSORBOARD: Final = "tensorboard"
_T = TypeVar("_T")


class Place:
    """A run's folder and device; without a folder, nothing is written.

    Args:
        folder: for checkpoint, `log.csv` and TensorBoard's files.
        device: where the model is.
        share: of the batches.
        fingerprint: of the configuration, the encoder's files and the data; a checkpoint of another one is refused.
        resume: continue from the checkpoint, if there is one.
        show: show a progress bar, if there is a terminal.

    Raises:
        ConfigurationError: the folder holds a run, and `resume` is false.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        device: torch.device | None = None,
        share: Share | None = None,
        fingerprint: str = "",
        resume: bool = False,
        show: bool = False,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.share = share or Share()
        self._folder = folder
        self._fingerprint = fingerprint
        self._show = show
        self._path = folder / checkpoint.CHECKPOINT if folder else None
        if self._path and self._path.exists() and not resume:
            raise ConfigurationError(f"{folder} contains a run: continue it with --resume, or choose another folder")
        self._writer: Any = None
        self._written = 0
        self._tracker: Mlflow | None = None
        self.track("", {})

    def checkpoint(self) -> dict[str, Any] | None:
        """The state that was saved last, or None.

        Raises:
            ConfigurationError: it cannot be read, or belongs to another configuration, another encoder (weights or
                configuration) or other data.
        """
        if self._path is None or not self._path.exists():
            return None
        state = checkpoint.load(self._path)
        if state.pop("fingerprint") != self._fingerprint:
            raise ConfigurationError(
                f"{self._path} belongs to another configuration, another encoder, other data, another world size or "
                "another version of callmood"
            )
        return state

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save, on the first process alone."""
        if self._path is not None and self.share.rank == 0:
            checkpoint.save(self._path, {**state(), "fingerprint": self._fingerprint})

    def track(self, experiment: str, settings: Mapping[str, Any]) -> None:
        """Write the configuration and the rounds to this experiment in MLflow, once training begins; empty: nowhere."""
        self._experiment, self._settings = experiment, settings

    @contextlib.contextmanager
    def tracked(self, rounds: Sequence[Any]) -> Iterator[None]:
        """A run in MLflow while the block runs, which adds to `rounds`; it ends as finished, failed, or killed.

        Raises:
            ConfigurationError: MLflow is not installed, or refuses the run.
        """
        if not self._experiment or not self._folder or self.share.rank:
            yield
            return
        self._tracker = Mlflow(self._experiment, self._folder, self._settings)
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            self._tracker.end(rounds, status)

    def log(self, rounds: Sequence[Any]) -> None:
        """Write all rounds so far: a CSV file, and TensorBoard's files where it is installed."""
        if self._folder is None or self.share.rank or not rounds:
            return
        text = io.StringIO()
        table = csv.DictWriter(text, [field.name for field in dataclasses.fields(rounds[0])])
        table.writeheader()
        table.writerows(dataclasses.asdict(one) for one in rounds)
        checkpoint.write_text(self._folder / LOG, text.getvalue())
        self._tensorboard(rounds)
        if self._tracker:
            self._tracker.rounds(rounds)

    def _tensorboard(self, rounds: Sequence[Any]) -> None:
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra, and slow to import
            except ImportError:
                return
            assert self._folder is not None
            shutil.rmtree(self._folder / _TENSORBOARD, ignore_errors=True)  # a resumed run writes all of it again
            self._writer = SummaryWriter(str(self._folder / _TENSORBOARD))
        for one in rounds[self._written :]:
            for name, value in dataclasses.asdict(one).items():
                self._writer.add_scalar(name, value, one.number)
        self._written = len(rounds)
        self._writer.flush()

    def bar(self, steps: range, total: int) -> Iterable[int]:
        """The steps, with a progress bar on the first process if it has a terminal."""
        if not self._show or self.share.rank:
            return steps
        from tqdm import tqdm  # noqa: PLC0415 - only where it is seen

        return tqdm(steps, initial=steps.start, total=total, unit="step", disable=None)  # type: ignore[no-any-return]

    def from_first(self, measure: Callable[[], _T]) -> _T:
        """The result of the first process, on all of them."""
        if self.share.world == 1:
            return measure()
        answer = [measure() if self.share.rank == 0 else None]
        distributed.broadcast_object_list(answer, src=0, device=self.device)
        return answer[0]  # type: ignore[return-value]


def device_and_share(wanted: str = "auto") -> tuple[torch.device, Share]:
    """The device and the share of this process; under `torchrun`, joins the others.

    Raises:
        ConfigurationError: there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ConfigurationError("--device cuda, but torch finds no GPU it can use")
    uses_gpu = has_gpu and wanted != "cpu"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if uses_gpu else torch.device("cpu")
    if uses_gpu:
        torch.cuda.set_device(device)
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if uses_gpu else "gloo")
    return device, Share(int(os.environ.get("RANK", "0")), world)
