"""The positional convolution of packed frames, by FFT.

Its kernel is as long as an utterance (128 frames, 2.6 s), which is where a convolution in time costs most and a product
of spectra least. Blocks overlap by a kernel, so that each gives the outputs that are whole (overlap-save: Oppenheim and
Schafer, Discrete-Time Signal Processing, 8.7.3). Always in float32: there is no FFT in fewer bits.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class PositionalConvolution:
    """What the positional embedding of an encoder gives for the frames of a batch without padding.

    Args:
        embedding: of HuBERT or wav2vec 2.0, fused.
    """

    def __init__(self, embedding: Any) -> None:
        convolution = embedding.conv
        weight = convolution.weight.detach().float()  # [out, in of a group, kernel]
        self._kernel = weight.shape[2]
        self._size = 2 << (self._kernel - 1).bit_length()
        self._step = self._size - self._kernel + 1
        spectrum = torch.fft.rfft(weight, n=self._size).conj()  # what torch calls a convolution is a correlation
        self._spectrum = spectrum.unflatten(0, (convolution.groups, -1)).permute(3, 0, 2, 1).contiguous()
        self._bias = convolution.bias.detach().float()
        self._norm = getattr(embedding, "batch_norm", None)
        self._activation = embedding.activation

    def __call__(self, hidden: Tensor, frames: list[int]) -> Tensor:
        """[frames, width] of utterances with so many frames each -> [frames, width]."""
        normed = hidden if self._norm is None else self._norm(hidden)
        blocks = [self._blocks(part) for part in torch.split(normed.float(), frames)]
        whole = torch.split(self._convolved(torch.cat(blocks)), [len(block) for block in blocks])
        outputs = torch.cat([part.flatten(0, 1)[:count] for part, count in zip(whole, frames, strict=True)])
        activated: Tensor = self._activation((outputs + self._bias).to(hidden.dtype))
        return activated

    def _blocks(self, part: Tensor) -> Tensor:
        """[frames, width] -> [blocks, width, size], each `step` frames after the one before."""
        before, count = self._kernel // 2, -(-len(part) // self._step)
        after = (count - 1) * self._step + self._size - before - len(part)
        return functional.pad(part, (0, 0, before, after)).unfold(0, self._size, self._step)

    def _convolved(self, blocks: Tensor) -> Tensor:
        """[blocks, width, size] -> [blocks, step, width]."""
        spectra = torch.fft.rfft(blocks).unflatten(1, (self._spectrum.shape[1], -1)).permute(3, 1, 0, 2)
        mixed = (spectra @ self._spectrum).permute(2, 1, 3, 0).flatten(1, 2)
        outputs: Tensor = torch.fft.irfft(mixed, n=self._size)
        return outputs[..., : self._step].transpose(1, 2)
