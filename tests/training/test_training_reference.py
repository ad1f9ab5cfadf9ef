"""The model and the rates against transformers and SpeechBrain: same weights, same numbers, same gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny import BASE, LARGE, SIZE
from torch.nn import functional

from callmood.training.loop import schedule
from callmood.training.networks import encoders
from callmood.training.networks.compat import Model2021
from callmood.training.networks.freeze import parameter_groups
from callmood.training.options import ModelConfig, TrainConfig
from callmood.worker.model.checkpoints import HeadKind, own_name
from callmood.worker.model.model import EmotionModel

SHAPES = {"base": BASE, "large": LARGE}
STILL = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
STILL |= {"layerdrop": 0.0, "apply_spec_augment": False}


def waveforms(count: int = 3, samples: int = 8000) -> tuple[torch.Tensor, torch.Tensor]:
    """Utterances of one length: nothing is padded."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, samples, generator=generator) / 10, torch.full((count,), samples)


def same_gradients(ours: EmotionModel, theirs: torch.nn.Module, name_of) -> None:
    """Every parameter that learns has the gradient of its counterpart."""
    expected = {name_of(name): parameter.grad for name, parameter in theirs.named_parameters()}
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], atol=2e-5, rtol=1e-3, msg=name)
            compared += bool(parameter.grad.abs().max() > 1e-6)
    assert compared > 20


@pytest.mark.parametrize("kind", ["Hubert", "Wav2Vec2", "WavLM"])
@pytest.mark.parametrize(("shape", "weighted"), [("base", True), ("base", False), ("large", False)])
def test_the_superb_model_is_that_of_transformers(kind: str, shape: str, weighted):
    """Logits and gradients of the layer-weighted model equal those of transformers' own class."""
    config = getattr(transformers, f"{kind}Config")(
        **SIZE, **SHAPES[shape], **STILL, num_labels=4, use_weighted_layer_sum=weighted
    )
    torch.manual_seed(2)
    theirs = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    ours = EmotionModel.new(config.to_dict(), head=HeadKind.HF_SUPERB, normalize=False)
    names = {"Hubert": "hubert", "Wav2Vec2": "wav2vec2", "WavLM": "wavlm"}
    name_of = lambda name: own_name(name, names[kind])  # noqa: E731 - one use, one line
    ours.load_state_dict({name_of(name): tensor for name, tensor in theirs.state_dict().items()})
    sounds, lengths = waveforms()
    labels = torch.tensor([0, 3, 1])
    expected = theirs(sounds, labels=labels)
    found = ours(sounds, lengths)
    torch.testing.assert_close(found, expected.logits, atol=1e-5, rtol=1e-4)
    functional.cross_entropy(found, labels).backward()
    expected.loss.backward()
    same_gradients(ours, theirs, name_of)


