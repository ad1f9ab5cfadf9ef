"""Matrix products of a CPU in bfloat16, with weights in oneDNN's own layout: it would convert them at each product."""

import platform
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_X86_64: Final = {"x86_64", "AMD64"}
_FRAMES: Final = 256  # of a timed product: 5 s of audio
_TRIES: Final = 7


def is_available() -> bool:
    """Whether torch has the products for this CPU: on ARM it has them without kernels, a hundred times slower."""
    if platform.machine() not in _X86_64:
        return False
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ops = torch.ops.mkldnn
    return has_onednn and hasattr(ops, "_linear_pointwise") and bool(ops._is_mkldnn_bf16_supported())  # noqa: SLF001 - not public


def speedup(width: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """How many times faster a product of an encoder of this width is in bfloat16 than in float32.

    Measured, because a CPU that has the instructions may be slow at them. 0.0 without a measurement on an x86-64 CPU
    that lacks them: there a product takes seconds.
    """
    if platform.machine() in _X86_64 and not is_available():
        return 0.0
    return _product_s(torch.float32, width, clock) / _product_s(torch.bfloat16, width, clock)


def _product_s(dtype: torch.dtype, width: int, clock: Callable[[], float]) -> float:
    """Seconds of the encoder's largest matrix product, the best of several."""
    inputs = torch.ones(_FRAMES, width, dtype=dtype)
    weight = torch.ones(4 * width, width, dtype=dtype)
    took_s = []
    for _ in range(_TRIES):
        began_s = clock()
        functional.linear(inputs, weight)
        took_s.append(clock() - began_s)
    return min(took_s)


class Bf16Linear:
    """A linear layer: bfloat16 [frames, inputs] -> bfloat16 [frames, outputs].

    Args:
        weight: [outputs, inputs], in bfloat16; copied.
        bias: [outputs], in bfloat16.
        gelu: apply the GELU to the outputs, before they are rounded.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())  # noqa: SLF001 - torch has no public name for it
        self._bias, self._activation = bias.detach(), "gelu" if gelu else "none"

    def __call__(self, inputs: Tensor) -> Tensor:
        """See the class."""
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - nor for this
            inputs, self._weight, self._bias, self._activation, [], "none"
        )
        return outputs
