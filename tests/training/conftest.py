"""What the training tests share: espeak-ng, and clips that are easy to tell apart."""
# ruff: noqa: PLC0415 - torch takes seconds to import: the process that only hands out tests does without it

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import config

if TYPE_CHECKING:
    from callmood.training.loop.data import Clip

# The shipped configuration, small enough for a few steps in a second or two.
TINY = (
    "corpus.voices_per_split=1",
    "corpus.languages_per_voice=1",
    "corpus.train_utterances=2",
    "corpus.valid_utterances=1",
    "corpus.test_utterances=1",
    "train.epochs=1",
    "train.batch_size=4",
    "train.crop_s=1.0",
)


@pytest.fixture(scope="session")
def tiny() -> config.Config:
    """The demo model's configuration with a tiny corpus and one epoch."""
    return config.load(config.CONFIGS / "demo_tiny.toml", TINY)


@pytest.fixture(scope="session")
def tiny_overrides() -> Sequence[str]:
    """The same, as the command line takes it."""
    return [word for override in TINY for word in ("--set", override)]


@pytest.fixture(scope="session")
def espeak() -> None:
    """Skip without espeak-ng, but fail in continuous integration: there, everything is installed."""
    if shutil.which("espeak-ng") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no synthetic speech: apt-get install espeak-ng")


def _tone(label: int, seconds: float, rng: np.random.Generator) -> "Clip":
    from callmood.training.loop.data import Clip

    time_s = np.arange(round(seconds * 8000)) / 8000
    samples = np.sin(2 * np.pi * 300 * (label + 1) * time_s) + rng.normal(scale=0.1, size=time_s.size)
    return Clip(8000, (samples * 8000).astype("<i2").tobytes(), label)


@pytest.fixture(scope="session")
def tones() -> dict[str, list["Clip"]]:
    """Clips whose class is the pitch of a tone, by split; lengths differ."""
    from callmood.training.manifest import SPLITS

    rng = np.random.default_rng(7)
    return {
        split: [_tone(label, rng.uniform(0.4, 1.2), rng) for label in range(len(EMOTIONS)) for _ in range(2)]
        for split in SPLITS
    }


@pytest.fixture(scope="session")
def speechbrain_parts() -> dict[str, Any]:
    """SpeechBrain's modules, with a stub in the place of torchaudio, which they do not use."""
    if importlib.util.find_spec("speechbrain") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no SpeechBrain: make setup installs it")
    from callmood.bench.speechbrain import parts

    return parts()


@pytest.fixture(scope="session")
def torchaudio_parts() -> dict[str, Any]:
    """Torchaudio's MFCCs, differences, and HuBERT pre-training model with the weights of one of ours."""
    if importlib.util.find_spec("torchaudio") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no torchaudio: make setup installs it")
    import torchaudio_reference

    return {
        "kaldi": torchaudio_reference.kaldi,
        "deltas": torchaudio_reference.compute_deltas,
        "pretraining": torchaudio_reference.pretraining,
    }


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`encoder_folder(kind, pickled=False)`: the folder of a pre-trained encoder, written once; do not change it."""
    import encoder_folders

    root = tmp_path_factory.mktemp("encoders")

    @cache
    def write(kind: str, *, pickled: bool = False) -> Path:
        return encoder_folders.write(root / ("pickled" if pickled else "safe") / kind, kind, pickled=pickled)

    return write
