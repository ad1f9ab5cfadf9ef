"""Batch invariance: the utterances beside it, padding and packing do not change an utterance's probabilities."""

from functools import cache

import numpy as np
import pytest
import torch
import transformers
from cpu import marks
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BASE, LARGE, SIZE

from callmood.schemas.common import Encoding
from callmood.worker import g711
from callmood.worker.engine.infer import Engine
from callmood.worker.engine.packed import PackedModel, can_pack, rows_to_fill
from callmood.worker.engine.plan import INT8, Plan
from callmood.worker.model.checkpoints import HeadKind
from callmood.worker.model.model import EmotionModel

SHAPES = {"base": BASE, "large": LARGE}
LONGEST = 20_000
EACH = 20
"""Cases of a property share the examples of the loaded profile: each gets one in so many."""


def build(shape, head, *, weighted=True, kind=transformers.Wav2Vec2Config, **more):
    torch.manual_seed(1)
    config = kind(**SIZE, **SHAPES[shape], use_weighted_layer_sum=weighted, **more)
    model = EmotionModel.new(config.to_dict(), head=head).eval().fuse()
    output = model.head.classifier if head is HeadKind.HF_SUPERB else model.head.linear
    with torch.no_grad():
        output.weight.mul_(20)  # labels differ, and rounding is not blown up beyond what trained heads do
    return model


@cache
def model_of(shape, head, kind=transformers.Wav2Vec2Config):
    """A model that tests share: none changes it."""
    return build(shape, head, kind=kind)


@cache
def normed():
    """A HuBERT with a batch norm before its positional convolution."""
    model = build("base", HeadKind.MEAN_LINEAR, kind=transformers.HubertConfig, conv_pos_batch_norm=True)
    torch.nn.init.normal_(model.encoder.encoder.pos_conv_embed.batch_norm.bias)
    return model


few = settings(max_examples=max(1, settings.default.max_examples // EACH))
lengths = st.lists(st.integers(400, LONGEST), min_size=1, max_size=5)


def batch(samples, garbage):
    """Utterances of these lengths, with garbage beyond their ends."""
    waveforms = torch.full((len(samples), max(samples)), garbage)
    for row, length in zip(waveforms, samples, strict=True):
        row[:length] = torch.randn(length, generator=torch.Generator().manual_seed(length))
    return waveforms, torch.tensor(samples)


@pytest.mark.parametrize("kind", [transformers.Wav2Vec2Config, transformers.WavLMConfig])
@pytest.mark.parametrize("head", list(HeadKind))
@pytest.mark.parametrize("shape", SHAPES)
@few
@given(samples=lengths, garbage=st.sampled_from([0.0, 9.0, float("nan")]))
def test_alone_padded_and_packed_are_the_same(kind, shape, head, samples, garbage):
    """Probabilities differ by less than 1e-5 between the utterance alone, in a padded batch and in a packed one.

    WavLM, whose attention looks at distances, is not packed.
    """
    model = model_of(shape, head, kind)
    assert can_pack(model) == (kind is not transformers.WavLMConfig)
    ways = [model, PackedModel(model)] if can_pack(model) else [model]
    waveforms, counts = batch(samples, garbage)
    with torch.inference_mode():
        alone = torch.cat([model(waveforms[n : n + 1, :c], counts[n : n + 1]) for n, c in enumerate(samples)])
        for way in ways:
            torch.testing.assert_close(way(waveforms, counts).softmax(1), alone.softmax(1), atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("head", list(HeadKind))
@pytest.mark.parametrize("shape", SHAPES)
def test_filler_changes_nothing(shape, head, monkeypatch):
    """In bfloat16 utterances are filled up to one of a few sizes: the probabilities are those without, alone or not."""
    model = build(shape, head).to(torch.bfloat16)
    packed = PackedModel(model)
    for samples in ([400], [LONGEST - 1], [401, 3_000, 9_999, 16_383]):
        waveforms, counts = batch(samples, 0.0)
        with torch.inference_mode():
            filled = packed(waveforms, counts).softmax(1)
            with monkeypatch.context() as without:
                without.setattr("callmood.worker.engine.packed.rows_to_fill", lambda _: 0)
                exact = packed(waveforms, counts).softmax(1)
        assert filled.shape == exact.shape == (len(samples), 4)
        torch.testing.assert_close(filled, exact, atol=0.01, rtol=0)


def test_filler_is_little_and_sizes_are_few():
    """At most an eighth is added, and an octave has eight sizes."""
    sizes = [count + rows_to_fill(count) for count in range(1, 1 << 15)]
    assert all(count <= size <= count * 9 / 8 for count, size in enumerate(sizes, 1))
    assert len({size for size in sizes if 1 << 10 <= size < 1 << 14}) == 4 * 8


@few
@given(samples=lengths)
def test_the_batch_norm_of_some_encoders_ignores_padding(samples):
    """HuBERT with a batch norm before its positional convolution: alone, padded and packed are the same within 1e-5."""
    waveforms, counts = batch(samples, 9.0)
    model = normed()
    with torch.inference_mode():
        alone = torch.cat([model(waveforms[n : n + 1, :c], counts[n : n + 1]) for n, c in enumerate(samples)])
        for way in (model, PackedModel(model)):
            torch.testing.assert_close(way(waveforms, counts).softmax(1), alone.softmax(1), atol=1e-5, rtol=0)


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


def sound(samples, seed, encoding):
    """A tone in noise, in the call's codec."""
    rng = np.random.default_rng(seed)
    shape = np.sin(np.arange(samples) * rng.uniform(0.05, 1.5)) + rng.normal(size=samples) * rng.uniform(0, 1)
    values = (shape * rng.uniform(100, 8_000)).astype(np.int16)
    if encoding is Encoding.PCMU:
        return encoding, 8_000, g711.encode_pcmu(values)
    return encoding, 16_000, values.tobytes()


PLANS = [
    pytest.param(Plan(), id="padded"),
    *(
        pytest.param(Plan(dtype=dtype, packed=True), marks=marks(dtype), id=dtype)
        for dtype in ("fp32", "int8", "int8+bf16")
    ),
]
SOUNDS = st.lists(
    st.tuples(st.integers(400, 24_000), st.integers(0, 2**32), st.sampled_from([Encoding.PCMU, Encoding.S16LE])),
    min_size=2,
    max_size=6,
)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("head", list(HeadKind))
@pytest.mark.parametrize("shape", SHAPES)
@few
@given(descriptions=SOUNDS)
def test_alone_or_in_company_the_probabilities_are_equal(shape, head, plan, descriptions):
    """Through the whole engine, any lengths, codecs and neighbours: the same within 1e-5, in int8 1e-6."""
    engine = Engine(model_of(shape, head), plan)
    sounds = [sound(*description) for description in descriptions]
    together = engine.predict(sounds)
    for prediction, one in zip(together, sounds, strict=True):
        [alone] = engine.predict([one])
        assert prediction.probabilities == pytest.approx(
            alone.probabilities, rel=0, abs=1e-6 if plan.dtype in INT8 else 1e-5
        )
