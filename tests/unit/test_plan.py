"""The plan of the engine: a table of settings and facts."""

import pytest

from callmood.worker.engine.plan import RECHECK_BELOW, REFERENCE, Machine, Model, Plan, choose_device, choose_plan
from callmood.worker.errors import ConfigurationError, ModelError
from callmood.worker.settings import ModelSettings

CPU = Machine(has_gpu=False, has_int8=False)
VNNI = Machine(has_gpu=False, has_int8=True)
GPU = Machine(has_gpu=True, has_int8=True)

BASE = Model(width=768, can_pack=True)
FAST_BASE = Model(width=768, can_pack=True, bf16_speedup=1.3)
SLOW_BASE = Model(width=768, can_pack=True, bf16_speedup=1.29)
SMALL = Model(width=511, can_pack=True, bf16_speedup=6.0)
JUST_LARGE = Model(width=512, can_pack=True, bf16_speedup=6.0)
WAVLM = Model(width=768, can_pack=False, bf16_speedup=6.0)


def set_to(**values):
    return ModelSettings(**values)


@pytest.mark.parametrize(
    ("settings", "machine", "model", "expected"),
    [
        ({}, CPU, BASE, Plan("cpu", "fp32", True, RECHECK_BELOW)),
        ({}, VNNI, BASE, Plan("cpu", "fp32", True, RECHECK_BELOW)),
        ({}, CPU, FAST_BASE, Plan("cpu", "bf16", True, RECHECK_BELOW)),
        ({}, CPU, SLOW_BASE, Plan("cpu", "fp32", True, RECHECK_BELOW)),
        ({}, CPU, SMALL, Plan("cpu", "fp32", True, RECHECK_BELOW)),
        ({}, CPU, JUST_LARGE, Plan("cpu", "bf16", True, RECHECK_BELOW)),
        ({}, CPU, WAVLM, Plan("cpu", "bf16", False, RECHECK_BELOW)),
        ({}, GPU, BASE, Plan("cuda", "bf16", False, 0.0)),
        ({}, GPU, SMALL, Plan("cuda", "bf16", False, 0.0)),
        ({"device": "cpu"}, GPU, BASE, Plan("cpu", "fp32", True, RECHECK_BELOW)),
        ({"device": "cuda"}, GPU, BASE, Plan("cuda", "bf16", False, 0.0)),
        ({"packed": "on"}, GPU, BASE, Plan("cuda", "bf16", True, 0.0)),
        ({"packed": "off"}, CPU, BASE, Plan("cpu", "fp32", False, RECHECK_BELOW)),
        ({"dtype": "fp32"}, CPU, FAST_BASE, Plan("cpu", "fp32", True, RECHECK_BELOW)),
        ({"dtype": "fp32"}, GPU, BASE, Plan("cuda", "fp32", False, 0.0)),
        ({"dtype": "bf16"}, CPU, SLOW_BASE, Plan("cpu", "bf16", True, RECHECK_BELOW)),
        ({"dtype": "int8"}, VNNI, BASE, Plan("cpu", "int8", True, RECHECK_BELOW)),
        ({"dtype": "int8+bf16"}, VNNI, SMALL, Plan("cpu", "int8+bf16", True, RECHECK_BELOW)),
        ({"dtype": "int8", "device": "cpu"}, GPU, BASE, Plan("cpu", "int8", True, RECHECK_BELOW)),
        ({"recheck_below": 0.0}, CPU, FAST_BASE, Plan("cpu", "bf16", True, 0.0)),
        ({"recheck_below": 0.1}, GPU, BASE, Plan("cuda", "bf16", False, 0.1)),
    ],
)
def test_settings_and_facts_decide(settings, machine, model, expected):
    """Each row is what a worker with these settings does on such a machine with such a model."""
    assert choose_plan(set_to(**settings), machine, model) == expected


@pytest.mark.parametrize(
    ("settings", "machine", "message"),
    [
        ({"device": "cuda"}, CPU, r"^model\.device is cuda, but .* no GPU"),
        ({"dtype": "int8"}, CPU, r"^model\.dtype is int8, which needs .* VNNI: set auto, fp32 or bf16$"),
        ({"dtype": "int8+bf16"}, CPU, r"^model\.dtype is int8\+bf16, which needs .* VNNI"),
        ({"dtype": "int8"}, GPU, r"^model\.dtype is int8, which a GPU cannot compute: set model\.device to cpu$"),
    ],
)
def test_what_the_machine_lacks_is_refused_before_the_model_is_loaded(settings, machine, message):
    """A device or a type that is not there is a configuration error; the device alone is asked for."""
    with pytest.raises(ConfigurationError, match=message):
        choose_device(set_to(**settings), machine)
    with pytest.raises(ConfigurationError, match=message):
        choose_plan(set_to(**settings), machine, BASE)


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"packed": "on"}, WAVLM, r"^model\.packed is on, but .* does not support this model: set auto$"),
        ({"dtype": "int8"}, WAVLM, r"^model\.dtype is int8, but this model cannot be packed"),
        ({"dtype": "int8+bf16"}, WAVLM, r"^model\.dtype is int8\+bf16, but this model cannot be packed"),
        ({"dtype": "int8", "packed": "off"}, BASE, r"^model\.dtype is int8, but model\.packed is off: set it to auto$"),
    ],
)
def test_what_the_model_cannot_do_is_refused(settings, model, message):
    """A model that cannot be packed, or must not be, is a model error where the settings need it packed."""
    with pytest.raises(ModelError, match=message):
        choose_plan(set_to(**settings), VNNI, model)


def test_the_reference_is_padded_float32():
    """Without a plan an engine computes the numbers that the others are compared with."""
    assert Plan(device="cpu", dtype="fp32", packed=False, recheck_below=0.0) == REFERENCE
