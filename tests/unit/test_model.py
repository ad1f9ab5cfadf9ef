"""The emotion model, compared with transformers' own models, and alone compared with in a batch."""

import pytest
import torch
import transformers
from tiny import BASE, LARGE, SIZE

from callmood.worker.errors import ModelError
from callmood.worker.model.checkpoints import HeadKind
from callmood.worker.model.model import EmotionModel

KINDS = {
    "hubert": (transformers.HubertConfig, transformers.HubertForSequenceClassification),
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForSequenceClassification),
}
CLASSIFIER = SIZE | {
    "num_labels": 4,
    "tie_last_hidden_states": True,  # as the checkpoints were made; transformers 5 alone defaults to something else
}

SHAPES = pytest.mark.parametrize("shape", [BASE, LARGE], ids=["base", "large"])


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def tiny(kind="hubert", **changes):
    return KINDS[kind][0](**{**CLASSIFIER, **BASE, **changes}).to_dict()


def loud(model):
    """Random weights answer nearly the same to everything; this makes them differ by whole logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("linear.weight", "classifier.weight")):
                parameter.mul_(100)
            if name.endswith("layer_weights"):
                parameter.normal_()
    return model.eval()


def noise(samples, seed=0):
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


@SHAPES
@pytest.mark.parametrize("weighted", [True, False], ids=["all layers", "last layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_superb_head_equals_transformers(kind, shape, weighted):
    """One utterance without padding gives the logits that transformers' own sequence classifier gives."""
    config = KINDS[kind][0](**{**CLASSIFIER, **shape, "use_weighted_layer_sum": weighted})
    reference = loud(KINDS[kind][1](config))
    model = EmotionModel.new(config.to_dict(), head=HeadKind.HF_SUPERB, normalize=False).eval()
    model.load_state_dict(
        {
            name.replace(f"{kind}.", "encoder.") if name.startswith(kind) else f"head.{name}": tensor
            for name, tensor in reference.state_dict().items()
        }
    )
    waveform = noise(9_000)
    with torch.no_grad():
        expected = reference(waveform).logits
        found = model(waveform, torch.tensor([9_000]))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@SHAPES
def test_mean_linear_head_is_the_mean_of_the_last_layer(shape):
    """The paper's head is the mean of the encoder's last layer, times a matrix."""
    model = loud(EmotionModel.new(tiny(**shape), normalize=False))
    waveform = noise(9_000)
    with torch.no_grad():
        last = model.encoder(waveform).last_hidden_state
        expected = last.mean(dim=1) @ model.head.linear.weight.T
        torch.testing.assert_close(model(waveform, torch.tensor([9_000])), expected, atol=1e-5, rtol=1e-5)


@SHAPES
@pytest.mark.parametrize("head", list(HeadKind))
def test_what_lies_beyond_the_end_is_never_heard(shape, head):
    """Neither padding nor whatever stands in it changes an utterance's logits."""
    model = loud(EmotionModel.new(tiny(**shape, use_weighted_layer_sum=True), head=head))
    waveform = noise(5_000)
    padded = torch.full((2, 24_000), torch.nan)
    padded[0, :5_000] = waveform
    padded[1] = 7.0
    with torch.no_grad():
        alone = model(waveform, torch.tensor([5_000]))
        together = model(padded, torch.tensor([5_000, 24_000]))
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


def test_normalised_utterances_may_be_quiet_and_off_centre():
    """With normalisation, gain and direct current change nothing; without, they do."""
    encoder = tiny()
    waveform, length = noise(8_000), torch.tensor([8_000])
    changed = 0.05 * waveform + 0.2
    for normalize in (True, False):
        model = loud(EmotionModel.new(encoder, normalize=normalize))
        with torch.no_grad():
            difference = (model(waveform, length) - model(changed, length)).abs().max()
        assert (difference < 1e-3) == normalize


def test_digital_silence_has_finite_logits():
    """An utterance of zeros, which has no variance, does not become NaN."""
    model = loud(EmotionModel.new(tiny()))
    with torch.no_grad():
        assert model(torch.zeros(1, 4_000), torch.tensor([4_000])).isfinite().all()


def test_evaluation_is_deterministic():
    """In evaluation mode neither dropout, LayerDrop nor SpecAugment acts."""
    model = loud(EmotionModel.new(tiny(layerdrop=0.5, mask_time_prob=0.5)))
    waveform, length = noise(16_000), torch.tensor([16_000])
    with torch.no_grad():
        torch.testing.assert_close(model(waveform, length), model(waveform, length), atol=0, rtol=0)


@SHAPES
def test_every_parameter_learns(shape):
    """Gradients reach the whole model, through padding and all."""
    model = EmotionModel.new(tiny(**shape, layerdrop=0.0, mask_time_prob=0.5)).train()
    model(noise(32_000).reshape(2, -1), torch.tensor([16_000, 9_000])).square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_layer_drop_skips_layers_in_training_only():
    """With LayerDrop at 1 no transformer layer takes part in training, and every one in evaluation."""
    model = EmotionModel.new(tiny(layerdrop=1.0))
    weight = model.encoder.encoder.layers[1].feed_forward.output_dense.weight
    waveform, length = noise(8_000), torch.tensor([8_000])
    model.train()(waveform, length).square().sum().backward()
    assert weight.grad is None
    model.eval()(waveform, length).square().sum().backward()
    assert weight.grad.abs().sum() > 0


def test_fusing_changes_no_logits():
    """Folded weight normalisation is the same convolution."""
    model = loud(EmotionModel.new(tiny()))
    waveform, length = noise(8_000), torch.tensor([8_000])
    with torch.no_grad():
        before = model(waveform, length)
        after = model.fuse()(waveform, length)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    assert not any("parametrizations" in name for name in model.state_dict())


@pytest.mark.parametrize(("samples", "frames"), [(399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49)])
def test_frames_are_twenty_milliseconds_apart(samples, frames):
    """The standard front end sees 25 ms per frame, every 20 ms."""
    model = EmotionModel.new(tiny())
    assert model.min_samples == 400
    assert model.frames(torch.tensor(samples)) == frames


@pytest.mark.parametrize("encoder", [{"model_type": "whisper"}, {}, tiny(hidden_size=30)])
def test_what_makes_no_encoder_is_refused(encoder):
    """Another kind of encoder, or sizes that do not fit, are model errors."""
    with pytest.raises(ModelError):
        EmotionModel.new(encoder)
