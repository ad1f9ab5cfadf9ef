"""Batch invariance: what an utterance is batched, padded or packed with does not change what is heard in it."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.checkpoints import HeadKind
from worker.model import EmotionModel
from worker.packed import PackedModel

SHAPES = {
    "base": {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}
LONGEST = 20_000


def build(shape, head, *, weighted=True, kind=transformers.Wav2Vec2Config):
    torch.manual_seed(1)
    config = kind(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=8,
        use_weighted_layer_sum=weighted,
        **SHAPES[shape],
    )
    model = EmotionModel.new(config.to_dict(), head=head).eval().fuse()
    output = model.head.linear if head is HeadKind.MEAN_LINEAR else model.head.classifier
    with torch.no_grad():
        output.weight.mul_(20)  # labels differ, and rounding is not blown up beyond what trained heads do
    return model


MODELS = {(shape, head): build(shape, head) for shape in SHAPES for head in HeadKind}
lengths = st.lists(st.integers(400, LONGEST), min_size=1, max_size=5)


def batch(samples, garbage):
    """Utterances of these lengths, with garbage beyond their ends."""
    waveforms = torch.full((len(samples), max(samples)), garbage)
    for row, length in zip(waveforms, samples, strict=True):
        row[:length] = torch.randn(length, generator=torch.Generator().manual_seed(length))
    return waveforms, torch.tensor(samples)


@pytest.mark.parametrize("head", list(HeadKind))
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=25)
@given(samples=lengths, garbage=st.sampled_from([0.0, 9.0, float("nan")]))
def test_alone_padded_and_packed_are_the_same(shape, head, samples, garbage):
    """Probabilities differ by less than 1e-5 between the utterance alone, in a padded batch and in a packed one."""
    model = MODELS[shape, head]
    waveforms, counts = batch(samples, garbage)
    with torch.inference_mode():
        alone = torch.cat([model(waveforms[n : n + 1, :c], counts[n : n + 1]) for n, c in enumerate(samples)])
        for found in (model(waveforms, counts), PackedModel(model)(waveforms, counts)):
            torch.testing.assert_close(found.softmax(1), alone.softmax(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_in_bfloat16_stays_near(shape):
    """In bfloat16 a packed batch's probabilities are within 0.02 of float32, alone or in company."""
    samples = [400, 3_000, 9_999, LONGEST]
    waveforms, counts = batch(samples, 0.0)
    model = build(shape, HeadKind.HF_SUPERB)
    with torch.inference_mode():
        expected = model(waveforms, counts).softmax(1)
        packed = PackedModel(model.to(torch.bfloat16))
        together = packed(waveforms, counts).softmax(1)
        alone = torch.cat([packed(waveforms[n : n + 1, :c], counts[n : n + 1]) for n, c in enumerate(samples)])
    assert expected.std() > 0.02
    torch.testing.assert_close(together, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(together, alone.softmax(1), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", [transformers.HubertConfig, transformers.Wav2Vec2Config])
@pytest.mark.parametrize("shape", SHAPES)
def test_heads_without_a_weighted_sum_are_packed_too(shape, kind):
    """A head on the last layer alone gives the logits that it gives unpacked, for either kind of encoder."""
    model = build(shape, HeadKind.HF_SUPERB, weighted=False, kind=kind)
    waveforms, counts = batch([5_000, 12_345], 0.0)
    with torch.inference_mode():
        torch.testing.assert_close(
            PackedModel(model)(waveforms, counts), model(waveforms, counts), atol=1e-5, rtol=1e-5
        )
