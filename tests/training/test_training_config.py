"""Training configurations: every shipped one loads, and mistakes are named."""

from pathlib import Path

import pytest

from callmood.training import config
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.model import EmotionModel

SHIPPED = sorted(config.CONFIGS.rglob("*.toml"))
DEMO = config.CONFIGS / "demo_tiny.toml"
# Weighted accuracy in percent, speaker-dependent and -independent: arXiv 2111.02735, table 1; Frozen rows: SUPERB's.
PAPER = {
    "EF-w2v-base": (75.90, 70.75),
    "PF-w2v-base": (77.02, 70.21),
    "EF-w2v-base-960h": (73.64, 64.20),
    "PF-w2v-base-960h": (73.84, 68.34),
    "EF-w2v-large": (77.00, 70.96),
    "PF-w2v-large": (77.47, 70.99),
    "EF-w2v-large-960h": (73.00, 68.18),
    "PF-w2v-large-960h": (76.75, 69.08),
    "EF-hbt-base": (76.53, 69.83),
    "PF-hbt-base": (76.60, 69.68),
    "EF-hbt-large": (78.52, 72.31),
    "PF-hbt-large": (79.58, 73.01),
    "EF-hbt-large-960h": (78.78, 72.71),
    "PF-hbt-large-960h": (78.96, 72.98),
    "Frozen-w2v-base": (63.43,),
    "Frozen-w2v-large": (65.64,),
    "Frozen-hbt-base": (64.92,),
    "Frozen-hbt-large": (67.62,),
    "AttentionPooling": (71.75,),
}


def test_there_is_a_configuration_for_each_row_of_the_paper():
    """The rows are those of the published table, each with its figures."""
    rows = {
        path.stem: tuple(config.load(path).row.published.values()) for path in SHIPPED if path.parent.name == "paper"
    }
    assert rows == PAPER


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_configuration_loads_and_starts_with_its_command(path: Path):
    """Every shipped configuration loads under its own name, and its first line is the command that runs it."""
    settings = config.load(path)
    starts = {"demo_tiny": "demo-tiny", "calls-hbt-large": "pretrain calls-hbt-large unlabelled.csv encoder"}
    command = starts.get(path.stem, f"row {path.stem} --data ")
    assert path.read_text().startswith(f"# callmood-train {command}")
    assert settings.model.id == ("demo-tiny-synthetic" if path == DEMO else path.stem)
    assert path == DEMO or config.find(path.stem) == path
    if settings.model.encoder and not settings.model.pretrained:
        EmotionModel.new(settings.model.encoder)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.parent.name == "paper"], ids=lambda path: path.stem)
def test_a_row_says_what_the_paper_says(path: Path):
    """Rates, batch, epochs, schedule, norm and what learns are those of the paper and the authors' recipe."""
    settings, name = config.load(path), path.stem
    train, model = settings.train, settings.model
    if name.startswith(("EF", "PF")):
        assert (train.encoder_lr, train.head_lr, train.batch_size, train.epochs) == (1e-5, 1e-4, 4, 30)
        assert (train.schedule, train.anneal_factor, train.anneal_threshold) == ("newbob", 0.9, 0.0025)
        assert (train.max_grad_norm, train.warmup_steps, train.weight_decay, train.crop_s) == (5.0, 0, 0.0, 0.0)
        assert train.train == {"EF": "all", "PF": "encoder"}[name[:2]]
        assert (model.head, model.output_norm, model.normalize, model.normalize_eps) == (
            "mean_linear",
            True,
            None,
            1e-5,
        )
        assert dict(model.encoder) == {"apply_spec_augment": False}
        assert list(settings.row.published) == ["sd_random", "loso_speaker"]
    elif name.startswith("Frozen"):
        assert (train.steps, train.evaluate_steps, train.batch_size * train.accumulate) == (30_000, 1000, 32)
        assert (train.train, train.head_lr, train.max_grad_norm, train.schedule) == ("head", 1e-4, 1.0, "constant")
        assert model.head == "hf_superb"
        assert model.encoder["classifier_proj_size"] == 256
    assert ("large" in model.pretrained) == ("large" in name)
    assert ("960h" in model.pretrained or "-ft" in model.pretrained) == name.endswith("960h")


