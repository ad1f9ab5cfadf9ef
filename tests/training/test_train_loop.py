"""The loop: it learns, repeats itself, keeps the best epoch; NewBob; batches."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import LARGE, SIZE

from callmood.training import config, options
from callmood.training.loop import data, schedule, train
from callmood.training.loop.data import Clip
from callmood.training.loop.loss import Loss
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.model import EmotionModel


def fit(clips: dict[str, list[Clip]], tiny: config.Config, **changes: object) -> tuple[EmotionModel, list[train.Epoch]]:
    """Train a new model on `clips`."""
    settings = dataclasses.replace(tiny.train, **{"warmup_steps": 5, "anneal_factor": 1.0, **changes})
    torch.manual_seed(settings.seed)
    model = EmotionModel.new(tiny.model.encoder)
    return model, train.train(model, dataclasses.replace(tiny, train=settings), clips["train"], clips["valid"])


def test_one_batch_is_learned_by_heart(tones: dict[str, list[Clip]], tiny: config.Config):
    """A model that sees one batch again and again predicts all its labels in the end."""
    clips = tones["train"]
    model, epochs = fit({"train": clips, "valid": clips}, tiny, epochs=30, batch_size=len(clips), crop_s=2.0)
    logits, labels = train.predict(model, clips, batch_size=4)
    assert (logits.argmax(axis=1) == labels).all()
    assert epochs[-1].train_loss < 0.2 < epochs[0].train_loss


def test_the_same_seed_gives_the_same_weights(tones: dict[str, list[Clip]], tiny: config.Config):
    """Two runs of one configuration end in equal weights; another seed does not."""
    first, second, other = (fit(tones, tiny, epochs=2, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_best_epoch_is_kept(tones: dict[str, list[Clip]], tiny: config.Config):
    """After training, the model's validation error is the lowest that any epoch had, also when later ones got worse."""
    model, epochs = fit(tones, tiny, epochs=4, encoder_lr=0.03, head_lr=0.03, warmup_steps=0)
    logits, labels = train.predict(model, tones["valid"], batch_size=4)
    error = (logits.argmax(axis=1) != labels).mean()
    assert error == pytest.approx(min(epoch.valid_error for epoch in epochs))


def test_frozen_weights_do_not_move(tones: dict[str, list[Clip]], tiny: config.Config):
    """Partial fine-tuning leaves every weight of the CNN as it was, and moves the rest of the encoder."""
    torch.manual_seed(tiny.train.seed)
    start = EmotionModel.new(tiny.model.encoder).state_dict()
    model, _ = fit(tones, tiny, train="encoder", anneal_threshold=0.0)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert not any(name.startswith("encoder.feature_extractor.") for name in moved)
    assert any(name.startswith("encoder.encoder.layers.") for name in moved)


def batches_of(clips: list[Clip], settings: options.TrainConfig) -> list[data.Batch]:
    """One pass."""
    plan = data.Plan(clips, settings, data.Share())
    return list(data.training_batches(clips, settings, plan.from_step(0, plan.steps_per_pass)))


def test_newbob_shrinks_the_rate_after_each_epoch_that_improved_too_little():
    """The factor shrinks when the relative improvement over the epoch before is below the threshold, at once."""
    newbob = schedule.NewBob(anneal_factor=0.9, threshold=0.0025)
    factors = []
    for error in [0.5, 0.4, 0.3995, 0.45, 0.42, 0.2, 0.0, 0.0]:
        newbob.step(error)
        factors.append(newbob.factor)
    assert factors == pytest.approx([1, 1, 0.9, 0.81, 0.81, 0.81, 0.81, 0.729])
    enough = schedule.NewBob(anneal_factor=0.9, threshold=0.5)
    for error in (0.5, 0.25):
        enough.step(error)
    assert enough.factor == 1


