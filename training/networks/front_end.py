"""A CNN front end that starts as a filter bank, for encoders trained from scratch.

Random filters of 25 ms need far more speech than a small corpus has before they separate frequencies. The filters learn
like any others.
"""

import math

import torch

from callmood.worker.errors import ConfigurationError
from callmood.worker.model.audio import RATE_HZ
from callmood.worker.model.model import EmotionModel

_BAND_HZ = (60.0, 3800.0)  # a telephone's, and the pitch below it
# The layer normalisation that follows removes the level; with a bias of this size, silence still differs from speech.
_BIAS = 0.5


def start_as_filter_bank(model: EmotionModel) -> None:
    """Set the first convolution to pairs of Hann-windowed cosines and sines on the mel scale, unit norm each.

    Raises:
        ConfigurationError: the convolution has no bias or an odd number of filters.
    """
    convolution = model.encoder.feature_extractor.conv_layers[0].conv
    filters, _, taps = convolution.weight.shape
    if convolution.bias is None or filters % 2:
        raise ConfigurationError("a filter bank needs conv_bias and an even first conv_dim")
    low, high = (math.log1p(frequency_hz / 700) for frequency_hz in _BAND_HZ)
    centre_hz = 700 * torch.expm1(torch.linspace(low, high, filters // 2))
    time_s = (torch.arange(taps) - (taps - 1) / 2) / RATE_HZ
    phase = 2 * math.pi * centre_hz[:, None] * time_s
    waves = torch.cat([phase.cos(), phase.sin()]) * torch.hann_window(taps, periodic=False)
    with torch.no_grad():
        convolution.weight.copy_((waves / waves.norm(dim=1, keepdim=True))[:, None])
        convolution.bias.normal_(0, _BIAS)
