"""The emotion model without padding: the utterances of a batch follow one another, and nothing else is computed.

Everything that treats each frame alone (projections, feed-forward, norms) runs over all frames of the batch at once.
What looks along time sees one utterance at a time: the convolutional front end, blocks of the positional convolution,
attention, the head. The numbers are those of `EmotionModel`, the reference, up to rounding.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from callmood.worker.engine import bf16
from callmood.worker.engine.bf16 import Bf16Linear
from callmood.worker.engine.int8 import Int8Linear
from callmood.worker.engine.positional import PositionalConvolution
from callmood.worker.errors import ModelError
from callmood.worker.model import masked
from callmood.worker.model.heads import split
from callmood.worker.model.model import EmotionModel, first_of

_NOT_PACKED: Final = {"wavlm"}  # its attention has a bias by distance


def can_pack(model: EmotionModel) -> bool:
    """Whether `PackedModel` supports the encoder, and the head has its `packed`."""
    return model.encoder.config.model_type not in _NOT_PACKED and callable(getattr(model.head, "packed", None))


class PackedModel:
    """Logits of an `EmotionModel`, faster. For inference alone; shares what it can of the model's weights.

    Args:
        model: in evaluation mode, fused, on its device, in its type.
        int8: the same model in float32, on a CPU; its transformer layers are multiplied in int8, and what comes before
            them is computed in the type of `model`.

    Raises:
        ModelError: the encoder or the head cannot be packed.
    """

    def __init__(self, model: EmotionModel, *, int8: EmotionModel | None = None) -> None:
        if not can_pack(model):
            raise ModelError(f"{type(model.head).__name__} on {model.encoder.config.model_type} cannot be packed")
        encoder = model.encoder
        upper = int8 or model
        self._front_end = [
            _Convolution(layer, is_grouped=index == 0 and encoder.config.feat_extract_norm == "group")
            for index, layer in enumerate(encoder.feature_extractor.conv_layers)
        ]
        self._project = encoder.feature_projection
        self._positions = PositionalConvolution(encoder.encoder.pos_conv_embed)
        config = upper.encoder.config
        self._layer_norm = upper.encoder.encoder.layer_norm
        self._layers = [_Layer(layer, config, int8=int8 is not None) for layer in upper.encoder.encoder.layers]
        self._is_stable = config.do_stable_layer_norm
        self._is_int8 = int8 is not None
        self._dtype = encoder.dtype
        self._upper_dtype = upper.encoder.dtype
        self._head = upper.head
        self._spec = upper.spec

    def __call__(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """See `EmotionModel.forward`."""
        rows = [waveform[:length] for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        if self._is_int8:  # alone from end to end: rounding would magnify what neighbours change in the last bit
            return torch.cat([self._logits([row]) for row in rows])
        return self._logits(rows)

    def _logits(self, rows: list[Tensor]) -> Tensor:
        features = [self._features(row) for row in rows]
        filler = rows_to_fill(sum(map(len, features))) if self._upper_dtype == torch.bfloat16 else 0
        if filler:  # as a last utterance, whose logits are dropped
            features.append(features[0].new_zeros(filler, features[0].shape[1]))
        frames = [len(feature) for feature in features]
        hidden: Tensor = first_of(self._project(torch.cat(features)))
        hidden = (hidden + self._positions(hidden, frames)).to(self._upper_dtype)
        if not self._is_stable:
            hidden = self._layer_norm(hidden)
        return self._head.packed(self._through_layers(hidden, frames), frames)[: len(rows)]

    def _features(self, waveform: Tensor) -> Tensor:
        """[samples] -> [frames, channels]."""
        spec = self._spec
        if spec.normalize:
            everywhere = torch.ones_like(waveform[None], dtype=torch.bool)
            waveform = masked.normalized(waveform[None], everywhere, spec.normalize_eps)[0]
        valid = len(waveform)
        filler = rows_to_fill(valid) if self._dtype == torch.bfloat16 else 0
        features = functional.pad(waveform.to(self._dtype), (0, filler))[:, None]
        for convolution in self._front_end:
            features, valid = convolution(features, valid)
        return features[:valid]

    def _through_layers(self, hidden: Tensor, frames: list[int]) -> Iterator[Tensor]:
        """The input of the first layer and the output of each, the last one after the final norm."""
        for layer in self._layers:
            yield hidden
            hidden = layer(hidden, frames)
        yield self._layer_norm(hidden) if self._is_stable else hidden


class _Convolution:
    """One layer of the front end on [frames, channels]: as many matrix products as strides fit into the kernel.

    A kernel of 3 frames at a stride of 2 is a product over two neighbouring frames, which is a mere view of the input,
    and one over the third. Nothing is copied.
    """

    def __init__(self, layer: Any, *, is_grouped: bool) -> None:
        convolution = layer.conv
        self._kernel: int = convolution.kernel_size[0]
        self._stride: int = convolution.stride[0]
        taps = convolution.weight.detach().permute(2, 1, 0)  # [kernel, in, out]
        step = self._kernel if taps.shape[1] == 1 else self._stride  # the first layer's copy is small
        starts = range(0, self._kernel, step)
        self._parts = [(first, taps[first : first + step].flatten(0, 1).contiguous()) for first in starts]
        self._bias = convolution.bias
        self._norm = getattr(layer, "layer_norm", None)
        self._is_grouped = is_grouped
        self._activation = layer.activation

    def __call__(self, features: Tensor, valid: int) -> tuple[Tensor, int]:
        """Outputs, and how many of them are valid, of features of which the first `valid` are; the rest is filler."""
        channels = features.shape[1]
        features = features.contiguous()
        rows = self._outputs(features.shape[0])
        valid_rows = self._outputs(valid)
        out = None
        for first, weight in self._parts:
            view = features.as_strided(
                (rows, weight.shape[0]), (self._stride * channels, 1), features.storage_offset() + first * channels
            )
            if out is not None:
                out = out.addmm_(view, weight)
            else:
                out = view @ weight if self._bias is None else torch.addmm(self._bias, view, weight)
        assert out is not None
        if self._is_grouped:  # one group per channel over time is a batch norm with the statistics of its batch
            assert self._norm is not None
            weight = self._norm.weight.float()
            bias = self._norm.bias.float()
            kept = out[:valid_rows]
            kept.copy_(functional.batch_norm(kept, None, None, weight, bias, True, 0.0, self._norm.eps))
        elif self._norm is not None:
            out = self._norm(out)
        return self._activation(out), valid_rows

    def _outputs(self, inputs: int) -> int:
        return (inputs - self._kernel) // self._stride + 1


class _Linear:
    """A linear layer in the type of its weights, with the GELU applied to its outputs; see `Int8Linear`."""

    def __init__(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> None:
        self._weight, self._bias, self._gelu = weight, bias, gelu

    def __call__(self, inputs: Tensor) -> Tensor:
        outputs = functional.linear(inputs, self._weight, self._bias)
        return functional.gelu(outputs) if self._gelu else outputs


def _linear_class(weight: Tensor, *, int8: bool) -> Callable[..., Callable[[Tensor], Tensor]]:
    """The class that multiplies by such weights fastest here."""
    if int8:
        return Int8Linear
    is_bf16_on_a_cpu = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    return Bf16Linear if is_bf16_on_a_cpu and bf16.is_available() else _Linear


class _Layer:
    """One transformer layer on packed frames [frames, width]; query, key and value in one product."""

    def __init__(self, layer: Any, config: Any, *, int8: bool) -> None:
        attention = layer.attention
        feed_forward = layer.feed_forward
        linear = _linear_class(attention.out_proj.weight, int8=int8)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._project = linear(
            torch.cat([projection.weight.detach() for projection in projections]),
            torch.cat([projection.bias.detach() for projection in projections]),
        )
        self._mix = linear(attention.out_proj.weight, attention.out_proj.bias)
        is_gelu = config.hidden_act == "gelu"
        widen, narrow = feed_forward.intermediate_dense, feed_forward.output_dense
        self._widen = linear(widen.weight, widen.bias, gelu=is_gelu)
        self._narrow = linear(narrow.weight, narrow.bias)
        self._activation = None if is_gelu else feed_forward.intermediate_act_fn
        self._heads = attention.num_heads
        self._width = attention.head_dim
        self._is_stable = config.do_stable_layer_norm
        self._norm = layer.layer_norm
        self._final_norm = layer.final_layer_norm

    def __call__(self, hidden: Tensor, frames: list[int]) -> Tensor:
        if self._is_stable:
            hidden = hidden + self._attend(self._norm(hidden), frames)
            return hidden + self._feed_forward(self._final_norm(hidden))
        hidden = self._norm(hidden + self._attend(hidden, frames))
        normed: Tensor = self._final_norm(hidden + self._feed_forward(hidden))
        return normed

    def _attend(self, hidden: Tensor, frames: list[int]) -> Tensor:
        projected = self._project(hidden)
        queries_keys_values = projected.view(-1, 3, self._heads, self._width).permute(1, 2, 0, 3)
        parts = split(queries_keys_values, frames, dim=2)
        mixed = torch.empty_like(hidden)
        for part, into in zip(parts, split(mixed, frames), strict=True):
            attended = functional.scaled_dot_product_attention(*part[:, None])[0]
            into.view(-1, self._heads, self._width).copy_(attended.transpose(0, 1))
        return self._mix(mixed)

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        wide = self._widen(hidden)
        return self._narrow(wide if self._activation is None else self._activation(wide))


def rows_to_fill(count: int) -> int:
    """Rows up to the next of eight sizes in each octave: in bfloat16 oneDNN compiles kernels for each size it meets."""
    step = 1 << max(0, count.bit_length() - 4)
    return -count % step
