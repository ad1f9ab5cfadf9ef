"""Pre-trained encoders from folders as the hub has them, and what is refused."""

import json
import shutil
from pathlib import Path

import encoder_folders
import pytest
import torch
import transformers
from tiny import LARGE, SIZE

from callmood.training import config
from callmood.training.loop import runs
from callmood.training.loop.data import Clip
from callmood.training.networks import encoders
from callmood.training.options import LoraConfig, ModelConfig
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.checkpoints import HeadKind
from callmood.worker.model.model import EmotionModel, Release, save_bundle


def settings(folder: Path, **changes: object) -> ModelConfig:
    return ModelConfig(**{"id": "test", "pretrained": str(folder), **changes})


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickled"])
@pytest.mark.parametrize("kind", encoder_folders.KINDS)
def test_every_published_kind_loads_with_its_own_weights(encoder_folder, kind: str, pickled):
    """Whatever stood on the encoder when it was published, its weights are those of the file, under today's names."""
    model = encoders.new(settings(encoder_folder(kind, pickled=pickled)), seed=1)
    config_name, class_name, shape = encoder_folders.KINDS[kind]
    torch.manual_seed(3)
    values = getattr(transformers, config_name)(**SIZE, **shape, codevector_dim=16, proj_codevector_dim=16)
    published = getattr(transformers, class_name)(values)
    expected = getattr(published, published.base_model_prefix, published).state_dict()
    assert model.encoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.encoder.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("normalize", [True, False])
def test_waveforms_are_normalised_as_the_preprocessor_says(tmp_path: Path, normalize):
    """Without a word in the configuration, the encoder's own preprocessor decides; a word in it wins."""
    folder = encoder_folders.write(tmp_path / "enc", "hbt-base", normalize=normalize)
    assert encoders.new(settings(folder), seed=1).spec.normalize is normalize
    assert encoders.new(settings(folder, normalize=not normalize), seed=1).spec.normalize is not normalize


def test_settings_of_the_encoder_are_replaced_by_name(encoder_folder):
    """`[model.encoder]` changes what it names and nothing else; a name that the encoder does not have is an error."""
    folder = encoder_folder("hbt-large")
    model = encoders.new(settings(folder, encoder={"layerdrop": 0.25}), seed=1)
    assert (model.encoder.config.layerdrop, model.encoder.config.hidden_dropout) == (0.25, 0.1)
    with pytest.raises(ConfigurationError, match="no such setting"):
        encoders.new(settings(folder, encoder={"layer_drop": 0.25}), seed=1)


