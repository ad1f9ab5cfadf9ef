"""One run: a model of a configuration, trained and evaluated on one fold, in a folder from which it can be resumed."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from callmood.schemas.common import EMOTIONS
from callmood.training import checkpoint
from callmood.training.config import Config
from callmood.training.evaluate import Labels, Logits
from callmood.training.loop import augment, data
from callmood.training.loop.data import Clip, Share
from callmood.training.loop.loop import Epoch
from callmood.training.loop.place import Place, device_and_share
from callmood.training.loop.train import as_trained, predict, train
from callmood.training.manifest import SPLITS, Item
from callmood.training.networks import encoders, lora
from callmood.training.protocols import Fold
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.audio import RATE_HZ
from callmood.worker.model.model import EmotionModel

RUN: Final = "run.json"
OUTCOME: Final = "outcome.npz"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How to run, beside the configuration.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        resume: continue a run that the folder holds.
        robustness: evaluate over telephone lines, too.
        command: the command line, for the card.
        mlflow: experiment of MLflow that gets the figures, or empty.
    """

    device: str = "auto"
    resume: bool = False
    robustness: bool = False
    command: str = ""
    mlflow: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """A run's answers to its validation and test splits; logits [n, 4], labels [n], in the order of the items."""

    items: Mapping[str, Sequence[Item]]
    logits: Mapping[str, Logits]
    labels: Mapping[str, Labels]
    conditions: Mapping[str, Logits]


class Clips:
    """Audio of items, read once."""

    def __init__(self) -> None:
        self._known: dict[str, Clip] = {}
        self._digests: dict[str, str] = {}

    def of(self, items: Sequence[Item]) -> list[Clip]:
        """Clips in the order of the items, whose paths are absolute or relative to the working directory.

        Raises:
            ConfigurationError: a file is not mono 16-bit WAV at a rate that the worker knows.
        """
        for item in items:
            if item.path not in self._known:
                self._known[item.path] = data.read_clip(Path(), item)
        # A file may be in the list under several items: what a person said of it is the item's.
        return [
            dataclasses.replace(
                self._known[item.path],
                label=EMOTIONS.index(item.label),
                votes=item.shares,
                corpus=item.corpus,
                levels=item.levels,
            )
            for item in items
        ]

    def digest(self, item: Item) -> str:
        """SHA-256 of the item's audio and its rate."""
        if item.path not in self._digests:
            (clip,) = self.of([item])
            self._digests[item.path] = hashlib.sha256(f"{clip.rate_hz} ".encode() + clip.audio).hexdigest()
        return self._digests[item.path]


def run(settings: Config, fold: Fold, clips: Clips, folder: Path, options: Options) -> tuple[nn.Module, list[Epoch]]:
    """Train on a fold, or continue with it; the weights are those of the best round.

    Raises:
        ConfigurationError: something does not fit; the folder holds a run, and `resume` is false; or two splits have
            the same audio.
    """
    refuse_shared_audio(fold.items, clips)
    device, share = device_and_share(options.device)
    settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=fold.seed))
    place = Place(
        folder,
        device=device,
        share=share,
        fingerprint=fingerprint(settings, fold.items, share, clips),
        resume=options.resume,
        show=True,
    )
    place.track(options.mlflow, dataclasses.asdict(settings))
    set_determinism(settings)
    model = build(settings)
    splits = {split: [item for item in fold.items if item.split == split] for split in SPLITS}
    refuse_misfits(model, settings, {split: clips.of(items) for split, items in splits.items()})
    if share.rank == 0:
        _write_run(folder, settings, fold, model, options, clips)
    epochs = train(model.to(device), settings, clips.of(splits["train"]), clips.of(splits["valid"]), place)
    return model, epochs


def predict_splits(model: nn.Module, settings: Config, fold: Fold, clips: Clips, options: Options) -> Outcome:
    """Logits of validation and test; and of test after each of the lines of a robustness table, if asked."""
    items = {split: [item for item in fold.items if item.split == split] for split in ("valid", "test")}
    forward = as_trained(model, settings)
    how: dict[str, Any] = {"batch_size": settings.train.batch_size, "precision": settings.train.precision}
    answers = {split: predict(forward, clips.of(own), **how) for split, own in items.items()}
    conditions = over_lines(forward, clips.of(items["test"]), **how) if options.robustness else {}
    logits = {split: pair[0] for split, pair in answers.items()}
    return Outcome(items, logits, {split: pair[1] for split, pair in answers.items()}, conditions)


def over_lines(forward: nn.Module, clips: Sequence[Clip], **how: Any) -> dict[str, Logits]:
    """Logits of clips, clean and over each line of a robustness table; `how` goes to `predict`."""
    found = {}
    for name, line in augment.CONDITIONS.items():
        heard = [clip.through(line, np.random.default_rng((0, i))) for i, clip in enumerate(clips)]
        found[name] = predict(forward, heard, **how)[0]
    return found


def save(outcome: Outcome, folder: Path) -> None:
    """Keep an outcome in its run's folder."""
    arrays = {f"logits.{split}": logits for split, logits in outcome.logits.items()}
    arrays |= {f"condition.{name}": logits for name, logits in outcome.conditions.items()}
    checkpoint.write(folder / OUTCOME, lambda file: np.savez(file, allow_pickle=False, **arrays))