def test_stairs_shrink_the_rate_after_every_few_rounds():
    """Whatever the error is."""
    stairs, factors = schedule.Stairs(0.5, every=2), []
    for error in (0.5, 0.1, 0.5, 0.1):
        stairs.step(error)
        factors.append(stairs.factor)
    assert factors == [1, 0.5, 0.5, 0.25]


def test_rates_grow_over_the_warm_up(
    tones: dict[str, list[Clip]], tiny: config.Config, monkeypatch: pytest.MonkeyPatch
):
    """The first step has a share of the rate, and the last step of the warm-up has all of it."""
    shares: list[set[float]] = []
    step = torch.optim.Adam.step

    def recorded(optimizer: torch.optim.Adam, *arguments: object) -> object:
        shares.append({group["lr"] / group["full_lr"] for group in optimizer.param_groups})
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    fit(tones, tiny, epochs=0, steps=6, warmup_steps=4)
    assert [max(found) for found in shares] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert [min(found) for found in shares] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_the_loss_of_a_round_is_the_mean_of_its_batches(
    tones: dict[str, list[Clip]], tiny: config.Config, monkeypatch: pytest.MonkeyPatch
):
    """Of each round alone; batches that are accumulated for a step count as one mean."""
    losses: list[float] = []
    of_batch = Loss.__call__

    def recorded(loss: Loss, *arguments: object) -> torch.Tensor:
        found = of_batch(loss, *arguments)
        losses.append(found.item())
        return found

    monkeypatch.setattr(Loss, "__call__", recorded)
    _, epochs = fit(tones, tiny, epochs=2, accumulate=2, batch_size=2)
    means = np.array(losses).reshape(2, -1).mean(axis=1)
    assert [epoch.train_loss for epoch in epochs] == pytest.approx(means.tolist())


def test_an_epoch_holds_every_clip_once(tones: dict[str, list[Clip]], tiny: config.Config):
    """Training batches hold every clip once, for every batch size."""
    for batch_size in (1, 3, 8, 20):
        settings = dataclasses.replace(tiny.train, batch_size=batch_size, crop_s=9.0, speeds=[1.0])
        lengths = torch.cat([batch.lengths for batch in batches_of(tones["train"], settings)])
        assert sorted(lengths.tolist()) == sorted(len(clip.audio) for clip in tones["train"])  # 2 bytes, 2x the rate


def test_clips_are_played_at_the_speeds_asked(tones: dict[str, list[Clip]], tiny: config.Config):
    """A faster clip is shorter by that factor, and every speed is drawn."""
    clip = dataclasses.replace(tones["train"][0], audio=bytes(2 * 4000))
    settings = dataclasses.replace(tiny.train, speeds=[0.8, 1.25], crop_s=9.0)
    batches = batches_of([clip] * 40, settings)
    assert {int(length) for batch in batches for length in batch.lengths} == {10_000, 6_400}


def test_crops_are_no_longer_than_asked(tones: dict[str, list[Clip]]):
    """A crop is a stretch of the clip, cut at whole samples; a shorter clip stays whole."""
    clip = tones["train"][0]
    rng = np.random.default_rng(1)
    crops = [clip.crop(0.25, rng) for _ in range(20)]
    assert {crop.seconds for crop in crops} == {0.25}
    assert len({crop.audio for crop in crops}) > 1
    assert all(clip.audio.find(crop.audio) % 2 == 0 for crop in crops)
    assert clip.crop(9.0, rng) == clip


