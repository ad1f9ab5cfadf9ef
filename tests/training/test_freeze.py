"""The parameters that learn, and their learning rates."""

import dataclasses

import pytest

from callmood.training import config
from callmood.training.networks import freeze
from callmood.worker.model.model import EmotionModel

CNN = "encoder.feature_extractor."


@pytest.fixture
def model(tiny: config.Config) -> EmotionModel:
    """An untrained model."""
    return EmotionModel.new(tiny.model.encoder)


@pytest.mark.parametrize(("trainable", "frozen"), [("all", ()), ("encoder", (CNN,)), ("head", ("encoder.",))])
def test_the_frozen_set_is_exactly_what_was_named(
    model: EmotionModel, tiny: config.Config, trainable: str, frozen: tuple[str, ...]
):
    """Frozen parameters are those of the named parts, all of them and no others, and no optimiser group holds one."""
    groups = freeze.parameter_groups(model, dataclasses.replace(tiny.train, train=trainable))
    given = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        learns = not name.startswith(frozen)
        assert parameter.requires_grad is learns, name
        assert (id(parameter) in given) is learns, name


def test_partial_fine_tuning_freezes_the_cnn_and_not_its_projection(model: EmotionModel, tiny: config.Config):
    """`encoder` freezes the convolutions; feature projection, positional convolution, transformer and head learn."""
    freeze.parameter_groups(model, dataclasses.replace(tiny.train, train="encoder"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(name.startswith(CNN) for name in frozen)


def test_encoder_and_head_have_their_own_rates(model: EmotionModel, tiny: config.Config):
    """The head's parameters are in the group with the head's rate, the encoder's in the other."""
    groups = freeze.parameter_groups(model, dataclasses.replace(tiny.train, encoder_lr=1e-5, head_lr=1e-4))
    assert [group["lr"] for group in groups] == [1e-5, 1e-4]
    assert groups[1]["params"] == list(model.head.parameters())


def test_what_was_frozen_thaws(model: EmotionModel, tiny: config.Config):
    """A second call replaces the first one's choice."""
    for trainable in ("head", "all"):
        freeze.parameter_groups(model, dataclasses.replace(tiny.train, train=trainable))
    assert all(parameter.requires_grad for parameter in model.parameters())
