"""Training configurations: every shipped one loads, and mistakes are named."""

from pathlib import Path

import pytest

from training import config
from worker.errors import ConfigurationError
from worker.model import EmotionModel

SHIPPED = sorted(config.CONFIGS.rglob("*.toml"))


def test_there_are_configurations():
    """The sweep below sweeps something."""
    assert [path.name for path in SHIPPED] == ["demo_tiny.toml"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_configuration_loads_and_starts_with_its_command(path: Path):
    """Every shipped configuration builds a model, and its first line is the command that runs it."""
    EmotionModel.new(config.load(path).model.encoder)
    assert path.read_text().startswith("# callmood-train ")


def test_an_override_replaces_one_value():
    """`--set part.key=value` changes that value and no other."""
    base, changed = (config.load(SHIPPED[0], overrides) for overrides in ([], ["train.epochs=3"]))
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
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str):
    """An unknown key, no TOML value, or a value of another type is an error that says so."""
    with pytest.raises(ConfigurationError, match=message):
        config.load(SHIPPED[0], [override])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("epochs =", "epoch =", "unknown epoch"), ("batch_size =", "# batch_size =", "missing batch_size")],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, message: str):
    """An unknown or a missing key of a file is an error that names it."""
    path = tmp_path / "wrong.toml"
    path.write_text(SHIPPED[0].read_text().replace(f"\n{old}", f"\n{new}"))
    with pytest.raises(ConfigurationError, match=message):
        config.load(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    """No file is an error of the configuration."""
    with pytest.raises(ConfigurationError, match="no configuration"):
        config.load(tmp_path / "none.toml")
