"""Clusters of frames: on which speech they are found."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LARGE, SIZE

from callmood.training.loop.data import Clip
from callmood.training.options import PretrainConfig
from callmood.training.pretraining.targets import Clusters
from callmood.worker.model.model import EmotionModel


def test_clusters_are_found_on_a_part_of_the_speech(monkeypatch: pytest.MonkeyPatch):
    """As many hours as are set, in whole utterances; each utterance has clusters in the end."""

    class Zeros:
        """Finds one cluster, without the seconds that scikit-learn takes to import."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def fit(self, _: Any) -> "Zeros":
            return self

        def predict(self, frames: Any) -> Any:
            return np.zeros(len(frames))

    for name in ("sklearn", "sklearn.cluster"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(MiniBatchKMeans=Zeros))
    rng = np.random.default_rng(1)
    clips = [Clip(16_000, (rng.normal(size=16_000) * 3000).astype("<i2").tobytes(), 0) for _ in range(8)]
    model = EmotionModel.new({"model_type": "hubert", **SIZE, **LARGE})
    clusters = Clusters(model, PretrainConfig(layer=1, clusters=2, cluster_hours=2.5 / 3600), 2)
    parts, together = [], clusters._together
    monkeypatch.setattr(clusters, "_together", lambda part: parts.append(len(part)) or together(part))
    targets = clusters.of(clips, seed=1)
    assert parts == [3]
    assert [len(one) for one in targets] == clusters._model.frames(torch.full((8,), 16_000)).tolist()