def test_the_head_is_drawn_from_the_seed(encoder_folder):
    """The encoder's weights are the file's, the head's are the seed's."""
    folder = encoder_folder("hbt-base")
    first, again, other = (encoders.new(settings(folder), seed=seed).head.linear.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickled"])
def test_a_pinned_encoder_loads_whatever_its_weights_are_called(
    encoder_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled
):
    """`hf://` fetches pickled weights where a revision has no safetensors, and only there."""
    source = encoder_folder("hbt-large", pickled=pickled)
    fetched: list[str] = []

    def snapshot(name: str, *, revision: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert (name, revision) == ("acme/encoder", "a" * 40)
        if not local_files_only:
            for file in allow_patterns:
                if (source / file).exists() and not (tmp_path / file).exists():
                    shutil.copy(source / file, tmp_path / file)
                    fetched.append(file)
        return str(tmp_path)

    monkeypatch.setattr("callmood.worker.model.hub.snapshot_download", snapshot)
    shutil.copy(source / "config.json", tmp_path)
    address = f"hf://acme/encoder@{'a' * 40}"
    shutil.copy(source / "preprocessor_config.json", tmp_path)
    if not pickled:
        shutil.copy(source / "model.safetensors", tmp_path)
    model = encoders.new(ModelConfig("pinned", pretrained=address), seed=1)
    expected = encoders.new(settings(source), seed=1).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert fetched == (["pytorch_model.bin"] if pickled else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", [b"", b"\xff" * 1000, None], ids=["empty", "no weights", "cut off"])
@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickled"])
def test_damaged_weights_are_an_error_with_their_folder(tmp_path: Path, pickled, content: bytes | None):
    """A copy that stopped half-way says where it is, whatever the reader of its format raises."""
    folder = encoder_folders.write(tmp_path / "enc", "hbt-base", pickled=pickled)
    (weights,) = (path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    weights.write_bytes(weights.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(ConfigurationError, match=f"no encoder at {folder}: .+; without"):
        encoders.new(settings(folder), seed=1)


def damaged(folder: Path, how: str) -> Path:
    """An encoder's folder with one thing wrong."""
    encoder_folders.write(folder, "hbt-large", pickled=True)
    weights = folder / "pytorch_model.bin"
    tensors = torch.load(weights)
    described = json.loads((folder / "config.json").read_text())
    if how == "a layer is missing":
        torch.save({name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}, weights)
    elif how == "another width":
        tensors["feature_projection.projection.bias"] = torch.zeros(7)
        torch.save(tensors, weights)
    elif how == "no weights":
        weights.unlink()
    elif how == "another model":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif how == "no preprocessor":
        (folder / "preprocessor_config.json").unlink()
    elif how == "no configuration":
        (folder / "config.json").unlink()
    assert described["model_type"] == "hubert"
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a layer is missing", r"weights missing or of another shape: encoder\.layers\.1\."),
        ("another width", "feature_projection.projection.bias|mismatch"),
        ("no weights", "no encoder at .* --encoder"),
        ("another model", "is a bert; known encoders are hubert, wav2vec2, wavlm"),
        ("no preprocessor", "set model.normalize"),
        ("no configuration", "no encoder at"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, how: str, message: str):
    """Weights that would silently stay random, and everything else that is wrong with a folder, are errors."""
    with pytest.raises(ConfigurationError, match=message):
        encoders.new(settings(damaged(tmp_path / "enc", how)), seed=1)


ENCODER = {"model_type": "hubert", **SIZE, **LARGE, "layerdrop": 0.1}


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, EmotionModel]:
    """A bundle, and the model that it holds."""
    torch.manual_seed(5)
    model = EmotionModel.new(ENCODER, normalize=False, output_norm=True)
    save_bundle(model, tmp_path / "bundle", Release("ours", "1", "test"), storage=torch.float32)
    return tmp_path / "bundle", model


def test_training_continues_with_a_bundle(bundle: tuple[Path, EmotionModel]):
    """Encoder, head and normalisation are the bundle's; `[model.encoder]` changes what it names."""
    folder, expected = bundle
    model = encoders.new(settings(folder, output_norm=True, encoder={"layerdrop": 0.0}), seed=1)
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert (model.spec.normalize, model.encoder.config.layerdrop, expected.encoder.config.layerdrop) == (False, 0, 0.1)
    waveform, length = torch.randn(1, 8000), torch.tensor([8000])
    assert torch.equal(model.eval()(waveform, length), expected.eval()(waveform, length))


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.0), (0.0, 0.1)], ids=["off", "on"])
def test_spec_augment_is_switched_when_training_continues_with_a_bundle(tmp_path: Path, before: float, after: float):
    """The mask embedding, which the worker never reads, is left out or new; all other weights are the bundle's."""
    expected = EmotionModel.new({**ENCODER, "mask_time_prob": before}, normalize=False, output_norm=True)
    save_bundle(expected, tmp_path / "bundle", Release("ours", "1", "test"), storage=torch.float32)
    changed = settings(tmp_path / "bundle", output_norm=True, encoder={"mask_time_prob": after})
    weights, old = encoders.new(changed, seed=1).state_dict(), expected.state_dict()
    assert weights.keys() ^ old.keys() == {"encoder.masked_spec_embed"}
    assert all(torch.equal(weights[name], old[name]) for name in weights.keys() & old.keys())


@pytest.mark.parametrize("changes", [{"head": "attentive_statistics"}, {}])
def test_another_head_than_the_bundles_is_new(bundle: tuple[Path, EmotionModel], changes: dict):
    """Only the encoder is the bundle's if its head was made for other inputs; the new head depends on the seed."""
    folder, expected = bundle
    first, other = (encoders.new(settings(folder, **changes), seed=seed) for seed in (1, 2))
    weights = expected.encoder.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in first.encoder.state_dict().items())
    assert first.spec.head == HeadKind(changes.get("head", "mean_linear"))
    assert not torch.equal(first.head.linear.weight, other.head.linear.weight)
    assert not torch.equal(first.head.linear.weight[:, :4], expected.head.linear.weight[:, :4])


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"layer_drop": 0.1}, "model.encoder.layer_drop: .* no such setting"),
        ({"hidden_size": 16}, "do not fit"),
        ({"num_hidden_layers": 1}, r"do not fit model\.encoder: encoder\.layers\.1\."),
    ],
)
def test_a_bundle_of_another_shape_is_refused(bundle: tuple[Path, EmotionModel], encoder: dict, message: str):
    """Settings that the bundle's encoder does not have, or under which its weights do not fit, are errors."""
    with pytest.raises(ConfigurationError, match=message):
        encoders.new(settings(bundle[0], output_norm=True, encoder=encoder), seed=1)


