"""The figures of a run in MLflow: written by its own client, here into a folder."""

import contextlib
import csv
import importlib.util
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from callmood.training import checkpoint
from callmood.training.__main__ import main
from callmood.training.loop.loop import Epoch
from callmood.training.loop.place import Place
from callmood.training.loop.tracking import RUN, Mlflow
from callmood.training.manifest import EMOTIONS
from callmood.training.signals import Stopped
from callmood.training.wav import write
from callmood.worker.errors import ConfigurationError

ROUNDS = [Epoch(number, 1.0 / number, 0.5, 0.9, 1.0, 2.0) for number in (1, 2, 3)]
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client for a folder, which is the address of what is tested, too."""
    if importlib.util.find_spec("mlflow") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no MLflow: make setup installs it")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    from mlflow import MlflowClient  # noqa: PLC0415 - an extra

    return MlflowClient()


def runs_of(client: Any, experiment: str = "calls") -> list[Any]:
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def losses(client: Any, run: Any) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train_loss")]


def test_a_run_has_its_configuration_and_each_round_once(client, tmp_path: Path):
    """Rounds come as a growing list; a resumed run continues in MLflow where it ended, and is then finished."""
    folder = tmp_path / "work"
    first = Mlflow("calls", folder, {"train": {"steps": 3, "speeds": [1.0]}, "corpus": None})
    first.rounds(ROUNDS[:1])
    first.rounds(ROUNDS[:2])
    checkpoint.write_text(folder / checkpoint.CHECKPOINT, "")
    resumed = Mlflow("calls", folder, {})
    resumed.rounds(ROUNDS)
    resumed.end(ROUNDS, "FINISHED")
    (run,) = runs_of(client)
    assert run.data.params == {"train.steps": "3", "train.speeds": "[1.0]"}
    assert losses(client, run) == [(one.number, one.train_loss) for one in ROUNDS]
    stamps_s = [point.timestamp / 1000 for point in client.get_metric_history(run.info.run_id, "train_loss")]
    assert stamps_s == [pytest.approx(time.time(), abs=300)] * 3
    assert run.data.metrics["valid_nll"] == 0.9
    assert (run.info.run_name, run.info.status) == ("work", "FINISHED")


def test_a_new_run_in_the_folder_of_another_is_another_run(client, tmp_path: Path):
    """Only a folder with a checkpoint is resumed."""
    for _ in range(2):
        Mlflow("calls", tmp_path / "work", {}).rounds(ROUNDS[:1])
    assert len(runs_of(client)) == 2


def test_rounds_that_mlflow_refuses_are_written_later(client, tmp_path: Path, monkeypatch, caplog):
    """A server that is away stops no training: what it lacks is written after the next round, with a warning."""
    tracker = Mlflow("calls", tmp_path / "work", {})
    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, "log_batch", lambda *_args, **_more: (_ for _ in ()).throw(OSError("away")))
        with caplog.at_level(logging.WARNING):
            tracker.rounds(ROUNDS[:1])
    assert "a round is not in MLflow yet: away" in caplog.text
    tracker.rounds(ROUNDS[:2])
    (run,) = runs_of(client)
    assert [step for step, _ in losses(client, run)] == [1, 2]
    tracker.end(ROUNDS, "FINISHED")
    assert [step for step, _ in losses(client, run)] == [1, 2, 3]


@pytest.mark.usefixtures("client")
def test_training_waits_for_mlflow_only_shortly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One retry and 10 s for a request, instead of MLflow's 7 and 120 s; what is set already stays."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    Mlflow("calls", tmp_path / "work", {})
    assert [os.environ[f"MLFLOW_HTTP_REQUEST_{name}"] for name in ("TIMEOUT", "MAX_RETRIES")] == ["3", "1"]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (Stopped(2), "KILLED"), (ConfigurationError("diverged"), "FAILED")]
)
def test_a_run_ends_in_mlflow_as_it_ended(client, tmp_path: Path, error: BaseException | None, status: str):
    """With all its rounds; none begins before training does, and a resumed one runs again."""
    place = Place(tmp_path / "work")
    place.track("calls", {"train": {"steps": 3}})
    assert client.get_experiment_by_name("calls") is None
    with contextlib.suppress(Stopped, ConfigurationError), place.tracked(ROUNDS):
        assert [run.info.status for run in runs_of(client)] == ["RUNNING"]
        if error:
            raise error
    (run,) = runs_of(client)
    assert run.info.status == status
    assert losses(client, run) == [(one.number, one.train_loss) for one in ROUNDS]
    checkpoint.write_text(tmp_path / "work" / checkpoint.CHECKPOINT, "")
    resumed = Place(tmp_path / "work", resume=True)
    resumed.track("calls", {})
    with resumed.tracked(ROUNDS):
        assert [run.info.status for run in runs_of(client)] == ["RUNNING"]


@pytest.mark.usefixtures("client")
def test_an_address_that_is_none_is_refused_before_training(tmp_path: Path, monkeypatch):
    """A wrong address is an error at the start, not in the third hour."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(ConfigurationError, match="MLflow refuses the run"):
        Mlflow("calls", tmp_path / "work", {})


def test_without_mlflow_the_option_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MLflow is an extra."""
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'callmood\[mlflow\]'"):
        Mlflow("calls", tmp_path, {})


def test_training_writes_to_mlflow_only_if_asked(client, encoder_folder, tmp_path: Path):
    """`--mlflow EXPERIMENT` writes what log.csv has; without it, nothing is written."""
    rows = ["path,label,speaker,split"]
    for number, split in enumerate(("train", "valid", "test")):
        for label in EMOTIONS:
            write(tmp_path / f"{split}-{label}.wav", 8000, f"{split}{label}".ljust(20).encode() * 400)
            rows.append(f"{split}-{label}.wav,{label},s{number},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 0
    command = ["train", "PF-hbt-large", str(tmp_path / "data" / "manifest.jsonl")]
    more = ["--encoder", str(encoder_folder("hbt-large")), "--set", "train.epochs=2"]
    assert main([*command, str(tmp_path / "quiet"), *more]) == 0
    assert client.get_experiment_by_name("calls") is None
    assert main([*command, str(tmp_path / "model"), *more, "--mlflow", "calls"]) == 0
    (run,) = runs_of(client)
    with (tmp_path / "model.run" / "log.csv").open(newline="") as file:
        logged = [(int(row["number"]), float(row["train_loss"])) for row in csv.DictReader(file)]
    assert losses(client, run) == logged
    assert run.data.params["train.epochs"] == "2"
    assert (tmp_path / "model.run" / RUN).read_text().strip() == run.info.run_id
