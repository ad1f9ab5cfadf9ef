"""Pre-training: features and loss equal the references, options and lists are checked, runs resume."""

import csv
import dataclasses
import json
import shlex
import signal
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import documented
import forked
import numpy as np
import pytest
import torch
from tiny import BASE, LARGE, SIZE
from torch import Tensor
from torch.nn import functional

from callmood.training import checkpoint, config, wav
from callmood.training.__main__ import main
from callmood.training.loop import runs
from callmood.training.loop.data import Clip
from callmood.training.networks import encoders
from callmood.training.options import ModelConfig, PretrainConfig
from callmood.training.pretraining import masked, mfcc
from callmood.training.pretraining import run as pretraining
from callmood.training.pretraining.targets import Clusters
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.model import EmotionModel

CLUSTERS = 6
CONFIG = """
[model]
id = "tiny"
[model.encoder]
model_type = "hubert"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
intermediate_size = 32
conv_dim = [16, 16]
conv_kernel = [400, 3]
conv_stride = [160, 2]
conv_bias = true
feat_extract_norm = "layer"
do_stable_layer_norm = true
num_conv_pos_embeddings = 16
num_conv_pos_embedding_groups = 2
[train]
seed = 1
epochs = 3
batch_size = 4
checkpoint_steps = 1
train = "all"
encoder_lr = 1e-3
head_lr = 1e-3
[augment]
probability = 0.5
[pretrain]
clusters = 6
mask_length = 5
"""


def encoder(shape: dict[str, Any], **more: Any) -> EmotionModel:
    """A small HuBERT without dropout."""
    names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")
    torch.manual_seed(5)
    return EmotionModel.new({"model_type": "hubert", **SIZE, **shape, **dict.fromkeys(names, 0.0), **more})