def test_predictions_come_in_the_order_of_the_clips(tones: dict[str, list[Clip]], tiny: config.Config):
    """Sorting by length inside does not show outside, and logits do not depend on the batch."""
    model = EmotionModel.new(tiny.model.encoder)
    together, labels = train.predict(model, tones["test"], batch_size=8)
    alone = np.concatenate([train.predict(model, [clip], batch_size=1)[0] for clip in tones["test"]])
    assert labels.tolist() == [clip.label for clip in tones["test"]]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_reading_in_other_processes_changes_nothing(tones: dict[str, list[Clip]], tiny: config.Config):
    """Batches are the same whether worker processes read and augment them or not."""
    alone, helped = (
        dataclasses.replace(tiny.train, speeds=[0.9, 1.1], crop_s=0.5, workers=workers) for workers in (0, 2)
    )
    line = options.AugmentConfig(probability=0.5)
    plan = data.Plan(tones["train"], alone, data.Share())
    found = [
        list(data.training_batches(tones["train"], settings, plan.from_step(0, 5), line))
        for settings in (alone, helped)
    ]
    for first, second in zip(*found, strict=True):
        assert torch.equal(first.waveforms, second.waveforms)
        assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize(("world", "accumulate", "batch_size"), [(1, 1, 3), (1, 4, 2), (2, 2, 1), (3, 1, 2)])
def test_a_pass_is_dealt_out_whole_to_any_number_of_processes(
    tones: dict[str, list[Clip]], tiny: config.Config, world: int, accumulate: int, batch_size: int
):
    """All shares of a pass together hold every clip, and a clip twice only to fill the last step."""
    settings = dataclasses.replace(tiny.train, accumulate=accumulate, batch_size=batch_size)
    plans = [data.Plan(tones["train"], settings, data.Share(rank, world)) for rank in range(world)]
    steps = plans[0].steps_per_pass
    dealt = [key for plan in plans for batch in plan.from_step(steps, 2 * steps) for key in batch]
    assert {number for number, _ in dealt} == {1}
    assert {index for _, index in dealt} == set(range(len(tones["train"])))
    assert len(dealt) - len(tones["train"]) < world * accumulate * batch_size


def test_a_plan_goes_on_where_it_was(tones: dict[str, list[Clip]], tiny: config.Config):
    """From any step on, the batches are those that a plan from the beginning has there."""
    plan = data.Plan(tones["train"], tiny.train, data.Share())
    whole = list(plan.from_step(0, 9))
    assert all(list(plan.from_step(step, 9)) == whole[step:] for step in range(9))
    assert len({tuple(map(tuple, whole[step : step + 2])) for step in (0, 2, 4)}) == 3  # passes differ


SMALL = {"model_type": "hubert", **SIZE, **LARGE}
"""Groups of eight channels: with AMX, the positional convolution of torch 2.15 in bfloat16 is wrong for those."""


def small(
    tiny: config.Config, size: dict[str, object] = SMALL, **changes: object
) -> tuple[config.Config, EmotionModel]:
    """A configuration of one epoch and a model that is quick to train."""
    settings = dataclasses.replace(tiny.train, **{"epochs": 1, "warmup_steps": 0, "crop_s": 0.0, **changes})
    torch.manual_seed(settings.seed)
    return dataclasses.replace(tiny, train=settings), EmotionModel.new(size)


def noise(rate_hz: int, seconds: float) -> list[Clip]:
    """Eight clips of that length."""
    rng = np.random.default_rng(1)
    samples = (rng.normal(size=(8, round(rate_hz * seconds))) * 3000).astype("<i2")
    return [Clip(rate_hz, row.tobytes(), index % 4) for index, row in enumerate(samples)]


@pytest.mark.parametrize("rate_hz", [8000, 48_000])
def test_bfloat16_hears_what_float32_hears(tiny: config.Config, rate_hz: int):
    """With matrix products in bfloat16, audio of another rate is resampled in float32: it trains, and answers alike."""
    settings, model = small(tiny, SMALL | {"num_conv_pos_embedding_groups": 2}, precision="bf16")
    clips = noise(rate_hz, 0.4)
    train.train(model, settings, clips, clips)
    exact, _ = train.predict(model, clips, batch_size=4)
    rounded, _ = train.predict(model, clips, batch_size=4, precision="bf16")
    assert np.isfinite(rounded).all()
    np.testing.assert_allclose(rounded, exact, atol=0.02)  # logits of about one; bfloat16 has 8 bits


