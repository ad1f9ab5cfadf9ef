"""The baseline that needs no pre-training: a CNN on spectrograms with attention pooling.

Source: Li, Song, McLoughlin, Guo & Dai 2018, "An Attention Pooling based Representation Learning Method for Speech
Emotion Recognition". Sizes that the abstract does not give follow a published re-implementation by other authors.
"""

from typing import Final

import torch
from torch import Tensor, nn

from callmood.schemas.common import EMOTIONS
from callmood.worker.model.audio import RATE_HZ

SEGMENT_S: Final = 2.0
_HOP_S: Final = 1.0
_WINDOW: Final = 640  # 40 ms
_FRAME_HOP: Final = 160  # 10 ms
_DFT: Final = 1600  # bins of 10 Hz
_BINS: Final = 400  # up to 4 kHz: all that a telephone has
_FLOOR: Final = 1e-8


class AttentionPoolingCnn(nn.Module):
    """Waveforms in, logits of the four emotions out, averaged over segments of two seconds, one each second."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        self.time = _Block(1, 8, (10, 2), (4, 0))
        self.frequency = _Block(1, 8, (2, 8), (0, 3))
        self.body = nn.Sequential(
            _Block(16, 32), nn.MaxPool2d(2), _Block(32, 48), nn.MaxPool2d(2), _Block(48, 64), _Block(64, 80)
        )
        self.top_down = nn.Conv2d(80, len(EMOTIONS), 1)
        self.bottom_up = nn.Conv2d(80, 1, 1)

    @property
    def min_samples(self) -> int:
        """Fewest samples: less than a segment is padded."""
        return 1

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Logits for a batch of utterances; arguments and result as `EmotionModel.forward`."""
        segments, owners = self._segments(waveforms, lengths)
        spectra = torch.stft(segments, _DFT, _FRAME_HOP, _WINDOW, self.window, center=False, return_complex=True)
        power = (spectra[:, :_BINS].abs().square() + _FLOOR).log()[:, None]
        features = self.body(torch.cat([self.time(power), self.frequency(power)], dim=1))
        logits = (self.top_down(features) * self.bottom_up(features)).mean(dim=(2, 3)).float()
        sums = torch.zeros(len(lengths), len(EMOTIONS), device=logits.device).index_add(0, owners, logits)
        return sums / torch.bincount(owners, minlength=len(lengths))[:, None]

    def _segments(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Segments [segments, samples], and the utterance that each is of; the last one of each is padded."""
        size, hop = round(SEGMENT_S * RATE_HZ), round(_HOP_S * RATE_HZ)
        parts, owners = [], []
        for row, length in enumerate(lengths.tolist()):
            for start in range(0, max(length - size, 0) + hop, hop):
                if start == 0 or length - start > size - hop:
                    part = waveforms[row, start : min(start + size, length)]
                    parts.append(nn.functional.pad(part, (0, size - part.numel())))
                    owners.append(row)
        return torch.stack(parts), torch.tensor(owners, device=waveforms.device)


class _Block(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int] = (3, 3), padding: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU())
