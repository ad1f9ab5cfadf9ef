"""Matrix products of a CPU in int8: a scale for each row of the weights, one for the activations, float32 comes out.

The activations are those of one utterance, so that its numbers do not depend on its neighbours. oneDNN multiplies, adds
the bias and applies the activation in one step.
"""

import math
from typing import Final

import torch
from torch import Tensor

_LEVELS: Final = 254  # and one to spare: no rounding error leads out of a byte
_WHOLE: Final = 2.0**23  # from here on float32 has no fractions: adding rounds, and the lowest byte is the number
_STEP: Final = 16  # frames are filled up to a multiple: oneDNN compiles a kernel for each number of them
_SMALLEST: Final = 1e-12  # of a scale; zeros are zeros at any


def is_available() -> bool:
    """Whether torch has the products here, and they are right: a CPU without VNNI adds pairs of them in 16 bits."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (has_onednn and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        return False
    found = Int8Linear(torch.ones(_STEP, _STEP), torch.zeros(_STEP))(torch.ones(_STEP, _STEP))
    return torch.allclose(found, torch.full((_STEP, _STEP), float(_STEP)))


class Int8Linear:
    """A linear layer: float32 [frames, inputs] -> float32 [frames, outputs].

    Args:
        weight: [outputs, inputs].
        bias: [outputs].
        gelu: apply the GELU to what comes out.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> None:
        weight = weight.detach().float()
        self._scales = (weight.abs().amax(dim=1) / 127).clamp(min=_SMALLEST)
        rounded = (weight / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = bias.detach().float()
        self._activation = "gelu" if gelu else "none"

    def __call__(self, inputs: Tensor) -> Tensor:
        """See the class; NaN where an input is not finite."""
        frames, width = inputs.shape
        low, high = (float(end) for end in inputs.aminmax())
        if not math.isfinite(high - low):
            return inputs.new_full((frames, len(self._scales)), math.nan)
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / _LEVELS, _SMALLEST)
        zero = int(-low / scale) + 1
        rounded = torch.empty(-(-frames // _STEP) * _STEP, width, dtype=torch.uint8)
        rounded[:frames] = torch.add(torch.tensor(_WHOLE + zero), inputs, alpha=1 / scale).view(torch.int32)
        outputs: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded,
            scale,
            zero,
            self._weight,
            self._scales,
            self._zeros,
            self._bias,
            1.0,
            0,
            torch.float32,
            self._activation,
            [],
            "none",
        )
        return outputs[:frames]
