"""Matrix products of a CPU in int8: a scale for each row of the weights, one for the activations, outputs in float32.

The activations are those of one utterance, so that its numbers do not depend on its neighbours. oneDNN multiplies, adds
the bias and applies the activation in one step.
"""

import math
from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 254  # one less than a byte has, so that a rounded value never overflows it
_NO_FRACTIONS: Final = 2.0**23  # from here on float32 has no fractions: adding it rounds, and leaves the low byte
_ROWS: Final = 16  # frames are filled up to a multiple of it: oneDNN compiles a kernel for each number of rows
_MIN_SCALE: Final = 1e-12  # zeros are zeros at any scale


def is_available() -> bool:
    """Whether torch has the products here, and they are right: without VNNI, sums of two overflow 16 bits."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (has_onednn and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        return False
    ones = torch.ones(_ROWS, _ROWS)
    found = Int8Linear(ones, torch.zeros(_ROWS))(ones)
    return torch.allclose(found, torch.full((_ROWS, _ROWS), float(_ROWS)))


class Int8Linear:
    """A linear layer: float32 [frames, inputs] -> float32 [frames, outputs].

    Args:
        weight: [outputs, inputs].
        bias: [outputs].
        gelu: apply the GELU to the outputs.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> None:
        weight = weight.detach().float()
        self._scales = (weight.abs().amax(dim=1) / 127).clamp(min=_MIN_SCALE)
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
        scale = max((high - low) / LEVELS, _MIN_SCALE)
        zero = int(-low / scale) + 1
        rounded = torch.empty(-(-frames // _ROWS) * _ROWS, width, dtype=torch.uint8)
        rounded[:frames] = torch.add(torch.tensor(_NO_FRACTIONS + zero), inputs, alpha=1 / scale).view(torch.int32)
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
