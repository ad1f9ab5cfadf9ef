"""Folders that can be loaded, and the errors for those that cannot."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import SIZE

from callmood.worker.errors import ModelError
from callmood.worker.model.checkpoints import Calibration
from callmood.worker.model.model import EmotionModel, Release, load, save_bundle

ONE_LAYER = SIZE | {"num_hidden_layers": 1}
RELEASE = Release("tiny", "1.2.3", "abc123", Calibration(temperature=1.7, abstain_below=0.4))
WAVEFORM = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(1))
LENGTH = torch.tensor([8_000])


def logits(model):
    with torch.no_grad():
        return model(WAVEFORM, LENGTH)


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


@pytest.fixture
def model():
    return EmotionModel.new(transformers.HubertConfig(**ONE_LAYER).to_dict()).eval()


@pytest.fixture
def bundle(model, tmp_path):
    save_bundle(model, tmp_path / "bundle", RELEASE, storage=torch.float32)
    return tmp_path / "bundle"


@pytest.fixture
def hub_folder(tmp_path):
    """A folder as a user downloads it: the published names of tensors, labels and files."""
    labels = {0: "neu", 1: "hap", 2: "ang", 3: "sad"}
    config = transformers.HubertConfig(**ONE_LAYER, id2label=labels, use_weighted_layer_sum=True)
    reference = transformers.HubertForSequenceClassification(config)
    folder = tmp_path / "hub"
    folder.mkdir()
    tensors = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor.contiguous()
        for name, tensor in reference.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({**config.to_dict(), "architectures": ["HubertForSequenceClassification"]})
    )
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000, "do_normalize": False}))
    reference.eval()
    return folder, reference


def test_a_bundle_comes_back_as_it_was(model, bundle):
    """A saved bundle gives equal logits, and says which model it is."""
    loaded = load(bundle)
    torch.testing.assert_close(logits(loaded), logits(model), atol=0, rtol=0)
    assert (loaded.info.id, loaded.info.version) == ("tiny", "1.2.3")
    assert loaded.calibration == RELEASE.calibration
    assert loaded.info.digest == json.loads((bundle / "config.json").read_text())["digest"]


def test_a_bundle_may_be_stored_in_half_precision(model, tmp_path):
    """Half the size, nearly the same logits, and float32 when it is loaded."""
    info = save_bundle(model, tmp_path, RELEASE)
    loaded = load(tmp_path)
    assert loaded.info == info
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(loaded), logits(model), atol=2e-3, rtol=0)


@pytest.mark.parametrize("part", ["weights", "settings"])
def test_a_bundle_that_was_changed_is_refused(bundle, part):
    """One flipped bit of the weights, or another threshold, no longer fits the stated digest."""
    if part == "weights":
        weights = bytearray((bundle / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (bundle / "model.safetensors").write_bytes(weights)
    else:
        change_json(bundle / "config.json", calibration={"temperature": 1.7, "abstain_below": 0.0})
    with pytest.raises(ModelError, match="sha256"):
        load(bundle)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "callmood.model/2"}, "callmood.model/1"),
        ({"labels": ["anger", "fear", "neutral", "sadness"]}, "fear"),
        ({"labels": ["anger", "anger", "neutral", "sadness"]}, "they must be anger"),
        ({"labels": ["anger", "happiness", "neutral"]}, "they must be anger"),
        ({"audio": {"rate_hz": 8_000, "normalize": True}}, "8000 Hz"),
        ({"head": "transformer"}, "transformer"),
        ({"encoder": {"model_type": "whisper"}}, "whisper"),
        ({"calibration": {"heat": 1}}, "heat"),
    ],
)
def test_a_bundle_that_cannot_be_used_says_why(bundle, change, said):
    """What does not fit is a model error that names it."""
    config = json.loads((bundle / "config.json").read_text())
    del config["digest"]
    (bundle / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=said):
        load(bundle)


def test_a_hugging_face_folder_is_put_in_our_order(hub_folder):
    """Published names and label order give transformers' logits, reordered to ours."""
    folder, reference = hub_folder
    loaded = load(folder)
    with torch.no_grad():
        expected = reference(WAVEFORM).logits[:, [2, 1, 0, 3]]
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=0)
    assert loaded.info.id == "hub"
    assert loaded.info.digest.startswith("sha256:")