def saved(folder: Path, fold: Fold, clips: Clips, wanted: str, *, robustness: bool) -> Outcome | None:
    """The outcome of a run that has ended, if it has all that is asked for now; `wanted` is its fingerprint."""
    if not (folder / OUTCOME).exists() or json.loads((folder / RUN).read_text())["fingerprint"] != wanted:
        return None
    items = {split: [item for item in fold.items if item.split == split] for split in ("valid", "test")}
    names = {name: f"condition.{name}" for name in (augment.CONDITIONS if robustness else ())}
    with np.load(folder / OUTCOME) as arrays:
        if not arrays.keys() >= set(names.values()):
            return None
        return Outcome(
            items,
            {split: arrays[f"logits.{split}"] for split in items},
            {split: np.array([clip.label for clip in clips.of(own)]) for split, own in items.items()},
            {name: arrays[key] for name, key in names.items()},
        )


def set_determinism(settings: Config) -> None:
    """Make torch's algorithms deterministic for this process, if `train.deterministic` is set."""
    if settings.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
        torch.use_deterministic_algorithms(True, warn_only=True)


def build(settings: Config) -> nn.Module:
    """The model of a configuration, with its adapters.

    Raises:
        ConfigurationError: see `encoders.new`.
    """
    model = encoders.new(settings.model, settings.train.seed)
    if isinstance(model, EmotionModel):
        lora.adapt(model, settings.lora)
        if settings.train.gradient_checkpointing:
            encoders.checkpoint_activations(model)
    return model


def refuse_misfits(model: nn.Module, settings: Config, clips: Mapping[str, Sequence[Clip]]) -> None:
    """Refuse, before the first step, what would fail or mislead later.

    Raises:
        ConfigurationError: says what does not fit.
    """
    if isinstance(model, EmotionModel):
        encoder = model.encoder.config
        weighted = settings.model.head == "hf_superb" and encoder.use_weighted_layer_sum
        if weighted and encoder.layerdrop and settings.train.train != "head":
            raise ConfigurationError(
                "a weighted sum of layers needs model.encoder.layerdrop = 0: dropped layers have no sum"
            )
    elif settings.lora.rank or settings.paper_compat.batch_statistics or settings.train.gradient_checkpointing:
        raise ConfigurationError("without an encoder there is no lora, paper_compat or gradient_checkpointing")
    shortest: Any = model.min_samples
    for split, heard in clips.items():
        data.refuse_short(heard, shortest, speed=max(settings.train.speeds) if split == "train" else 1.0)
    if settings.train.crop_s and settings.train.crop_s * RATE_HZ < shortest:
        raise ConfigurationError(
            f"train.crop_s is {settings.train.crop_s}; the encoder needs {shortest / RATE_HZ:.3f} s"
        )
    missing = {0, 1, 2, 3} - {clip.label for clip in clips["train"]}
    if missing:
        raise ConfigurationError(f"the training split lacks {len(missing)} of the four emotions")


def _is_sound(clip: Clip) -> bool:
    """Whether its samples differ: silence of one length is the same everywhere, and in A-law it is not 0."""
    samples = np.frombuffer(clip.audio, "<i2")
    return bool(samples.size) and samples.min() != samples.max()


def refuse_shared_audio(items: Sequence[Item], clips: Clips) -> None:
    """Refuse audio that is both trained on and validated or tested with, whatever its names; silence does not count.

    Raises:
        ConfigurationError: says which utterances are the same.
    """
    judged = {clips.digest(item): item for item in items if item.split != "train"}
    shared = [
        (item, judged[clips.digest(item)])
        for item in items
        if item.split == "train" and clips.digest(item) in judged and _is_sound(clips.of([item])[0])
    ]
    if shared:
        item, other = shared[0]
        raise ConfigurationError(
            f"{item.id} of {item.corpus} is in train, and the same audio, {other.id} of {other.corpus}, in "
            f"{other.split}; {len(shared)} utterances of train are so: leave them out of the manifest"
        )


def fingerprint(settings: Config, items: Sequence[Item], share: Share, clips: Clips) -> str:
    """SHA-256 of all that decides a run's weights: configuration, encoder, items, their audio, number of processes.

    A file's path is not among them: data may move.
    """
    listed = [{**dataclasses.asdict(item), "path": "", "audio": clips.digest(item)} for item in items]
    decisive = [dataclasses.asdict(settings), encoders.digest(settings.model.pretrained), listed, share.world]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _write_run(folder: Path, settings: Config, fold: Fold, model: nn.Module, options: Options, clips: Clips) -> None:
    """Write what `export` needs beside the checkpoint."""
    _, share = device_and_share(options.device)
    run = {
        "command": options.command,
        "fingerprint": fingerprint(settings, fold.items, share, clips),
        "config": dataclasses.asdict(settings),
        "encoder": model.encoder.config.to_dict() if isinstance(model, EmotionModel) else None,
        "encoder_commit": getattr(model.encoder.config, "_commit_hash", None)
        if isinstance(model, EmotionModel)
        else None,
        "normalize": model.spec.normalize if isinstance(model, EmotionModel) else None,
        "fold": fold.name,
        "torch": torch.__version__,
        "items": [dataclasses.asdict(item) for item in fold.items],
    }
    checkpoint.write_text(folder / RUN, json.dumps(run) + "\n")
