"""An utterance's probabilities do not depend on its neighbours in the batch."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.common import Encoding
from worker import g711
from worker.checkpoints import HeadKind
from worker.infer import Engine
from worker.model import EmotionModel

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 8,
    "use_weighted_layer_sum": True,
}
SHAPES = {
    "base": {"feat_extract_norm": "group", "do_stable_layer_norm": False},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}


@pytest.fixture(scope="module", params=[(shape, head) for shape in SHAPES for head in HeadKind], ids=str)
def engine(request):
    """An engine whose random model prefers different emotions for different sounds."""
    shape, head = request.param
    torch.manual_seed(5)
    model = EmotionModel.new(transformers.HubertConfig(**SIZE, **SHAPES[shape]).to_dict(), head=head).eval()
    with torch.no_grad():
        final = model.head.linear if head is HeadKind.MEAN_LINEAR else model.head.classifier
        final.weight.mul_(10)
    return Engine(model)


def sound(samples, seed, encoding):
    rng = np.random.default_rng(seed)
    shape = np.sin(np.arange(samples) * rng.uniform(0.05, 1.5)) + rng.normal(size=samples) * rng.uniform(0, 1)
    values = (shape * rng.uniform(100, 8_000)).astype(np.int16)
    if encoding is Encoding.PCMU:
        return encoding, 8_000, g711.encode_pcmu(values)
    return encoding, 16_000, values.tobytes()


SOUNDS = st.lists(
    st.tuples(st.integers(400, 24_000), st.integers(0, 2**32), st.sampled_from([Encoding.PCMU, Encoding.S16LE])),
    min_size=2,
    max_size=6,
)


@settings(max_examples=40)
@given(SOUNDS)
def test_alone_or_in_company_the_probabilities_are_equal(engine, descriptions):
    """Any lengths, codecs and neighbours: the same probabilities within 1e-5."""
    sounds = [sound(*description) for description in descriptions]
    together = engine.predict(sounds)
    for prediction, one in zip(together, sounds, strict=True):
        [alone] = engine.predict([one])
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