def test_labels_may_be_full_names_in_any_case(hub_folder):
    """`Angry`, `HAPPINESS` and the like are understood wherever they stand."""
    folder, reference = hub_folder
    change_json(folder / "config.json", id2label={"0": "Angry", "1": "HAPPINESS", "2": "Sad", "3": "neutral"})
    with torch.no_grad():
        expected = reference(WAVEFORM).logits[:, [0, 1, 3, 2]]
    torch.testing.assert_close(logits(load(folder)), expected, atol=1e-5, rtol=0)


def test_waveforms_are_normalised_if_the_preprocessor_says_so(hub_folder):
    """`do_normalize` of `preprocessor_config.json` decides."""
    folder, _ = hub_folder
    change_json(folder / "preprocessor_config.json", do_normalize=True)
    loaded = load(folder)
    with torch.no_grad():
        torch.testing.assert_close(loaded(0.1 * WAVEFORM, LENGTH), logits(loaded), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"id2label": {"0": "calm", "1": "hap", "2": "ang", "3": "sad"}}, "calm"),
        (
            "config.json",
            {"id2label": {"0": "neu", "1": "hap", "2": "ang", "3": "sad", "4": "frustrated"}},
            "classes are neu, hap, ang, sad, frustrated; they must be anger, happiness, neutral, sadness",
        ),
        ("config.json", {"architectures": ["HubertForCTC"]}, "HubertForSequenceClassification"),
        ("config.json", {"model_type": "wav2vec2"}, "HubertForSequenceClassification"),
        ("config.json", {"add_adapter": True}, "adapter"),
        ("config.json", {"num_hidden_layers": 2}, "layer_weights"),
        ("config.json", {"hidden_size": 64}, "size mismatch"),
        ("config.json", {"conv_bias": True}, r"are missing or unknown: encoder\.feature_extractor"),
        ("preprocessor_config.json", {"sampling_rate": 8_000}, "8000 Hz"),
    ],
)
def test_a_hugging_face_folder_that_cannot_be_used_says_why(hub_folder, file, change, said):
    """What does not fit is a model error that names it."""
    folder, _ = hub_folder
    change_json(folder / file, **change)
    with pytest.raises(ModelError, match=said):
        load(folder)


def test_the_preprocessor_is_not_guessed(hub_folder):
    """Without `preprocessor_config.json` nobody knows whether waveforms are normalised."""
    folder, _ = hub_folder
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="preprocessor_config"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "best.pt", "best.pth"])
def test_a_pickle_is_refused(bundle, name):
    """Only safetensors is read; the error names the command that converts."""
    (bundle / "model.safetensors").rename(bundle / name)
    with pytest.raises(ModelError, match="callmood-train convert"):
        load(bundle)


def test_weights_that_are_not_finite_are_refused(hub_folder):
    """A NaN in the weights is found at load, not in every answer."""
    folder, _ = hub_folder
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][1] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"head\.classifier\.bias"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_unreadable_weights_are_refused(hub_folder, content):
    """A truncated download is a model error."""
    folder, _ = hub_folder
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(folder)


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_an_unreadable_configuration_is_refused(bundle, content):
    """A missing, empty or foreign `config.json` is a model error."""
    (bundle / "config.json").unlink()
    if content is not None:
        (bundle / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json|architectures"):
        load(bundle)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    """A wrong path is told apart from a wrong model, and never looked up on a network."""
    with pytest.raises(ModelError, match="no such folder"):
        load(tmp_path / "superb" / "hubert-large-superb-er")
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        load(tmp_path)