@pytest.mark.slow
def test_commands_start_without_optional_packages():
    """`callmood-train rows` works where neither the extra `train` nor scipy is installed."""
    hidden = ("matplotlib", "pyarrow", "scipy", "sklearn", "tensorboard")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden})); from callmood.training import __main__ as command"
    )
    done = subprocess.run([sys.executable, "-c", f"{program}; sys.exit(command.main(['rows']))"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("samples", [mfcc.WINDOW, 719, 16_000])
def test_mfccs_are_those_of_torchaudio(torchaudio_parts: dict[str, Any], samples: int):
    """13 coefficients as Kaldi's, and their differences, equal torchaudio's, from one window on."""
    waveform = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    coefficients = torchaudio_parts["kaldi"].mfcc(waveform[None], sample_frequency=16_000, use_energy=False).T
    first = torchaudio_parts["deltas"](coefficients)
    expected = torch.cat([coefficients, first, torchaudio_parts["deltas"](first)]).T
    np.testing.assert_allclose(mfcc.mfcc(waveform), expected, atol=1e-3)


def test_an_encoders_frames_have_the_mfcc_in_their_middle():
    """Each frame of an encoder that hears 45 ms has the MFCCs of the 25 ms in its middle, also at 8 kHz."""
    model = encoder({**LARGE, "conv_dim": [16, 16], "conv_kernel": [400, 3], "conv_stride": [160, 2]})
    clip = Clip(8000, (np.random.default_rng(1).normal(size=4000) * 3000).astype("<i2").tobytes(), 0)
    ((index, found),) = Clusters(model, PretrainConfig(), 1)._frames([clip])
    waveform, lengths = masked.data.collate([clip]).inputs
    assert index == 0
    np.testing.assert_array_equal(found, mfcc.mfcc(waveform[0])[1::2][: int(model.frames(lengths)[0])])


@pytest.mark.parametrize(("shape", "lengths"), [(LARGE, (16_000, 9_000)), (BASE, (12_000, 12_000))])
def test_the_loss_is_that_of_torchaudio(
    torchaudio_parts: dict[str, Any], shape: dict[str, Any], lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    """Loss and gradients equal those of torchaudio's HuBERT pre-training model with the same weights and masks."""
    model = encoder(shape)
    reference = torchaudio_parts["pretraining"](model, shape is LARGE, CLUSTERS)
    waveforms = torch.randn(2, max(lengths), generator=torch.Generator().manual_seed(1))
    clips = [Clip(16_000, b"\0\0" * length, 0) for length in lengths]
    frames = model.frames(torch.tensor(lengths)).tolist()
    rng = np.random.default_rng(2)
    pairs = [(clip, rng.integers(CLUSTERS, size=count)) for clip, count in zip(clips, frames, strict=True)]
    settings = dataclasses.replace(
        config.load(config.find("calls-hbt-large")), pretrain=PretrainConfig(clusters=CLUSTERS, feature_penalty=3.0)
    )
    task = masked.Prediction(model, settings, pairs, pairs)
    masks = task.net.masks(torch.arange(max(frames)) < torch.tensor(frames)[:, None])
    monkeypatch.setattr(task.net, "masks", lambda _: masks)
    model.spec = dataclasses.replace(model.spec, normalize=False)
    batch = masked._collate(pairs)._replace(waveforms=waveforms)
    ours = task.loss(task.net(*batch), batch)
    ours.backward()

    reference.logit_generator.label_embeddings.data.copy_(model.head.codes)
    reference.logit_generator.final_proj.load_state_dict(model.head.projection.state_dict())
    embedding = reference.mask_generator.mask_embedding

    def mask(hidden: Tensor, _padding: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(masks[:, :, None], embedding, hidden), masks

    monkeypatch.setattr(reference.mask_generator, "forward", mask)
    known = torch.tensor(lengths) if lengths[0] != lengths[1] else None
    logits, _, energy = reference(waveforms, batch.targets.clamp(min=0), known)
    theirs = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)) + 3.0 * energy
    theirs.backward()
    if known is None:  # torchaudio's penalty sees padding
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        torch.testing.assert_close(
            model.encoder.feature_extractor.conv_layers[0].conv.weight.grad,
            reference.wav2vec2.feature_extractor.conv_layers[0].conv.weight.grad,
            rtol=1e-3,
            atol=1e-5,
        )
    assert (ours - 3.0 * task.net(*batch).energy).item() == pytest.approx((theirs - 3.0 * energy).item(), rel=1e-5)
    torch.testing.assert_close(model.encoder.masked_spec_embed.grad, embedding.grad, rtol=1e-3, atol=1e-6)
    expected = reference.logit_generator.label_embeddings.grad
    torch.testing.assert_close(model.head.codes.grad, expected, rtol=1e-3, atol=1e-6)


def test_masks_cover_valid_frames_only():
    """Two stretches at least of each utterance are masked, about half of a long one, and nothing of the padding."""
    model = encoder(LARGE)
    net = masked.Masked(model, 0.8, 10)
    valid = torch.arange(500) < torch.tensor([[500], [40], [12]])
    np.random.seed(0)  # noqa: NPY002 - transformers draws from it
    masks = net.masks(valid)
    assert not (masks & ~valid).any()
    assert 0.4 < masks[0].float().mean() < 0.7
    assert all(int(row.sum()) >= 10 for row in masks)


def test_what_is_masked_does_not_reach_the_prediction():
    """Masked frames are replaced before the transformer: other features there change nothing."""
    model = encoder(LARGE).eval()
    features, valid = model.features(torch.randn(1, 9000), torch.tensor([9000]))
    masks = torch.zeros_like(valid)
    masks[:, 5:15] = True
    other = features.clone()
    other[:, 5:15] += 1
    with torch.inference_mode():
        first, second = (model.layers(one, valid, masks)[-1] for one in (features, other))
        assert torch.equal(first, second)
        assert not torch.equal(model.layers(features, valid)[-1], model.layers(other, valid)[-1])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, 24 utterances, a list of them without labels, and one with labels."""
    folder = tmp_path_factory.mktemp("spoken")
    (folder / "tiny.toml").write_text(CONFIG)
    rng = np.random.default_rng(3)
    rows = []
    for number in range(24):
        label = ("anger", "happiness", "neutral", "sadness")[number % 4]
        time_s = np.arange(rng.integers(3200, 7200)) / 8000
        sound = np.sin(2 * np.pi * 200 * (1 + number % 4) * time_s) + rng.normal(scale=0.2, size=time_s.size)
        wav.write(folder / f"{number}.wav", 8000, (sound * 6000).astype("<i2").tobytes())
        split = ("train", "train", "train", "train", "valid", "test")[number // 4]
        rows.append({"path": f"{number}.wav", "label": label, "speaker": f"{split}{number % 2}", "split": split})
    for name, columns in (("calls.csv", list(rows[0])), ("unlabelled.csv", ["path"])):
        with (folder / name).open("w", newline="") as file:
            table = csv.DictWriter(file, columns, extrasaction="ignore")
            table.writeheader()
            table.writerows(rows)
    return folder


def arguments(spoken: Path, out: Path, *more: str) -> list[str]:
    listed = ["pretrain", str(spoken / "tiny.toml"), str(spoken / "unlabelled.csv"), str(out)]
    return [*listed, *(word for value in more for word in ("--set", value))]


def test_what_is_left_out_is_counted(spoken: Path, tmp_path: Path):
    """Missing, too short, too long and test utterances are left out and counted; the split `valid` measures."""
    for name, samples in (("short", 400), ("longest", 240_000), ("recording", 240_001)):
        wav.write(tmp_path / f"{name}.wav", 8000, bytes(2 * samples))
    splits = ("", "valid", "test", "")
    names = ("missing", "short", "longest", "recording")
    lines = [f"{spoken}/{number}.wav,{split}" for number, split in enumerate(splits)]
    (tmp_path / "list.csv").write_text("\n".join(["path,split", *lines, *(f"{name}.wav," for name in names)]) + "\n")
    settings = config.load(spoken / "tiny.toml")
    speech = pretraining.read(tmp_path / "list.csv", runs.build(settings), settings)
    assert (len(speech.train), len(speech.valid)) == (3, 1)
    assert speech.left_out == {
        "split test": 1,
        "audio missing": 1,
        "shorter than a mask of 5 frames": 1,
        "longer than 30 s": 1,
    }


def test_utterances_that_measure_are_in_no_training(spoken: Path):
    """Without a split `valid`, a random part of the list measures, and the rest trains."""
    settings = config.load(spoken / "tiny.toml")
    settings = dataclasses.replace(settings, pretrain=dataclasses.replace(settings.pretrain, valid_share=0.25))
    speech = pretraining.read(spoken / "unlabelled.csv", runs.build(settings), settings)
    assert (len(speech.train), len(speech.valid)) == (18, 6)
    assert len({clip.audio for clip in speech.clips}) == 24


def test_clusters_of_another_run_are_not_kept(tmp_path: Path):
    """Those of the same run come back as they were, an utterance at a time."""
    targets = [np.array([1, 2, 3]), np.array([4]), np.array([0, 5])]
    pretraining._keep(tmp_path / "targets.npz", targets, "this run")
    kept = pretraining._kept(tmp_path / "targets.npz", "this run")
    assert [one.tolist() for one in kept or []] == [[1, 2, 3], [4], [0, 5]]
    assert pretraining._kept(tmp_path / "targets.npz", "another run") is None
    assert pretraining._kept(tmp_path / "none.npz", "this run") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.crop_s=1.0", "set train.crop_s = 0"),
        ("train.speeds=[0.9]", "set train.speeds"),
        ('train.balance="classes"', "needs labels"),
        ('train.train="head"', "trains no encoder"),
        ('loss.kind="focal"', "table loss"),
        ("loss.label_smoothing=0.1", "table loss"),
        ("loss.soft_labels=true", "table loss"),
        ("pretrain.layer=1", "needs a pre-trained encoder"),
        ('pretrain.teacher="x"', "no effect with layer = 0"),
        ("pretrain.clusters=1", "nothing to predict"),
        ("pretrain.clusters=100_000", "use more speech"),
        ("pretrain.mask_prob=1.2", "from 0 to 1"),
        ("pretrain.mask_length=0", "positive"),
        ("pretrain.mask_length=400", "too few utterances"),
        ("model.encoder.mask_time_prob=0.0", "mask_time_prob"),
        ("model.encoder.conv_stride=[100, 2]", "set pretrain.layer"),
    ],
)
def test_options_that_cannot_work_are_refused(
    spoken: Path, tmp_path: Path, change: str, words: str, capsys: pytest.CaptureFixture[str]
):
    """What pre-training would ignore, or cannot do, ends with the option's name, before any step."""
    assert main(arguments(spoken, tmp_path / "encoder", change)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


def test_deterministic_algorithms_are_chosen(spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`train.deterministic` sets torch's switch before the model is built, and only then."""
    chosen: list[Any] = []

    def stopped(_: config.Config) -> EmotionModel:
        raise ConfigurationError("built")

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # restored after the test
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *how, **more: chosen.append((how, more)))
    monkeypatch.setattr(runs, "build", stopped)
    for value, expected in (("false", []), ("true", [((True,), {"warn_only": True})])):
        assert main(arguments(spoken, tmp_path / "encoder", f"train.deterministic={value}")) == 2
        assert chosen == expected


@pytest.mark.parametrize("layer", [0, 2])
def test_frames_are_kept_once(layer: int, monkeypatch: pytest.MonkeyPatch):
    """Features of many clips of any rate are gathered in one array of their size, without a second copy."""
    rng = np.random.default_rng(1)
    clips = [
        Clip(rate_hz, rng.normal(scale=3000, size=rng.integers(4000, 9000)).astype("<i2").tobytes(), 0)
        for rate_hz in (8000, 16_000, 48_000, 8000)
    ]
    model = encoder({**LARGE, "conv_dim": [16, 16], "conv_kernel": [400, 3], "conv_stride": [160, 2]})
    clusters = Clusters(model, PretrainConfig(layer=layer), 2)
    known = [(index, found.copy()) for index, found in clusters._frames(clips)]
    expected = np.concatenate([found for _, found in known])
    np.testing.assert_array_equal(clusters._together(clips), expected)

    monkeypatch.setattr(clusters, "_frames", lambda _: ((index, found.copy()) for index, found in known * 100))
    tracemalloc.start()
    try:
        gathered = clusters._together(clips * 100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(gathered, np.concatenate([expected] * 100))
    assert peak < 1.5 * gathered.nbytes


@pytest.mark.slow
def test_the_commands_of_the_document_lead_to_a_model(spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """docs/training.md, "Speech without labels": an encoder is pre-trained twice, and fine-tuned from there."""
    section = documented.sections("docs/training.md")["Speech without labels"]
    for path in spoken.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "own", "calls.csv", "data"]) == 0
    commands = [line for block in documented.blocks(section) for line in block.splitlines()]
    assert len(commands) == 3
    for line in commands:
        for name in ("calls-hbt-large", "PF-hbt-large"):
            line = line.replace(name, "tiny.toml").replace("layer=18", "layer=2")  # noqa: PLW2901 - one line, made small
        assert main(shlex.split(line)[1:]) == 0, line
    report = json.loads((tmp_path / "encoder" / pretraining.REPORT).read_text())
    assert report["config"]["pretrain"]["layer"] == 2
    first, second = (encoders.new(ModelConfig(id="x", pretrained=f"encoder{n}"), 1) for n in ("-0", ""))
    weights = [dict(model.encoder.named_parameters()) for model in (first, second)]
    assert not torch.equal(weights[0]["masked_spec_embed"], weights[1]["masked_spec_embed"])
    run = json.loads((tmp_path / "model.run" / "run.json").read_text())
    assert run["config"]["model"]["pretrained"] == "encoder"


def weights(out: Path) -> dict[str, Tensor]:
    """The last weights and Adam's moments of a run, and its best weights."""
    state = checkpoint.load(out.with_name(out.name + ".run") / checkpoint.CHECKPOINT)
    moments = {
        f"{number}.{name}": value for number, one in state["optimizer"]["state"].items() for name, value in one.items()
    }
    return {**state["model"], **{f"best.{name}": tensor for name, tensor in state["best"].items()}, **moments}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(spoken: Path, tmp_path: Path):
    """After a kill with the clusters just found, and two in training, `--resume` gives the same weights bit by bit."""
    assert main(arguments(spoken, tmp_path / "undisturbed")) == 0
    out = tmp_path / "killed"
    waits = [out.with_name("killed.run") / name for name in (pretraining.TARGETS, *[checkpoint.CHECKPOINT] * 2)]
    for path in waits:
        before = path.stat().st_mtime_ns if path.exists() else 0
        running = forked.start_training([*arguments(spoken, out), "--resume"])
        while running.is_alive() and not (path.exists() and path.stat().st_mtime_ns != before):
            running.join(0.001)
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL
    assert main([*arguments(spoken, out), "--resume"]) == 0
    undisturbed, killed = weights(tmp_path / "undisturbed"), weights(out)
    assert undisturbed.keys() == killed.keys()
    assert all(torch.equal(undisturbed[name], killed[name]) for name in undisturbed)
    name = "model.safetensors"
    assert (tmp_path / "undisturbed" / name).read_bytes() == (out / name).read_bytes()
    assert main([*arguments(spoken, out, "pretrain.clusters=7"), "--resume"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_train_as_one_that_accumulates(spoken: Path, tmp_path: Path):
    """Two processes, started as `torchrun` does, end with the weights of one that accumulates two batches."""
    plain = ("augment.probability=0.0", "train.encoder_lr=1e-4", "train.head_lr=1e-4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared = arguments(spoken, tmp_path / "shared", *plain)
    ranks = [forked.start_training(shared, {**world, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert main(arguments(spoken, tmp_path / "alone", *plain, "train.accumulate=2")) == 0
    found, expected = weights(tmp_path / "shared"), weights(tmp_path / "alone")
    for name in checkpoint.load(tmp_path / "alone.run" / checkpoint.CHECKPOINT)["model"]:
        torch.testing.assert_close(found[name], expected[name], atol=2e-4, rtol=0, msg=name)
