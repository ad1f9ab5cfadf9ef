"""A run that is killed and resumed, or shared by processes, ends with the same weights."""

import signal
import socket
import time
from pathlib import Path

import forked
import iemocap_tree
import pytest
import torch

from callmood.training import checkpoint, manifest, protocols
from callmood.training.__main__ import main
from callmood.training.corpora import iemocap, prepare

# Everything that draws: dropout, LayerDrop, SpecAugment, speeds, crops, telephone lines, shuffling, accumulation.
SETTINGS = (
    "train.epochs=3",
    "train.checkpoint_steps=1",
    "train.accumulate=2",
    "train.batch_size=4",
    "train.bucket_batches=2",
    "train.crop_s=0.4",
    "train.speeds=[0.9, 1.1]",
    "train.encoder_lr=1e-3",
    "model.encoder.apply_spec_augment=true",
    "model.encoder.mask_time_length=2",
    "augment.probability=0.5",
)
STEPS = 3 * 4  # 32 utterances, 8 a step
KILLS = 5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def corpus(encoder_folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest with splits, and an encoder."""
    root = tmp_path_factory.mktemp("resume")
    tree = iemocap_tree.write(root / "tree", iemocap_tree.small(2))
    path = prepare.prepare(iemocap.CORPUS, tree, root / "data", prepare.Options(partial=True))
    items = protocols.folds("loso_session_strict", manifest.read_any(path), 1)[0].items
    train = [item for item in items if item.split == "train"][:32]
    manifest.write(path, [*train, *(item for item in items if item.split != "train")])
    return path, encoder_folder("hbt-large")


def arguments(corpus: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    path, encoder = corpus
    settings = [*SETTINGS, f"model.pretrained='{encoder}'", *more]
    return ["train", "PF-hbt-large", str(path), str(out), *(w for value in settings for w in ("--set", value))]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The result of the run: the best weights, the last ones, and Adam's moments."""
    state = checkpoint.load(out.with_name(out.name + ".run") / checkpoint.CHECKPOINT)
    moments = {
        f"adam.{index}.{name}": value
        for index, values in state["optimizer"]["state"].items()
        for name, value in values.items()
    }
    best = {f"best.{name}": tensor for name, tensor in state["best"].items()}
    assert state["progress"]["step"] == STEPS
    return {**state["model"], **best, **moments}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "bundle"
    assert main(arguments(corpus, out)) == 0
    return out


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(corpus, undisturbed: Path, tmp_path: Path):
    """After five kills at any instant, each with `--resume`, weights and bundle are the same bit by bit."""
    out = tmp_path / "bundle"
    folder = tmp_path / "bundle.run"
    seen: set[int] = set()
    for kill in range(KILLS):
        before = (folder / checkpoint.CHECKPOINT).stat().st_mtime_ns if seen else 0
        training = forked.start_training([*arguments(corpus, out), "--resume"])
        while training.is_alive():  # until it has saved once more, and a moment longer
            path = folder / checkpoint.CHECKPOINT
            if path.exists() and path.stat().st_mtime_ns != before:
                time.sleep(0.004 * kill)
                training.kill()
                break
            time.sleep(0.001)
        training.join()
        assert training.exitcode == -signal.SIGKILL
        seen.add(checkpoint.load(folder / checkpoint.CHECKPOINT)["progress"]["step"])
    training = forked.start_training([*arguments(corpus, out), "--resume"])
    training.join()
    assert training.exitcode == 0
    assert len(seen) == KILLS
    assert same(weights(out), weights(undisturbed))
    assert (out / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def test_a_run_is_not_trained_over(corpus, undisturbed: Path, capsys: pytest.CaptureFixture[str]):
    """Without `--resume`, a folder that holds a run is refused, and left alone."""
    before = weights(undisturbed)
    assert main(arguments(corpus, undisturbed)) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert same(weights(undisturbed), before)


def test_a_run_of_another_configuration_is_not_resumed(corpus, undisturbed: Path, capsys: pytest.CaptureFixture[str]):
    """`--resume` under another configuration is refused."""
    assert main([*arguments(corpus, undisturbed, "train.head_lr=1.0"), "--resume"]) == 2
    assert "another configuration" in capsys.readouterr().err


def test_a_torn_checkpoint_is_refused(corpus, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A checkpoint that cannot be read is an error with its path, and not a silent start from the beginning."""
    (tmp_path / "bundle.run").mkdir()
    whole = (undisturbed.with_name("bundle.run") / checkpoint.CHECKPOINT).read_bytes()
    (tmp_path / "bundle.run" / checkpoint.CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    assert main([*arguments(corpus, tmp_path / "bundle"), "--resume"]) == 2
    assert "cannot resume from this checkpoint" in capsys.readouterr().err


def test_two_processes_train_as_one_that_accumulates(corpus, tmp_path: Path):
    """Two processes, started as `torchrun` does, end with the weights of one that accumulates twice as much."""
    out = tmp_path / "bundle"
    shared_out = arguments(corpus, out, "train.accumulate=1", "train.encoder_lr=1e-4", "train.head_lr=1e-4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [forked.start_training(shared_out, {**world, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    alone = tmp_path / "alone"
    assert main(arguments(corpus, alone, "train.encoder_lr=1e-4", "train.head_lr=1e-4")) == 0
    shared, single = weights(out), weights(alone)
    for name, tensor in single.items():
        if not name.startswith("adam."):
            torch.testing.assert_close(shared[name], tensor, atol=2e-4, rtol=0, msg=name)


def test_the_log_has_every_round_once(undisturbed: Path):
    """`log.csv` has one line for each round; TensorBoard's files are beside it."""
    folder = undisturbed.with_name("bundle.run")
    lines = (folder / "log.csv").read_text().splitlines()
    assert lines[0] == "number,train_loss,valid_error,valid_nll,rate_factor,seconds"
    assert [line.partition(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert list((folder / "tensorboard").iterdir())
