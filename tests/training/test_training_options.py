"""What can be chosen beyond the paper: losses, adapters, rates by layer, pooling; the baseline without an encoder."""

import numpy as np
import pytest
import torch
from tiny import LARGE, SIZE
from torch.nn import functional

from callmood.training.loop.data import Batch, Clip
from callmood.training.loop.loop import autocast, seed
from callmood.training.loop.loss import Loss
from callmood.training.networks import encoders, lora
from callmood.training.networks.attention_pooling import AttentionPoolingCnn
from callmood.training.networks.freeze import parameter_groups
from callmood.training.options import HEADS, LoraConfig, LossConfig, TrainConfig
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.checkpoints import HeadKind
from callmood.worker.model.model import EmotionModel

LOGITS = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, 0.4], [-1.0, 3.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 3, 2])
VOTES = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 0.0]])


def loss(config: LossConfig, clips: list[Clip] | None = None) -> float:
    batch = Batch(torch.zeros(3, 1), torch.ones(3), LABELS, VOTES, torch.full((3, 3), torch.nan))
    return float(Loss(config, clips or [Clip(8000, b"", 0, (1.0, 0.0, 0.0, 0.0))])(LOGITS, batch))


def test_the_loss_of_the_paper_is_the_cross_entropy():
    """Without options the loss is torch's."""
    assert loss(LossConfig()) == pytest.approx(float(functional.cross_entropy(LOGITS, LABELS)))


def test_label_smoothing_and_soft_labels_are_torchs():
    """Smoothed and soft targets give torch's loss for the same targets."""
    smoothed = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert loss(LossConfig(label_smoothing=0.1)) == pytest.approx(float(smoothed))
    assert loss(LossConfig(soft_labels=True)) == pytest.approx(float(functional.cross_entropy(LOGITS, VOTES)))


def test_class_weights_are_the_inverse_frequencies():
    """A class a third as frequent weighs three times as much, and the loss is torch's with these weights."""
    clips = [Clip(8000, b"", label) for label in (0, 0, 0, 1, 2, 3)]
    weights = torch.tensor([1 / 3, 1, 1, 1])
    expected = functional.cross_entropy(LOGITS, LABELS, weight=weights)
    assert loss(LossConfig(class_weights="inverse_frequency"), clips) == pytest.approx(float(expected))


def test_the_focal_loss_leaves_what_is_sure_alone():
    """Each utterance's cross-entropy is scaled by (1 - p)^gamma; gamma 0 changes nothing."""
    probabilities = LOGITS.softmax(1)[torch.arange(3), LABELS]
    expected = (-((1 - probabilities) ** 2) * probabilities.log()).mean()
    assert loss(LossConfig(kind="focal", focal_gamma=2.0)) == pytest.approx(float(expected))
    assert loss(LossConfig(kind="focal", focal_gamma=0.0)) == pytest.approx(loss(LossConfig()))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LossConfig(class_weights="inverse_frequency"), "no happiness, neutral, sadness"),
        (LossConfig(soft_labels=True), "no training utterance has votes"),
    ],
)
def test_a_loss_that_the_data_cannot_serve_is_refused(config: LossConfig, message: str):
    """Weights for a class without utterances, and soft labels without votes, are errors before the first step."""
    with pytest.raises(ConfigurationError, match=message):
        Loss(config, [Clip(8000, b"", 0)])


def test_every_head_of_the_worker_can_be_trained():
    """The heads that a configuration can name are those of the worker, and the network without an encoder."""
    assert set(HEADS) == {*HeadKind, "attention_pooling_cnn"}


def model(head: HeadKind = HeadKind.MEAN_LINEAR) -> EmotionModel:
    torch.manual_seed(1)
    return EmotionModel.new({"model_type": "hubert", **SIZE, **LARGE}, head=head)


def settings(**changes: object) -> TrainConfig:
    return TrainConfig(
        **{"seed": 1, "epochs": 1, "batch_size": 4, "train": "encoder", "encoder_lr": 1e-5, "head_lr": 1e-4, **changes}
    )


def test_adapters_change_nothing_at_first_and_alone_learn():
    """A fresh adapter leaves every logit as it was; of the encoder, nothing but adapters learns."""
    adapted = model().eval()
    waveforms, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    before = adapted(waveforms, lengths)
    lora.adapt(adapted, LoraConfig(rank=2))
    torch.testing.assert_close(adapted(waveforms, lengths), before)
    groups = parameter_groups(adapted, settings())
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(learning) == 1 + 2 * 6 * SIZE["num_hidden_layers"]
    assert all(lora.is_adapter(name) or name.startswith("head.") for name in learning)
    assert sum(len(group["params"]) for group in groups) == len(learning)