@pytest.mark.parametrize("seconds", [0.1, 0.19])
def test_clips_shorter_than_a_mask_of_specaugment_train(tiny: config.Config, seconds: float):
    """A batch with fewer frames than one mask of SpecAugment is trained on without masks."""
    settings, model = small(tiny, batch_size=4)
    assert model.encoder.config.apply_spec_augment
    assert model.encoder.config.mask_time_length == 10
    clips = noise(16_000, seconds)
    (epoch,) = train.train(model, settings, clips, clips)
    assert np.isfinite(epoch.train_loss)


@pytest.mark.parametrize(("gradient", "norm"), [(1e30, "inf"), (float("nan"), "nan")])
def test_an_infinite_gradient_ends_training(
    tones: dict[str, list[Clip]], tiny: config.Config, gradient: float, norm: str
):
    """Clipping makes zeros of an infinite gradient, and nothing would learn any more: training stops with words."""
    settings, model = small(tiny)
    model.head.linear.weight.register_hook(lambda given: torch.full_like(given, gradient))
    with pytest.raises(ConfigurationError, match=rf"diverged before step \d+; .* norm of a gradient was {norm}"):
        train.train(model, settings, tones["train"], tones["valid"])


def test_training_that_diverges_ends_with_an_error(tones: dict[str, list[Clip]], tiny: config.Config):
    """Rates that blow the weights up end the run with an error that names the step."""
    with pytest.raises(ConfigurationError, match=r"diverged before step \d+; lower the rates"):
        fit(tones, tiny, epochs=3, encoder_lr=1e20, head_lr=1e20, warmup_steps=0)


def test_the_loop_is_that_of_two_optimisers(tones: dict[str, list[Clip]], tiny: config.Config):
    """Steps equal those of two Adam optimisers, encoder and head, after one clipping of all gradients."""
    encoder = {**tiny.model.encoder, "apply_spec_augment": False}
    encoder |= dict.fromkeys(("hidden_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
    settings = dataclasses.replace(
        tiny.train, train="encoder", encoder_lr=1e-3, head_lr=1e-2, warmup_steps=0, max_grad_norm=0.5, speeds=[1.0]
    )
    torch.manual_seed(1)
    ours, theirs = EmotionModel.new(encoder), EmotionModel.new(encoder)
    theirs.load_state_dict(ours.state_dict())
    train.train(ours, dataclasses.replace(tiny, train=settings), tones["train"], tones["valid"])
    for parameter in theirs.encoder.feature_extractor.parameters():
        parameter.requires_grad_(False)
    learning = [p for p in theirs.encoder.parameters() if p.requires_grad]
    optimizers = [torch.optim.Adam(learning, lr=1e-3), torch.optim.Adam(theirs.head.parameters(), lr=1e-2)]
    theirs.train()
    for batch in batches_of(tones["train"], settings):
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(batch.waveforms, batch.lengths), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_([*learning, *theirs.head.parameters()], 0.5)
        for optimizer in optimizers:
            optimizer.step()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], atol=1e-6, rtol=1e-5, msg=name)


def test_the_weights_of_the_best_epoch_are_kept(
    tones: dict[str, list[Clip]], tiny: config.Config, monkeypatch: pytest.MonkeyPatch
):
    """Those that had the lowest error, not the last ones."""
    seen, figures = [], iter([(0.5, 1.0), (0.2, 0.5), (0.4, 0.6)])

    def measure(task: train.Emotions) -> tuple[float, float]:
        seen.append({name: tensor.detach().clone() for name, tensor in task._model.state_dict().items()})
        return next(figures)

    monkeypatch.setattr(train.Emotions, "measure", measure)
    kept = fit(tones, tiny, epochs=3)[0].state_dict()
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[2][name]) for name in kept)
