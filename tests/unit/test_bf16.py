"""Products in bfloat16 by weights laid out beforehand: those that torch computes, whatever the sizes."""

import pytest
import torch
from cpu import needs_bf16, without_bf16
from torch.nn import functional

from callmood.worker.engine import bf16
from callmood.worker.engine.bf16 import Bf16Linear


@needs_bf16
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (768, 768), (37, 5)])
@pytest.mark.parametrize("frames", [1, 15, 200, 800])
def test_products_are_those_of_float32_to_the_last_bit_of_bfloat16(gelu, inputs, outputs, frames):
    """Any number of frames and any width: rounded once, at the end, bias and GELU included."""
    torch.manual_seed(frames)
    frame, weight, bias = torch.randn(frames, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    frame, weight, bias = (numbers.bfloat16() for numbers in (frame, weight, bias))
    expected = functional.linear(frame.float(), weight.float(), bias.float())
    expected = functional.gelu(expected) if gelu else expected
    found = Bf16Linear(weight, bias, gelu=gelu)(frame)
    assert found.dtype == torch.bfloat16
    # bfloat16 has 8 bits: rounding moves a value by 2**-9 of it, and twice that where float32 rounds to the other side.
    # float32 adds up to 768 products of about 1 in another order: each of 768 sums, of up to about 100, is off by
    # 2**-24 of it; such errors add up at random, to 1.6e-4, and near zero nothing else is left.
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=2e-3)


@needs_bf16
def test_the_weights_are_its_own():
    """Laid out is copied: what happens to a model's weights afterwards does not reach it."""
    weight, frame = torch.ones(32, 32, dtype=torch.bfloat16), torch.ones(4, 32, dtype=torch.bfloat16)
    linear = Bf16Linear(weight, torch.zeros(32, dtype=torch.bfloat16))
    weight.zero_()
    assert torch.equal(linear(frame), torch.full((4, 32), 32, dtype=torch.bfloat16))


@needs_bf16
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(value):
    """A frame that is no number gives none, and its neighbours are as they would be."""
    frames = torch.ones(3, 32, dtype=torch.bfloat16)
    frames[1, 2] = value
    found = Bf16Linear(torch.eye(32).bfloat16(), torch.zeros(32).bfloat16())(frames)
    assert not found[1].isfinite().all()
    assert torch.equal(found[0], frames[0])
    assert torch.equal(found[2], frames[2])


def clock(*took_s):
    """A clock by which the products take these times, one after another."""
    now_s, readings = 0.0, []
    for took in took_s:
        readings += [now_s, now_s + took]
        now_s += took + 1.0
    return iter(readings).__next__


def test_the_speedup_is_that_of_the_best_products(monkeypatch):
    """The best of seven products in each type counts: a disturbed one does not decide."""
    monkeypatch.setattr(bf16, "is_available", lambda: True)
    multiplied = []
    linear = functional.linear
    monkeypatch.setattr(functional, "linear", lambda *pair: multiplied.append(pair) or linear(*pair))
    found = bf16.speedup(8, clock(9.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 2.0, 9.0, 9.0, 9.0))
    assert found == pytest.approx(1.5)
    shapes = [(inputs.dtype, weight.dtype, inputs.shape, weight.shape) for inputs, weight in multiplied]
    sizes = (torch.Size([256, 8]), torch.Size([32, 8]))
    assert shapes == [(torch.float32, torch.float32, *sizes)] * 7 + [(torch.bfloat16, torch.bfloat16, *sizes)] * 7


@without_bf16
def test_nothing_is_timed_on_a_cpu_without_such_products():
    """There a product takes seconds: the speedup is 0, and the clock is not read."""
    assert bf16.speedup(768, clock()) == 0.0


@needs_bf16
def test_the_speedup_is_measured_here():
    """With products of its own, this CPU has a speedup, whatever it is."""
    assert bf16.speedup(64) > 0.0
