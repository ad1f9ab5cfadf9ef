"""Products in int8: as near to float32 as eight bits are, one kernel for many lengths."""

import pytest
import torch
from torch.nn import functional

from callmood.worker.engine.int8 import Int8Linear, is_available


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.randn(96, 64), torch.randn(96)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("frames", [1, 15, 16, 17, 200])
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_products_are_those_of_float32_to_one_percent(layer, gelu, frames, shift):
    """Any number of frames, values on both sides of zero or on one: 1.5 % of the products' size, bias and GELU too."""
    weight, bias = layer
    inputs = torch.randn(frames, 64) + shift
    expected = functional.linear(inputs, weight, bias)
    size = expected.norm()
    expected = functional.gelu(expected) if gelu else expected
    found = Int8Linear(weight, bias, gelu=gelu)(inputs)
    assert found.shape == expected.shape
    assert (found - expected).norm() < 0.015 * size


def test_no_rounding_leads_out_of_a_byte():
    """Whatever the range, the smallest and the largest value come out within a step: none wraps to the other end."""
    identity = Int8Linear(torch.eye(16), torch.zeros(16))
    generator = torch.Generator().manual_seed(1)
    for exponent in torch.rand(500, generator=generator) * 60 - 30:
        inputs = (torch.rand(4, 16, generator=generator) - torch.rand(1, generator=generator)) * 2**exponent
        step = float(inputs.amax().clamp(min=0) - inputs.amin().clamp(max=0)) / 254
        assert (identity(inputs) - inputs).abs().max() < 0.51 * step + 1e-2 * step


def test_the_largest_values_do_not_overflow():
    """Inputs and weights all at their limits: exact, for sums are kept in 32 bits."""
    weight = torch.full((96, 4096), 2.0)
    found = Int8Linear(weight, torch.zeros(96))(torch.full((3, 4096), 5.0))
    assert found == pytest.approx(torch.full((3, 96), 40_960.0), rel=1e-3)


@pytest.mark.parametrize("right", [True, False])
def test_a_cpu_whose_sums_overflow_is_none_for_int8(monkeypatch, right):
    """It is found by a product: one that comes out too small, as from 16-bit sums, says no."""
    product = Int8Linear.__call__
    monkeypatch.setattr(Int8Linear, "__call__", lambda self, inputs: product(self, inputs) * (1.0 if right else 0.51))
    assert is_available() == right


def test_zeros_give_the_bias(layer):
    """Nothing in, or weights of nothing: the bias is what comes out."""
    weight, bias = layer
    assert torch.equal(Int8Linear(weight, bias)(torch.zeros(2, 64)), bias.expand(2, -1))
    assert torch.equal(Int8Linear(torch.zeros(96, 64), bias)(torch.randn(2, 64)), bias.expand(2, -1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(layer, value):
    """One such value, and all that comes out is NaN: nobody takes it for a result."""
    inputs = torch.zeros(3, 64)
    inputs[1, 2] = value
    assert Int8Linear(*layer)(inputs).isnan().all()
