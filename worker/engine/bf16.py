"""Matrix products of a CPU in bfloat16. The weights lie as oneDNN reads them: else it lays them out at each product."""

import platform

import torch
from torch import Tensor


def is_available() -> bool:
    """Whether torch has the products for this CPU: on ARM it has them without kernels, a hundred times slower."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return False
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ops = torch.ops.mkldnn
    return has_onednn and hasattr(ops, "_linear_pointwise") and bool(ops._is_mkldnn_bf16_supported())  # noqa: SLF001 - not public


class Bf16Linear:
    """A linear layer: bfloat16 [frames, inputs] -> bfloat16 [frames, outputs].

    Args:
        weight: [outputs, inputs], in bfloat16. What is kept of it is a copy.
        bias: [outputs], in bfloat16.
        gelu: apply the GELU to what comes out, before it is rounded.
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