@pytest.mark.parametrize("constant", [1.0, -1.2, -4.0])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # transformers' use of torch
def test_wavlm_hears_no_padding_whatever_the_sign_of_its_gate(constant: float):
    """A batch has the logits of its utterances alone, and of transformers, also where gates are negative."""
    config = transformers.WavLMConfig(**SIZE, **LARGE, **STILL, num_labels=4)
    torch.manual_seed(2)
    theirs = transformers.WavLMForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("gru_rel_pos_const"):
                parameter.fill_(constant)
            elif "gru_rel_pos_linear" in name:
                parameter.mul_(30)
    ours = EmotionModel.new(config.to_dict(), head=HeadKind.HF_SUPERB, normalize=False).eval()
    ours.load_state_dict({own_name(name, "wavlm"): tensor for name, tensor in theirs.state_dict().items()})
    sounds, _ = waveforms(2, 16_000)
    lengths = torch.tensor([5000, 16_000])
    sounds[0, 5000:] = 0
    with torch.inference_mode():
        together = ours(sounds, lengths)
        alone = torch.cat([ours(sounds[i : i + 1, :length], lengths[i : i + 1]) for i, length in enumerate(lengths)])
        mask = (torch.arange(16_000) < lengths[:, None]).long()
        expected = theirs(sounds, attention_mask=mask).logits
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing_disable:FutureWarning"
)  # SpeechBrain's use of transformers
@pytest.mark.parametrize("trainable", ["encoder", "all"])
@pytest.mark.parametrize("kind", ["hbt-base", "hbt-large", "w2v-base", "w2v-large-960h"])
def test_the_published_model_is_that_of_speechbrain(
    speechbrain_parts, encoder_folder, tmp_path: Path, kind: str, trainable: str
):
    """Log-probabilities, loss and gradients of PF and EF equal those of the authors' recipe, made of its own parts."""
    folder = encoder_folder(kind)
    settings = ModelConfig("reference", pretrained=str(folder), encoder=STILL, normalize_eps=1e-5, output_norm=True)
    ours = encoders.new(settings, seed=1)
    module, name = ("hubert", "HuBERT") if kind.startswith("hbt") else ("wav2vec2", "Wav2Vec2")
    wrapper = getattr(speechbrain_parts[f"integrations.huggingface.{module}"], name)(
        source=str(folder),
        save_path=str(tmp_path / "cache"),
        output_norm=True,
        freeze=False,
        freeze_feature_extractor=trainable == "encoder",
        apply_spec_augment=False,
    )
    linear = speechbrain_parts["nnet.linear"].Linear(input_size=32, n_neurons=4, bias=False)
    linear.w.weight.data.copy_(ours.head.linear.weight.data)
    parameter_groups(ours, TrainConfig(1, 1, 4, trainable, 1e-5, 1e-4))
    for model in (ours, wrapper):
        model.eval()  # nothing drops, and gradients flow all the same
    sounds, lengths = waveforms()
    labels = torch.tensor([2, 0, 1])
    pooled = speechbrain_parts["nnet.pooling"].StatisticsPooling(return_std=False)(
        wrapper(sounds, torch.ones(3)), torch.ones(3)
    )
    expected = linear(pooled).squeeze(1).log_softmax(-1)
    found = ours(sounds, lengths).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=3e-4, rtol=0)  # their pooling adds noise of up to 1e-4
    loss = speechbrain_parts["nnet.losses"].nll_loss(expected[:, None], labels[:, None])
    torch.testing.assert_close(functional.cross_entropy(ours(sounds, lengths), labels), loss, atol=3e-4, rtol=0)
    functional.cross_entropy(ours(sounds, lengths), labels).backward()
    loss.backward()
    theirs = torch.nn.ModuleDict({"encoder": wrapper.model, "head": linear})
    expected_names = {name for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    assert {name for name, parameter in ours.named_parameters() if parameter.grad is not None} == {
        name.replace("head.w.", "head.linear.") for name in expected_names
    }
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            gradient = theirs.get_parameter(name.replace("head.linear.", "head.w.")).grad
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=5e-3, msg=name)


def test_the_forward_pass_of_2021_normalises_over_the_batch(encoder_folder):
    """Compatibility equals the authors' few lines of 2021 on a padded batch, and so differs from ours."""
    folder = encoder_folder("hbt-base")
    settings = ModelConfig("2021", pretrained=str(folder), encoder=STILL, normalize_eps=1e-5, output_norm=True)
    model = encoders.new(settings, seed=1).eval()
    sounds, _ = waveforms()
    lengths = torch.tensor([8000, 5000, 3000])
    sounds = sounds * (torch.arange(8000) < lengths[:, None])
    with torch.no_grad():
        hidden = model.encoder(functional.layer_norm(sounds, sounds.shape)).last_hidden_state
        hidden = functional.layer_norm(hidden, hidden.shape)
        counts = torch.round(lengths / 8000 * hidden.shape[1]).int()
        means = torch.stack([hidden[i, : counts[i]].mean(0) for i in range(3)])
        found = Model2021(model)(sounds, lengths)
        torch.testing.assert_close(found, model.head.linear(means))
        assert (found - model(sounds, lengths)).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(50))
def test_both_rates_follow_speechbrain(speechbrain_parts, seed: int):
    """On a sequence of validation errors, the encoder's and the head's rate are those of SpeechBrain's scheduler."""
    errors = np.random.default_rng(seed).integers(0, 40, 30) / 553  # few values: equal and zero errors occur
    config = TrainConfig(1, 30, 4, "encoder", 1e-5, 1e-4)
    ours = schedule.new(config)
    theirs = [speechbrain_parts["nnet.schedulers"].NewBobScheduler(rate, 0.9, 0.0025, 0) for rate in (1e-5, 1e-4)]
    for error in errors:
        ours.step(error)
        expected = [scheduler(error)[1] for scheduler in theirs]
        assert np.allclose([1e-5 * ours.factor, 1e-4 * ours.factor], expected, rtol=1e-12)
