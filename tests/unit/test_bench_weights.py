"""The models of the benchmarks: the worker and transformers' pipeline get the same weights."""

import numpy as np
import torch
import transformers
from tiny import BASE, SIZE

from callmood.bench import engine, weights
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.model.model import load

WAVE = np.sin(np.arange(16_000) / 9).astype(np.float32)


def same_logits(folder, path):
    """Check that the folder gives transformers' pipeline the logits that the worker's model has."""
    pipe = transformers.pipeline("audio-classification", str(folder), device="cpu")
    inputs = pipe.feature_extractor(WAVE, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        theirs = pipe.model(inputs["input_values"]).logits[0]
        ours = load(path)(torch.from_numpy(WAVE)[None], torch.tensor([16_000]))[0]
    names = [pipe.model.config.id2label[number][:3] for number in range(4)]
    order = [names.index(emotion[:3]) for emotion in weights.EMOTIONS]
    torch.testing.assert_close(theirs[order], ours, atol=1e-2, rtol=0)


def test_the_demo_model_is_the_same_in_transformers(tmp_path):
    """The worker loads the bundled one, and the folder has the same weights."""
    written = weights.write(weights.DEMO, tmp_path)
    assert written == (str(DEMO_FOLDER), str(tmp_path), True)
    same_logits(tmp_path, written.worker)


def test_random_weights_are_loaded_by_both(tmp_path, monkeypatch):
    """The worker loads the folder that is written for transformers' pipeline."""
    shape = {**SIZE, **BASE, "num_labels": 4, "use_weighted_layer_sum": True}
    monkeypatch.setitem(engine.SHAPES, "base", shape)
    assert weights.write("base", tmp_path) == (str(tmp_path), str(tmp_path), False)
    same_logits(tmp_path, tmp_path)