def test_an_override_replaces_one_value():
    """`--set part.key=value` changes that value and no other."""
    base, changed = (config.load(DEMO, overrides) for overrides in ([], ["train.epochs=3"]))
    assert (changed.train.epochs, changed.train.seed, changed.corpus) == (3, base.train.seed, base.corpus)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "no such key"),
        ("trian.epochs=3", "no such key"),
        ("train.epochs=three", "epochs=three"),
        ("train.epochs='3'", "wrong type"),
        ("train.epochs=true", "wrong type"),
        ("train.epochs=1.5", "wrong type"),
        ("train.train='cnn'", "all, encoder, head"),
        ("train.steps=5", "epochs or steps"),
        ("train.batch_size=0", "batch_size is 0: use a positive number"),
        ("train.encoder_lr=-1", "encoder_lr is -1: use 0 or more"),
        ("train.head_lr=nan", "head_lr is nan: use 0 or more"),
        ("train.seed=-1", "seed is -1"),
        ("train.workers=-1", "workers is -1"),
        ("train.crop_s=-1.0", "crop_s is -1"),
        ("train.freeze_layers=-1", "freeze_layers is -1"),
        ("train.steps=-3", "steps is -3"),
        ("train.max_grad_norm=inf", "max_grad_norm is inf"),
        ("train.speeds=[1.0, 0.0]", "at least one, from 0.25 to 4"),
        ("train.speeds=[100.0]", "at least one, from 0.25 to 4"),
        ("train.anneal_factor=1.5", "anneal_factor is 1.5: rates do not rise"),
        ("loss.label_smoothing=1.0", "label_smoothing is 1"),
        ("augment.noise_snr_db=[nan, nan]", "lowest, highest"),
        ("augment.noise_snr_db=[-inf, 5]", "lowest, highest"),
        ("model.id=''", "id is empty"),
        ("model.encoder.hidden_size=-5", r"encoder\.hidden_size is -5: use whole numbers of at least 1"),
        ("model.encoder.num_hidden_layers=0", "num_hidden_layers is 0"),
        ("model.encoder.num_attention_heads=true", "num_attention_heads is True"),
        ("model.encoder.conv_stride=[0, 2]", r"conv_stride is \[0, 2\]"),
        ("model.encoder.mask_time_length=0", "mask_time_length is 0"),
        ("loss.focal_gamma=-2", "focal_gamma is -2"),
        ("lora.rank=-1", "rank is -1"),
        ("corpus.voices_per_split=0", "voices_per_split is 0"),
        ("model.normalize_eps=0", "normalize_eps is 0"),
        ("model.encoder.layerdrop=2.0", r"encoder\.layerdrop is 2.0: use a number from 0 to 1"),
        ("model.encoder.mask_time_prob=3.0", "mask_time_prob is 3.0"),
        ("model.encoder.hidden_dropout='x'", "hidden_dropout is 'x'"),
        ("train.speeds=[]", "at least one"),
        ("train.speeds=[1.0, 'fast']", "wrong type"),
        ("model.head='mean'", "mean_linear, hf_superb"),
        ("model.head='attention_pooling_cnn'", "takes no encoder"),
        ("model.encoder={}", "needs an encoder"),
        ("loss.kind='hinge'", "cross_entropy, focal"),
        ("loss.label_smoothing=2", "from 0 to 1"),
        ("lora.rank=4", "train.train"),
        ("augment.mu_law=0.9", "add up to 1.2"),
        ("augment.noise_snr_db=[30, 5]", "lowest, highest"),
        ("calibration.wanted_risk=-1", "from 0 to 1"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str):
    """An unknown key, no TOML value, or a value of another type or out of range is an error that names it."""
    with pytest.raises(ConfigurationError, match=message):
        config.load(DEMO, [override])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("epochs =", "epoch =", "unknown epoch"), ("batch_size =", "# batch_size =", "missing batch_size")],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, message: str):
    """An unknown or a missing key of a file is an error that names it."""
    path = tmp_path / "wrong.toml"
    path.write_text(DEMO.read_text().replace(f"\n{old}", f"\n{new}"))
    with pytest.raises(ConfigurationError, match=message):
        config.load(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    """No file is an error of the configuration."""
    with pytest.raises(ConfigurationError, match="no configuration"):
        config.load(tmp_path / "none.toml")


def test_an_override_reaches_into_a_table():
    """`--set model.encoder.layerdrop=0.5` changes that value and leaves the others."""
    changed = config.load(DEMO, ["model.encoder.layerdrop=0.5"]).model.encoder
    assert changed == {**config.load(DEMO).model.encoder, "layerdrop": 0.5}


def test_a_name_that_is_not_shipped_lists_those_that_are():
    """The error about an unknown row lists the shipped ones."""
    with pytest.raises(ConfigurationError, match=r"PF-huge, and no shipped .*PF-hbt-large"):
        config.find("PF-huge")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path):
    """Broken syntax is an error with the file's name."""
    path = tmp_path / "broken.toml"
    path.write_text("[train\n")
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        config.load(path)
