"""The positional convolution by FFT gives what the convolution itself gives, whatever the lengths."""

import pytest
import torch
from torch import nn
from transformers import HubertConfig, Wav2Vec2Config
from transformers.models.hubert.modeling_hubert import HubertPositionalConvEmbedding
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2PositionalConvEmbedding

from callmood.worker.engine.positional import PositionalConvolution

KERNELS = (128, 127, 32, 8, 3, 1)


def embedding(kernel, *, groups=2, width=8, of=HubertPositionalConvEmbedding, **others):
    """One with random weights, of which nothing is small."""
    torch.manual_seed(kernel)
    config = {"hidden_size": width, "num_conv_pos_embeddings": kernel, "num_conv_pos_embedding_groups": groups}
    found = of((HubertConfig if of is HubertPositionalConvEmbedding else Wav2Vec2Config)(**config, **others)).eval()
    nn.init.normal_(found.conv.bias)
    return found


def expected(reference, hidden, frames):
    """Each utterance by itself, as transformers computes it."""
    return torch.cat([reference(part[None])[0] for part in hidden.split(frames)])


@torch.no_grad()
@pytest.mark.parametrize("of", [HubertPositionalConvEmbedding, Wav2Vec2PositionalConvEmbedding])
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_that_of_transformers(of, kernel):
    """From one frame to several blocks, kernels even and odd: the numbers are those of each utterance alone."""
    reference = embedding(kernel, of=of)
    edge = PositionalConvolution(reference)._step
    frames = [1, 2, kernel, edge - 1 or 1, edge, edge + 1, 3 * edge + 5, 749]
    hidden = torch.randn(sum(frames), 8)
    found = PositionalConvolution(reference)(hidden, frames)
    torch.testing.assert_close(found, expected(reference, hidden, frames), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_batch_norm_of_some_encoders_is_heard():
    """Frames are normed before they are convolved, and what is beyond the utterance stays zero."""
    reference = embedding(32, conv_pos_batch_norm=True)
    nn.init.normal_(reference.batch_norm.running_mean)
    nn.init.normal_(reference.batch_norm.bias)
    hidden = torch.randn(50, 8)
    found = PositionalConvolution(reference)(hidden, [20, 30])
    torch.testing.assert_close(found, expected(reference, hidden, [20, 30]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_groups_stay_apart(groups):
    """Whatever the number of groups."""
    reference = embedding(16, groups=groups)
    hidden = torch.randn(70, 8)
    found = PositionalConvolution(reference)(hidden, [70])
    torch.testing.assert_close(found, expected(reference, hidden, [70]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_broken_utterance_breaks_no_other():
    """NaN in one utterance reaches all blocks of which it is part, and no frame of its neighbours."""
    hidden = torch.randn(90, 8)
    hidden[40] = torch.nan
    found = PositionalConvolution(embedding(16))(hidden, [30, 30, 30])
    is_finite = found.isfinite().all(dim=1)
    assert is_finite[:30].all()
    assert is_finite[60:].all()
    assert not is_finite[40]


@torch.no_grad()
def test_bfloat16_is_convolved_in_float32():
    """What comes out is in the type of what went in, and as near to the truth as that type allows."""
    reference = embedding(64)
    hidden = torch.randn(100, 8).bfloat16()
    truth = expected(reference, hidden.float(), [100])
    found = PositionalConvolution(reference.bfloat16())(hidden, [100])
    assert found.dtype == torch.bfloat16
    assert (found.float() - truth).abs().max() < 0.03 * truth.abs().max()
