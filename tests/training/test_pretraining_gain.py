"""The comparison of pre-training with none: it runs, small, and starts one way from the encoder alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from callmood.bench import pretraining


@pytest.mark.slow
@pytest.mark.usefixtures("espeak")
@pytest.mark.timeout(400)
def test_both_ways_are_measured_on_the_same_labels(tmp_path: Path, tiny_overrides: Sequence[str]):
    """Each way has a UA for each seed, from the same labelled utterances; only one starts from the encoder."""
    steps = ("train.epochs=0", "train.steps=2", "train.evaluate_steps=2")
    overrides = tuple(one for one in tiny_overrides if "=" in one and "epochs" not in one)
    size = pretraining.Size(
        one_in=2,
        seeds=(1,),
        overrides=(*overrides, "corpus.train_utterances=4"),
        training=steps,
        pretraining=(*steps, "train.crop_s=0", "train.speeds=[1.0]", "pretrain.clusters=8"),
    )
    figures = pretraining.run(tmp_path, size)
    assert [len(figures[way]) for way in pretraining.WAYS] == [1, 1]
    assert all(0 <= ua <= 1 for way in figures.values() for ua in way)
    folders = (tmp_path / f"{way}-1.run" for way in ("random-weights", "pre-trained"))
    runs = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [bool(run["config"]["model"]["pretrained"]) for run in runs] == [False, True]
    assert runs[0]["items"] == runs[1]["items"]
    assert sum(item["split"] == "train" for item in runs[0]["items"]) == 8
