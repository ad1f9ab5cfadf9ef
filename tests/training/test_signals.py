"""Ctrl-C, SIGTERM, a full disk and a full GPU: one line, and a run that can be continued."""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from callmood.training import checkpoint, config, signals
from callmood.training.__main__ import main
from callmood.training.loop import runs, train
from callmood.training.loop.place import Place
from callmood.training.networks import encoders
from callmood.training.pretraining import run


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file grows beyond 100 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_saves_the_step_and_continues_to_the_same_weights(
    tiny: config.Config, tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """A signal in mid-step lets the step end and be saved; the continued run ends with the weights of a whole one."""
    whole = runs.build(tiny)
    train.train(whole, tiny, tones["train"], tones["valid"])
    step = train.Loop.step

    def interrupted(self, batches) -> None:
        if self._progress.step == 0:
            os.kill(os.getpid(), number)
        step(self, batches)

    monkeypatch.setattr(train.Loop, "step", interrupted)
    with pytest.raises(signals.Stopped) as stopped:
        train.train(runs.build(tiny), tiny, tones["train"], tones["valid"], Place(tmp_path))
    assert stopped.value.exit_code == 128 + number
    assert checkpoint.load(tmp_path / checkpoint.CHECKPOINT)["progress"]["step"] == 1
    resumed = runs.build(tiny)
    train.train(resumed, tiny, tones["train"], tones["valid"], Place(tmp_path, resume=True))
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in resumed.state_dict().items())


def test_a_second_signal_does_not_wait():
    """Ctrl-C pressed twice does not wait for the end of the step."""
    with signals.between_steps() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped() is not None
        with pytest.raises(signals.Stopped):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
):
    """A command that is stopped prints one line with the way to continue, and leaves the handlers as they were."""
    before = signal.getsignal(number)
    monkeypatch.setattr(config, "load", lambda *_: os.kill(os.getpid(), number))
    assert main(["train", "demo_tiny", "manifest.jsonl", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err
    assert error == f"callmood-train: stopped by {number.name}; --resume continues from the last checkpoint\n"
    assert signal.getsignal(number) is before


def test_a_gpu_without_memory_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A batch that is too large for the GPU is an error with the options that make it smaller."""

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")

    monkeypatch.setattr(config, "load", fail)
    assert main(["train", "demo_tiny", "manifest.jsonl", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "callmood-train: CUDA out of memory. Tried to allocate 20.00 GiB. Use a smaller batch (train."
    )
    assert "--resume" not in line  # with another batch it is another run


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path):
    """What does not fit is an error with the path; the earlier checkpoint stays, and no other file."""
    path = tmp_path / checkpoint.CHECKPOINT
    checkpoint.save(path, {"step": 1})
    with small_files(), pytest.raises(OSError, match=r"checkpoint\.pt: cannot be written: File too large"):
        checkpoint.save(path, {"step": 2, "model": torch.zeros(100_000)})
    assert checkpoint.load(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_weights_on_a_full_disk_end_with_one_line(
    tiny: config.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The library that writes weights has its own error for a full disk: no traceback, and no half of a file."""
    model = runs.build(tiny)
    monkeypatch.setattr(run, "pretrain", lambda *_: encoders.save(model, tmp_path / "encoder"))
    with small_files():
        assert main(["pretrain", "demo_tiny", "list.csv", str(tmp_path / "encoder")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "File too large" in line
    assert not list((tmp_path / "encoder").glob("*.safetensors"))


@pytest.mark.usefixtures("espeak")
def test_a_training_on_a_full_disk_ends_with_one_line(
    tmp_path: Path, tiny_overrides: Sequence[str], capsys: pytest.CaptureFixture[str]
):
    """The command reports the file and how to continue, with exit code 2 and without a traceback."""
    assert main(["synthesize", str(tmp_path / "corpus"), *tiny_overrides]) == 0
    manifest = capsys.readouterr().out.strip()
    with small_files():
        assert main(["train", "demo_tiny", manifest, str(tmp_path / "bundle"), *tiny_overrides]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("File too large; --resume continues from the last checkpoint")
    assert not list((tmp_path / "bundle.run").glob("*.new"))
