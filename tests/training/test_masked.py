"""Masked prediction as a task: what is measured, penalised and predicted."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LARGE, SIZE

from callmood.training import config
from callmood.training.loop.data import Clip
from callmood.training.options import PretrainConfig
from callmood.training.pretraining import masked
from callmood.worker.model.model import EmotionModel

CLUSTERS = 6


def task_of(lengths: tuple[int, ...] = (9_000, 12_000), **options: Any) -> masked.Prediction:
    """Masked prediction of utterances of noise, all of whose frames are of cluster 1."""
    torch.manual_seed(5)
    model, rng = EmotionModel.new({"model_type": "hubert", **SIZE, **LARGE}), np.random.default_rng(1)
    clips = [Clip(16_000, (rng.normal(size=n) * 3000).astype("<i2").tobytes(), 0) for n in lengths]
    pairs = [
        (clip, np.ones(int(model.frames(torch.tensor(n))), np.int64)) for clip, n in zip(clips, lengths, strict=True)
    ]
    settings = config.load(config.find("calls-hbt-large"))
    return masked.Prediction(
        model, dataclasses.replace(settings, pretrain=PretrainConfig(clusters=CLUSTERS, **options)), pairs, pairs
    )


def test_validation_is_measured_alike_in_each_round():
    """Its masks are the same, whatever was drawn before; the likelihood is the mean over masked frames."""
    task = task_of()
    first = task.measure()
    np.random.rand(7)  # noqa: NPY002 - as training draws
    assert task.measure() == first
    task.net.model.head.codes.data.fill_(1.0)  # all clusters are equally likely, and the first of them is taken
    error, nll = task.measure()
    assert (error, nll) == (1.0, pytest.approx(float(np.log(CLUSTERS))))


def test_large_features_are_penalised_as_asked():
    """By the factor, beside the mean cross-entropy."""
    found = masked.Found(torch.zeros(3, 4), torch.tensor([0, 1, 2]), torch.tensor(5.0))
    for factor in (0.0, 3.0):
        loss = task_of(feature_penalty=factor).loss(found, None)
        assert loss.item() == pytest.approx(float(np.log(4)) + 5 * factor)


@pytest.mark.parametrize("missing", [1, 3])
def test_frames_without_a_cluster_are_not_predicted(missing: int):
    """A telephone line can add a frame: it may be masked, and no cluster is learned for it."""
    task = task_of((12_000,))
    batch = masked._collate(task._valid)
    shorter = batch._replace(targets=batch.targets[:, :-missing])
    task.net.masks = lambda valid: valid
    found = task.net(*shorter)
    assert found.targets.tolist() == [1] * (batch.targets.shape[1] - missing)
    assert len(found.logits) == len(found.targets)
