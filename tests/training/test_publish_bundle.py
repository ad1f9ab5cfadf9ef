"""Published bundles: what transformers loads of them, and what the worker loads back."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny import BASE, LARGE, SIZE

from callmood.training.__main__ import main
from callmood.training.results.publish import to_transformers
from callmood.worker.model.checkpoints import HeadKind
from callmood.worker.model.model import EmotionModel, Release, load, save_bundle

SHAPES = {"base": BASE, "large": LARGE}


def bundle(folder: Path, kind: str, shape: str, **more: object) -> Path:
    torch.manual_seed(4)
    weighted = shape == "base"  # transformers 5 weighs another last layer where there is a last norm
    encoder = {"model_type": kind, **SIZE, **SHAPES[shape], "use_weighted_layer_sum": weighted}
    model = EmotionModel.new(encoder, **{"head": HeadKind.HF_SUPERB, **more})
    save_bundle(model, folder, Release("ours", "1", "test"), storage=torch.float32)
    return folder


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "name"), [("hubert", "Hubert"), ("wav2vec2", "Wav2Vec2"), ("wavlm", "WavLM")])
def test_transformers_loads_it_and_answers_alike(tmp_path: Path, kind: str, name: str, shape: str):
    """The folder loads in transformers under its own class, and in the worker: the same logits and labels."""
    source = bundle(tmp_path / "bundle", kind, shape, normalize=False)
    assert main(["to-transformers", str(source), str(tmp_path / "out")]) == 0
    theirs, loading = getattr(transformers, f"{name}ForSequenceClassification").from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    waveforms, lengths = torch.randn(2, 6000), torch.tensor([6000, 6000])
    with torch.inference_mode():
        expected = load(source)(waveforms, lengths)
        torch.testing.assert_close(load(tmp_path / "out")(waveforms, lengths), expected)
        torch.testing.assert_close(theirs.eval()(waveforms).logits, expected, atol=1e-5, rtol=1e-4)
    assert theirs.config.id2label == {0: "anger", 1: "happiness", 2: "neutral", 3: "sadness"}


def test_the_eps_of_the_waveform_goes_along(tmp_path: Path):
    """A model that was trained with another eps keeps it, there and back."""
    source = bundle(tmp_path / "bundle", "hubert", "base", normalize_eps=1e-5)
    assert main(["to-transformers", str(source), str(tmp_path / "out")]) == 0
    assert load(tmp_path / "out").spec.normalize_eps == 1e-5
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["do_normalize"] is True


def test_an_existing_folder_is_refused(tmp_path: Path, capsys):
    """The bundle itself, or a folder with other files, is neither overwritten nor deleted."""
    source = bundle(tmp_path / "bundle", "hubert", "base")
    before = (source / "config.json").read_bytes()
    assert main(["to-transformers", str(source), str(source)]) == 2
    assert "bundle exists already" in capsys.readouterr().err
    assert (source / "config.json").read_bytes() == before


@pytest.mark.parametrize("head", [head for head in HeadKind if head is not HeadKind.HF_SUPERB])
def test_a_head_that_transformers_does_not_have_is_refused(tmp_path: Path, head: HeadKind, capsys):
    """Ours alone knows these heads: nothing is written that would answer otherwise."""
    source = bundle(tmp_path / "bundle", "hubert", "large", head=head)
    assert main(["to-transformers", str(source), str(tmp_path / "out")]) == 2
    assert f"no class for the head {head}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_weighted_sum_that_transformers_counts_otherwise_is_refused(tmp_path: Path, capsys):
    """A folder whose labels would differ from the bundle's is not left behind."""
    torch.manual_seed(4)
    encoder = {"model_type": "hubert", **SIZE, **LARGE, "use_weighted_layer_sum": True}
    model = EmotionModel.new(encoder, head=HeadKind.HF_SUPERB)
    with torch.no_grad():
        model.encoder.encoder.layer_norm.weight.mul_(5)
    save_bundle(model, tmp_path / "bundle", Release("ours", "1", "test"), storage=torch.float32)
    assert main(["to-transformers", str(tmp_path / "bundle"), str(tmp_path / "out")]) == 2
    assert "computes other logits: one differs by" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    """`push` without a hub ends with an error of one line."""
    source = bundle(tmp_path / "bundle", "hubert", "base")
    for name in ("report.json", "README.md"):
        (source / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(source), "somebody/model"]) == 2
    error = capsys.readouterr().err
    assert "the hub refuses" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_command_that_does_not_end_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error):
    """After a full disk or Ctrl-C, the same command can be repeated: no half of a folder refuses it."""
    source = bundle(tmp_path / "bundle", "hubert", "base")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as failing:
        failing.setattr("callmood.training.results.publish.save_file", fail)
        with pytest.raises(type(error)):
            to_transformers(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    to_transformers(source, tmp_path / "out")
