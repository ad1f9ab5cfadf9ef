"""Products in bfloat16 by weights laid out beforehand: those that torch computes, whatever the sizes."""

import pytest
import torch
from torch.nn import functional

from callmood.worker.engine import bf16
from callmood.worker.engine.bf16 import Bf16Linear

pytestmark = pytest.mark.skipif(not bf16.is_available(), reason="torch has no such products for this CPU")


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
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=2e-3)


def test_the_weights_are_its_own():
    """Laid out is copied: what happens to a model's weights afterwards does not reach it."""
    weight, frame = torch.ones(32, 32, dtype=torch.bfloat16), torch.ones(4, 32, dtype=torch.bfloat16)
    linear = Bf16Linear(weight, torch.zeros(32, dtype=torch.bfloat16))
    weight.zero_()
    assert torch.equal(linear(frame), torch.full((4, 32), 32, dtype=torch.bfloat16))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(value):
    """A frame that is no number gives none, and its neighbours are as they would be."""
    frames = torch.ones(3, 32, dtype=torch.bfloat16)
    frames[1, 2] = value
    found = Bf16Linear(torch.eye(32).bfloat16(), torch.zeros(32).bfloat16())(frames)
    assert not found[1].isfinite().all()
    assert torch.equal(found[0], frames[0])
    assert torch.equal(found[2], frames[2])