def test_merged_adapters_leave_a_plain_model():
    """After learning and merging, logits are the same and the parameters have the names of a model without adapters."""
    adapted = model().eval()
    lora.adapt(adapted, LoraConfig(rank=2))
    parameter_groups(adapted, settings())
    waveforms, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    optimizer = torch.optim.Adam((p for p in adapted.parameters() if p.requires_grad), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(adapted(waveforms, lengths), torch.tensor([0, 1])).backward()
        optimizer.step()
    learned = adapted(waveforms, lengths)
    assert (learned - model().eval()(waveforms, lengths)).abs().max() > 1e-2
    lora.merge(adapted)
    torch.testing.assert_close(adapted(waveforms, lengths), learned, atol=1e-5, rtol=1e-4)
    assert adapted.state_dict().keys() == model().state_dict().keys()


def test_the_first_layers_can_be_frozen():
    """`freeze_layers = 1` freezes the CNN, the projection, the positional convolution and layer 0; all above learns."""
    frozen = model()
    parameter_groups(frozen, settings(freeze_layers=1))
    for name, parameter in frozen.named_parameters():
        above = name.startswith(("encoder.encoder.layers.1.", "encoder.encoder.layer_norm.", "head."))
        assert parameter.requires_grad is above, name
    with pytest.raises(ConfigurationError, match="has 2 layers"):
        parameter_groups(frozen, settings(freeze_layers=3))


def test_lower_layers_can_learn_more_slowly():
    """With a decay of 0.5, each layer has half the rate of the one above, and what is below all layers half of that."""
    decayed = model()
    groups = parameter_groups(decayed, settings(layer_decay=0.5))
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    names = dict(decayed.named_parameters())
    expected = {
        "encoder.encoder.layers.1.final_layer_norm.weight": 1e-5,
        "encoder.encoder.layer_norm.weight": 1e-5,
        "encoder.encoder.layers.0.final_layer_norm.weight": 0.5e-5,
        "encoder.feature_projection.projection.weight": 0.25e-5,
        "head.linear.weight": 1e-4,
    }
    assert {name: rate_of[id(names[name])] for name in expected} == pytest.approx(expected)


def test_attentive_statistics_with_even_attention_are_mean_and_deviation():
    """With even attention, pooling is the mean and the standard deviation over valid frames."""
    head = model(HeadKind.ATTENTIVE_STATISTICS).head
    torch.nn.init.zeros_(head.attention[2].weight)
    hidden = torch.randn(2, 7, 32)
    valid = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    statistics = torch.cat(
        [
            torch.stack([hidden[0].mean(0), hidden[1, :4].mean(0)]),
            torch.stack([hidden[0].std(0, correction=0), hidden[1, :4].std(0, correction=0)]),
        ],
        dim=1,
    )
    torch.testing.assert_close(head([hidden], valid), head.linear(statistics), atol=1e-4, rtol=1e-4)


def test_the_baseline_averages_over_segments_and_not_over_neighbours():
    """The attention-pooling CNN's logits are the mean over an utterance's segments, for every batch."""
    torch.manual_seed(1)
    baseline = AttentionPoolingCnn().eval()
    generator = torch.Generator().manual_seed(1)
    long, short = torch.randn(64_000, generator=generator), torch.randn(10_000, generator=generator)
    waveforms = torch.zeros(2, 64_000)
    waveforms[0], waveforms[1, :10_000] = long, short
    with torch.inference_mode():
        together = baseline(waveforms, torch.tensor([64_000, 10_000]))
        segments = [baseline(long[None, s : s + 32_000], torch.tensor([32_000])) for s in (0, 16_000, 32_000)]
        alone = baseline(short[None], torch.tensor([10_000]))
    torch.testing.assert_close(together[0], torch.cat(segments).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[1], alone[0], atol=1e-5, rtol=1e-4)
    assert np.isfinite(together.numpy()).all()


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
def test_computing_activations_again_changes_no_gradient(kind: str):
    """Gradient checkpointing gives the same loss and gradients, dropout and LayerDrop included."""
    gradients = []
    for is_checkpointed in (False, True):
        torch.manual_seed(1)
        made = EmotionModel.new({"model_type": kind, **SIZE, **LARGE, "layerdrop": 0.5})
        if is_checkpointed:
            encoders.checkpoint_activations(made)
        made.train()
        seed(7, 8)
        waveforms = torch.randn(2, 5000, generator=torch.Generator().manual_seed(1))
        functional.cross_entropy(made(waveforms, torch.tensor([5000, 3000])), torch.tensor([1, 2])).backward()
        gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("head", list(HeadKind))
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
def test_bfloat16_trains_every_encoder_under_every_head(kind: str, head: HeadKind):
    """With matrix products in bfloat16, logits stay float32 and near those of float32, and gradients are finite."""
    torch.manual_seed(1)
    sizes = {**SIZE, **LARGE, "use_weighted_layer_sum": True}
    sizes["num_conv_pos_embedding_groups"] = 2  # oneDNN 3.13 computes groups of 8 channels wrongly where there is AMX
    made = EmotionModel.new({"model_type": kind, **sizes}, head=head).eval()
    waveforms, lengths = torch.randn(3, 9000), torch.tensor([9000, 4000, 1000])
    with autocast(torch.device("cpu"), "bf16"):
        logits = made(waveforms, lengths)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.softmax(1), made(waveforms, lengths).softmax(1), atol=0.02, rtol=0)
    functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    assert all(p.grad is not None for name, p in made.named_parameters() if "masked_spec" not in name)
