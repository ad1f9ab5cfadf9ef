"""Products in int8: as near to float32 as eight bits are, one kernel for many lengths."""

import math

import pytest
import torch
from cpu import needs_int8, without_int8
from torch.nn import functional

from callmood.worker.engine.int8 import LEVELS, Int8Linear, is_available

STEEPEST_GELU = 1.13  # the largest slope of the GELU: it magnifies an error by no more


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.randn(96, 64), torch.randn(96)


def rounding_error(inputs, weight):
    """Norm of the error that rounding is expected to make of the products.

    A value rounded to a step of size s is off by s / sqrt(12) in the root mean square. Each product w * x is off by
    w times the error of x, and by x times the error of w; all of them are independent, so their squares add up.
    """
    input_step = float(inputs.amax().clamp(min=0) - inputs.amin().clamp(max=0)) / LEVELS
    weight_steps = weight.abs().amax(dim=1) / 127
    of_inputs = len(inputs) * weight.square().sum() * input_step**2 / 12
    of_weights = inputs.square().sum() * weight_steps.square().sum() / 12
    return math.sqrt(of_inputs + of_weights)


@needs_int8
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("frames", [1, 15, 16, 17, 200])
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_products_are_those_of_float32_up_to_rounding(layer, gelu, frames, shift):
    """Any number of frames, values on both sides of zero or on one: off by no more than rounding explains."""
    weight, bias = layer
    inputs = torch.randn(frames, 64) + shift
    expected = functional.linear(inputs, weight, bias)
    expected = functional.gelu(expected) if gelu else expected
    found = Int8Linear(weight, bias, gelu=gelu)(inputs)
    assert found.shape == expected.shape
    # With one frame 64 errors of inputs are shared by all outputs: such a sum of squares varies by a sixth, so that
    # half as much again is six times its deviation.
    allowed = 1.5 * rounding_error(inputs, weight) * (STEEPEST_GELU if gelu else 1.0)
    assert (found - expected).norm() < allowed


@needs_int8
def test_no_rounding_leads_out_of_a_byte():
    """Whatever the range, all values come out within half a step: none wraps to the other end."""
    identity = Int8Linear(torch.eye(16), torch.zeros(16))
    generator = torch.Generator().manual_seed(1)
    for exponent in torch.rand(500, generator=generator) * 60 - 30:
        inputs = (torch.rand(4, 16, generator=generator) - torch.rand(1, generator=generator)) * 2**exponent
        step = float(inputs.amax().clamp(min=0) - inputs.amin().clamp(max=0)) / LEVELS
        # Half a step, and a few roundings of float32 on a value of 255 steps: 255 * 2**-24 of a step each.
        assert (identity(inputs) - inputs).abs().max() < (0.5 + 10 * 255 * 2**-24) * step


@needs_int8
def test_the_largest_values_do_not_overflow():
    """Inputs and weights all at their limits: exact but for float32, because sums are kept in 32 bits."""
    weight = torch.full((96, 4096), 2.0)
    found = Int8Linear(weight, torch.zeros(96))(torch.full((3, 4096), 5.0))
    assert found == pytest.approx(torch.full((3, 96), 40_960.0), rel=8 * 2**-24)


@without_int8
def test_a_cpu_without_such_products_gets_sums_that_are_too_small():
    """Why it is refused: with inputs and weights at their limits, sums of two overflow 16 bits and are cut off."""
    weight = torch.full((96, 4096), 2.0)
    found = Int8Linear(weight, torch.zeros(96))(torch.full((3, 4096), 5.0))
    # 255 * 127 * 2 = 64,770 does not fit into 16 bits: 32,767 is kept of it, about half.
    assert (found < 0.6 * 40_960.0).all()


@pytest.mark.parametrize(("share", "right"), [(1.0, True), (0.51, False)])
def test_a_cpu_is_asked_for_a_product(monkeypatch, share, right):
    """A product that comes out too small, as from 16-bit sums, rules int8 out, and a right one does not."""
    monkeypatch.setattr(Int8Linear, "__call__", lambda _, inputs: share * (inputs @ torch.ones(16, 16)))
    assert is_available() == right


@needs_int8
def test_zeros_give_the_bias(layer):
    """Zeros for inputs or for weights: the outputs are the bias."""
    weight, bias = layer
    assert torch.equal(Int8Linear(weight, bias)(torch.zeros(2, 64)), bias.expand(2, -1))
    assert torch.equal(Int8Linear(torch.zeros(96, 64), bias)(torch.randn(2, 64)), bias.expand(2, -1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(layer, value):
    """One such value makes all outputs NaN: they cannot be taken for a result."""
    inputs = torch.zeros(3, 64)
    inputs[1, 2] = value
    assert Int8Linear(*layer)(inputs).isnan().all()