def test_another_bundle_is_another_run(bundle: tuple[Path, EmotionModel]):
    """What `--resume` compares changes with the bundle's weights."""
    folder, model = bundle
    before = encoders.digest(str(folder))
    model.head.linear.weight.data += 1
    save_bundle(model, folder, Release("ours", "1", "test"), storage=torch.float32)
    assert before != encoders.digest(str(folder)) != ""


CLIPS = {split: [Clip(16_000, bytes(2 * 4000), label) for label in range(4)] for split in ("train", "valid", "test")}
SUPERB = {**ENCODER, "use_weighted_layer_sum": True}


@pytest.mark.parametrize(
    ("model", "changes", "clips", "message"),
    [
        (ModelConfig("x", encoder=SUPERB, head="hf_superb"), {}, CLIPS, "layerdrop = 0"),
        (ModelConfig("x", head="attention_pooling_cnn"), {"lora": LoraConfig(4)}, CLIPS, "without an encoder"),
        (
            ModelConfig("x", encoder=ENCODER),
            {},
            {**CLIPS, "test": [Clip(16_000, bytes(2 * 399), 0)]},
            r"a clip: 0\.025 s; the encoder needs 0\.025 s",
        ),
        (ModelConfig("x", encoder=ENCODER), {}, {**CLIPS, "train": CLIPS["train"][:3]}, "lacks 1 of the four"),
    ],
    ids=["layer drop under a sum", "adapters without an encoder", "a clip without a frame", "a class without clips"],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    model: ModelConfig, changes: dict, clips: dict, message: str
):
    """Combinations that would fail or mislead hours later are errors at once."""
    train = config.load(config.find("PF-hbt-base")).train
    wrong = config.Config(model=model, train=train, **changes)
    with pytest.raises(ConfigurationError, match=message):
        runs.refuse_misfits(encoders.new(model, seed=1), wrong, clips)


def test_code_beside_an_encoder_is_neither_run_nor_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A configuration that names code of its own is refused; nobody is asked whether to trust it."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "own.Own"}}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked"))
    with pytest.raises(ConfigurationError, match="no encoder at"):
        encoders.new(settings(tmp_path), seed=1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("values", [{"hidden_act": "x"}, {"num_conv_pos_embeddings": 16, "hidden_size": 30}])
def test_values_of_which_no_network_can_be_made_are_one_error(values: dict):
    """What transformers does not check, and torch or Python refuses, is an error of the configuration."""
    with pytest.raises(ConfigurationError, match=r"network of these values|not valid"):
        encoders.new(ModelConfig("x", encoder={**ENCODER, **values}), seed=1)
