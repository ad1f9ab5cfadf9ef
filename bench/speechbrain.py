"""What SpeechBrain's emotion classifier does with a batch, beside the engine: same weights, same utterances, one run.

Run `python -m callmood.bench.speechbrain [--utterances 32]`.
The steps are those of `classify_batch` in the interface that comes
with SpeechBrain's emotion-recognition-wav2vec2-IEMOCAP: encoder, mean over the valid part, linear layer, softmax, on
batches padded to their longest. The encoder is wav2vec2-base with random weights, saved as the recipe saves it and
brought to the engine by `callmood-train convert`. SpeechBrain is given samples at 16 kHz, the engine telephone audio.
"""

import argparse
import functools
import importlib
import importlib.machinery
import itertools
import sys
import tempfile
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from callmood.bench.engine import BATCH_SIZES, labels, rate
from callmood.bench.synthetic import lengths_s, speak
from callmood.schemas.common import EMOTIONS
from callmood.training.results.convert import convert
from callmood.worker.engine.infer import open_engine
from callmood.worker.model import audio
from callmood.worker.model.audio import Sound
from callmood.worker.settings import ModelSettings

BATCH_S = 60.0
CLASSES = ("neu", "ang", "hap", "sad")
OURS = [CLASSES.index(name) for name in ("ang", "hap", "neu", "sad")]
PARTS = (
    "nnet.schedulers",
    "nnet.pooling",
    "nnet.linear",
    "nnet.losses",
    "integrations.huggingface.hubert",
    "integrations.huggingface.wav2vec2",
)
SURE = 20  # times the weights of a new head: logits of whole units


@functools.cache  # a second time it would wrap torch's loader in its own wrapper, which then calls itself
def parts() -> dict[str, Any]:
    """Modules of SpeechBrain, without torchaudio, which these do not use and which need not fit the torch that is here.

    Raises:
        ModuleNotFoundError: there is no SpeechBrain; `make setup` installs it.
    """
    stub = types.ModuleType("torchaudio")
    stub.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    stub.__dict__["__version__"] = "2.9.0"
    before = sys.modules.get("torchaudio")
    sys.modules["torchaudio"] = stub
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: importlib.import_module(f"speechbrain.{name}") for name in PARTS}
    finally:
        del sys.modules["torchaudio"]
        if before is not None:
            sys.modules["torchaudio"] = before
        for name in [name for name in sys.modules if name.partition(".")[0] == "speechbrain"]:
            del sys.modules[name]  # its lazy modules import themselves when anybody looks at them, as test tools do


class Classifier:
    """SpeechBrain's modules, in the order in which its interface runs them, with random weights.

    Args:
        folder: gets the encoder in a folder of that name; `save` writes beside it.
        config: of the encoder.
    """

    def __init__(self, folder: Path, config: transformers.Wav2Vec2Config) -> None:
        found = parts()
        torch.manual_seed(0)
        transformers.Wav2Vec2Model(config).save_pretrained(folder / "encoder")
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder / "encoder")
        self._encoder = found["integrations.huggingface.wav2vec2"].Wav2Vec2(
            source=str(folder / "encoder"), save_path=str(folder / "cache"), output_norm=True, freeze=True
        )
        self._pooling = found["nnet.pooling"].StatisticsPooling(return_std=False)
        self._linear = found["nnet.linear"].Linear(input_size=config.hidden_size, n_neurons=len(EMOTIONS), bias=False)
        self._linear.w.weight.data.mul_(SURE)

    @torch.inference_mode()
    def classify_batch(self, waveforms: Tensor, lengths: Tensor) -> list[list[float]]:
        """Probabilities of a padded batch, in the order of `EMOTIONS`."""
        pooled = self._pooling(self._encoder(waveforms), lengths / lengths.max())
        found: list[list[float]] = self._linear(pooled).squeeze(1).softmax(dim=-1)[:, OURS].tolist()
        return found

    def save(self, folder: Path) -> Path:
        """As the recipe saves it."""
        folder.mkdir()
        torch.save(self._encoder.state_dict(), folder / "wav2vec2.ckpt")
        torch.save(nn.ModuleList([self._linear]).state_dict(), folder / "model.ckpt")
        lines = [f"{name!r} => {index}" for index, name in enumerate(CLASSES)]
        (folder / "label_encoder.txt").write_text("\n".join([*lines, "=" * 16, "'starting_index' => 0", ""]))
        return folder


def in_batches(classifier: Classifier, sounds: Sequence[Sound], size: int) -> list[list[float]]:
    """Probabilities of utterances, batched in the order in which they came."""
    batches = (sounds[first : first + size] for first in range(0, len(sounds), size))
    return [row for batch in batches for row in classifier.classify_batch(*audio.prepare(batch))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m callmood.bench.speechbrain")
    parser.add_argument("--utterances", type=int, default=32)
    count, seeds = parser.parse_args().utterances, itertools.count()
    sounds, *sets = [[speak(length, next(seeds)) for length in lengths_s(count, draw)] for draw in (1, 2, 3)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier = Classifier(folder, transformers.Wav2Vec2Config())
        best = 0.0
        for size in BATCH_SIZES:
            found = rate(functools.partial(in_batches, classifier, size=size), sets)
            best = max(best, found)
            print(f"classify_batch, batches of {size:<2}  {found:6.2f} s/s")
        convert(classifier.save(folder / "recipe"), folder / "bundle")
        alone = np.array(in_batches(classifier, sounds, 1))
        for dtype in ("fp32", "bf16", "int8"):
            engine = open_engine(ModelSettings(path=str(folder / "bundle"), device="cpu", dtype=dtype))
            engine.warm_up()
            predictions = engine.predict(sounds)
            off = np.abs(np.array([prediction.probabilities for prediction in predictions]) - alone).max()
            found = rate(functools.partial(labels, engine, batch_seconds=BATCH_S), sets)
            print(f"engine, {dtype:19} {found:6.2f} s/s  {found / best:.2f} x  probabilities within {off:.4f}")


if __name__ == "__main__":
    main()
