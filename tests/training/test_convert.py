"""Converted checkpoints of other projects give the same labels as the originals."""

import json
import os

import pytest
import torch
import transformers
from tiny import SIZE
from torch.nn import functional

from callmood.bench.speechbrain import Classifier
from callmood.training.__main__ import main
from callmood.training.results.convert import convert
from callmood.worker.errors import ModelError
from callmood.worker.model.model import load

CLASSES = ["neu", "ang", "hap", "sad"]  # first seen, first numbered
OURS = [1, 2, 0, 3]  # anger, happiness, neutral, sadness


def quiet(samples=12_000):
    """As quiet as a telephone may be: what is added to the variance is heard."""
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(3)) * 0.003


@pytest.fixture
def speechbrain(tmp_path):
    """A folder as the recipe leaves it, and the modules it was made of."""
    torch.manual_seed(0)
    encoder = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SIZE)).eval()
    weight = torch.randn(4, 32)
    folder = tmp_path / "emotion-recognition"
    folder.mkdir()
    torch.save({f"model.{name}": tensor for name, tensor in encoder.state_dict().items()}, folder / "wav2vec2.ckpt")
    torch.save({"0.w.weight": weight}, folder / "model.ckpt")
    lines = [f"{name!r} => {index}" for index, name in enumerate(CLASSES)]
    (folder / "label_encoder.txt").write_text("\n".join([*lines, "=" * 16, "'starting_index' => 0", ""]))
    (tmp_path / "encoder.json").write_text(json.dumps(encoder.config.to_dict()))
    return folder, encoder, weight


@pytest.fixture
def hub_pickle(tmp_path):
    """A Hugging Face folder with pickled weights, and the classifier it was made of."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        **SIZE, id2label=dict(enumerate(CLASSES)), use_weighted_layer_sum=True, tie_last_hidden_states=True
    )
    reference = transformers.HubertForSequenceClassification(config).eval()
    folder = tmp_path / "hub"
    folder.mkdir()
    torch.save(reference.state_dict(), folder / "pytorch_model.bin")
    described = {**config.to_dict(), "architectures": ["HubertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000, "do_normalize": False}))
    return folder, reference


def test_speechbrain_checkpoints_say_what_they_said(speechbrain, tmp_path, capsys):
    """Norm, encoder, norm of the whole output, mean, matrix: the same logits, in our order of classes."""
    folder, encoder, weight = speechbrain
    command = ["convert", str(folder), str(tmp_path / "bundle"), "--encoder", str(tmp_path / "encoder.json")]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "emotion-recognition"
    model = load(tmp_path / "bundle")
    waveform = quiet()
    with torch.no_grad():
        output = encoder(functional.layer_norm(waveform, waveform.shape[1:])).last_hidden_state
        expected = (functional.layer_norm(output, output.shape[1:]).mean(dim=1) @ weight.T)[:, OURS]
        found = model(waveform, torch.tensor([waveform.shape[1]]))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing_disable:FutureWarning"
)  # SpeechBrain's use of transformers
@pytest.mark.usefixtures("speechbrain_parts")
def test_what_speechbrain_itself_saved_says_what_speechbrain_says(tmp_path):
    """The recipe's own modules, saved by SpeechBrain under its names, answer as the converted bundle does."""
    classifier = Classifier(tmp_path, transformers.Wav2Vec2Config(**SIZE))
    encoder = str(tmp_path / "encoder" / "config.json")
    recipe = classifier.save(tmp_path / "recipe")
    assert main(["convert", str(recipe), str(tmp_path / "bundle"), "--encoder", encoder]) == 0
    waveform = quiet()
    expected = torch.tensor(classifier.classify_batch(waveform, torch.tensor([waveform.shape[1]]))).log()
    with torch.no_grad():
        found = load(tmp_path / "bundle")(waveform, torch.tensor([waveform.shape[1]])).log_softmax(-1)
    assert expected[0].sort().values.diff().min() > 0.2  # no two classes can be mistaken for each other
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)  # their pooling adds noise of up to 1e-4


def test_pickled_hugging_face_checkpoints_say_what_they_said(hub_pickle, tmp_path):
    """The converted folder gives the logits of transformers' own classifier, in our order of classes."""
    folder, reference = hub_pickle
    convert(folder, tmp_path / "converted")
    waveform = quiet()
    with torch.no_grad():
        expected = reference(waveform).logits[:, OURS]
        found = load(tmp_path / "converted")(waveform, torch.tensor([waveform.shape[1]]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_refused_pickle_names_the_command_that_converts_it(hub_pickle, tmp_path):
    """The worker's error about a pickle has the command that converts it, and the worker loads the result."""
    folder, _ = hub_pickle
    with pytest.raises(ModelError, match=f"callmood-train convert {folder} TARGET"):
        load(folder)
    assert main(["convert", str(folder), str(tmp_path / "target")]) == 0
    assert load(tmp_path / "target").info.digest.startswith("sha256:")


class Malicious:
    """What a pickle can do."""

    def __reduce__(self):
        return os.mkdir, ("never",)


def test_a_pickle_that_runs_code_is_refused(hub_pickle, tmp_path, monkeypatch):
    """Only tensors are unpickled: code in a checkpoint is not run, and nothing is left behind."""
    folder, _ = hub_pickle
    monkeypatch.chdir(tmp_path)
    torch.save({"classifier.weight": Malicious()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pytorch_model"):
        convert(folder, tmp_path / "target")
    assert not (tmp_path / "never").exists()
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("label_encoder.txt", b"'neu' => 0\n'ang' => 1\n'fea' => 2\n'sad' => 3\n", "fea"),
        ("label_encoder.txt", b"'neu' => 0\n'ang' => 2\n", "numbered"),
        ("label_encoder.txt", b"neu = 0\n", "names no class"),
        ("model.ckpt", b"not a pickle", "model.ckpt"),
    ],
)
def test_a_folder_that_is_not_as_it_should_be_is_refused(speechbrain, tmp_path, name, content, message):
    """The error names the file or the class, and no target is left behind."""
    folder, encoder, _ = speechbrain
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        convert(folder, tmp_path / "target", encoder.config.to_dict())
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_conversion_that_does_not_end_leaves_no_folder(hub_pickle, tmp_path, monkeypatch, error):
    """After a full disk or Ctrl-C, the same command can be repeated: no half of a target refuses it."""

    def fail(_: object) -> None:
        raise error

    with monkeypatch.context() as failing:
        failing.setattr("callmood.training.results.convert.load", fail)
        with pytest.raises(type(error)):
            convert(hub_pickle[0], tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert convert(hub_pickle[0], tmp_path / "target").digest


def test_another_encoder_than_said_is_refused(speechbrain, tmp_path):
    """Without its configuration a small encoder is taken for wav2vec 2.0 base, which it is not."""
    with pytest.raises(ModelError, match="size mismatch"):
        convert(speechbrain[0], tmp_path / "target")


def test_nothing_is_written_over(hub_pickle, tmp_path):
    """A target that exists is left alone."""
    with pytest.raises(ModelError, match="exists already"):
        convert(hub_pickle[0], tmp_path)
