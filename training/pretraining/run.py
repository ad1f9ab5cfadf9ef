"""One pre-training run: a list of speech and an encoder in, a folder with an encoder for fine-tuning out."""

import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from callmood.training import checkpoint
from callmood.training.config import Config
from callmood.training.loop import runs
from callmood.training.loop.data import Clip, Share
from callmood.training.loop.loop import Loop
from callmood.training.loop.place import Place, device_and_share
from callmood.training.networks import encoders
from callmood.training.options import LossConfig, ModelConfig
from callmood.training.pretraining.masked import Prediction, Targets
from callmood.training.pretraining.targets import Clusters
from callmood.training.results import predict
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.audio import RATE_HZ
from callmood.worker.model.model import EmotionModel

TARGETS: Final = "targets.npz"
REPORT: Final = "pretraining.json"
LONGEST_S: Final = 30.0
"""Attention needs memory by the square of the length: longer rows are recordings, not utterances."""
_WAIT_S: Final = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Speech:
    """Utterances to train on and to measure on, and counts of what is left out."""

    train: Sequence[Clip]
    valid: Sequence[Clip]
    left_out: Counter[str]

    @property
    def clips(self) -> list[Clip]:
        """All of them."""
        return [*self.train, *self.valid]


def pretrain(settings: Config, source: Path, work: Path, out: Path, options: runs.Options) -> dict[str, Any]:
    """Pre-train on the speech of a list, or continue; write the encoder of the best round. Returns the report.

    Raises:
        ConfigurationError: something does not fit, or `work` has a run and `options.resume` is false.
    """
    _refuse(settings)
    device, share = device_and_share(options.device)
    runs.set_determinism(settings)
    model = runs.build(settings)
    assert isinstance(model, EmotionModel)
    if not hasattr(model.encoder, "masked_spec_embed"):
        raise ConfigurationError("the encoder has no mask embedding: set model.encoder.mask_time_prob above 0")
    speech = read(source, model, settings)
    fingerprint = _fingerprint(settings, speech, share)
    place = Place(work, device=device, share=share, fingerprint=fingerprint, resume=options.resume, show=True)
    place.track(options.mlflow, dataclasses.asdict(settings))
    targets = _targets(settings, model, speech, place, work / TARGETS, fingerprint)
    pairs = list(zip(speech.clips, targets, strict=True))
    task = Prediction(model, settings, pairs[: len(speech.train)], pairs[len(speech.train) :])
    rounds = Loop(model.to(device), task, settings.train, place).run()
    report = {
        "command": options.command,
        "train": _size(speech.train),
        "valid": _size(speech.valid),
        "left_out": dict(speech.left_out),
        "clusters_used": len(np.unique(np.concatenate(targets))),
        "best": dataclasses.asdict(min(rounds, key=lambda one: (one.valid_error, one.valid_nll))),
        "config": dataclasses.asdict(settings),
    }
    if share.rank == 0:
        encoders.save(model, out)
        checkpoint.write_text(out / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def read(source: Path, model: EmotionModel, settings: Config) -> Speech:
    """The speech of a manifest or an own list; without its split `test`, which an encoder must not hear before a test.

    Raises:
        ConfigurationError: the list cannot be read, or has too few usable utterances.
    """
    options = settings.pretrain
    clips: dict[str, list[Clip]] = {"train": [], "valid": []}
    left_out: Counter[str] = Counter()
    for one in predict.heard(source):
        if one.split == "test":
            left_out["split test"] += 1
        elif one.clip is None:
            left_out[one.error] += 1
        elif one.clip.seconds > LONGEST_S:
            left_out[f"longer than {LONGEST_S:g} s"] += 1
        elif int(model.frames(torch.tensor(int(one.clip.seconds * RATE_HZ)))) < options.mask_length:
            left_out[f"shorter than a mask of {options.mask_length} frames"] += 1
        else:
            clips["valid" if one.split == "valid" else "train"].append(one.clip)
    train, valid = clips["train"], clips["valid"]
    if not valid and len(train) > 1:
        order = np.random.default_rng(settings.train.seed).permutation(len(train))
        count = max(1, round(options.valid_share * len(train)))
        valid = [train[i] for i in order[:count]]
        train = [train[i] for i in order[count:]]
    if not train or not valid:
        raise ConfigurationError(f"{source}: too few utterances to learn from; left out: {dict(left_out)}")
    return Speech(train, valid, left_out)


def _refuse(settings: Config) -> None:
    """Refuse what pre-training would ignore; the head and `calibration` may stay, for fine-tuning with the same file.

    Raises:
        ConfigurationError: names the option.
    """
    model, train = settings.model, settings.train
    refused = {
        'model.head = "attention_pooling_cnn" has no encoder to pre-train': model.head == "attention_pooling_cnn",
        "clusters belong to whole utterances: set train.crop_s = 0": train.crop_s > 0,
        "clusters belong to utterances at their own speed: set train.speeds = [1.0]": list(train.speeds) != [1.0],
        "train.balance needs labels, which pre-training does not read": train.balance != "none",
        "the options of the table loss are for fine-tuning: remove them": settings.loss != LossConfig(),
        'train.train = "head" trains no encoder': train.train == "head",
        "lora.rank: pre-training has no adapters": settings.lora.rank > 0,
        "paper_compat.batch_statistics is for fine-tuning": settings.paper_compat.batch_statistics,
        "pretrain.layer needs a pre-trained encoder: model.pretrained, or pretrain.teacher": settings.pretrain.layer > 0
        and not (model.pretrained or settings.pretrain.teacher),
    }
    for why, is_so in refused.items():
        if is_so:
            raise ConfigurationError(why)


def _fingerprint(settings: Config, speech: Speech, share: Share) -> str:
    """SHA-256 of all that decides a run's weights: configuration, encoders, audio, number of processes."""
    heard = [hashlib.sha256(f"{clip.rate_hz} ".encode() + clip.audio).hexdigest() for clip in speech.clips]
    read = [encoders.digest(source) for source in (settings.model.pretrained, settings.pretrain.teacher)]
    decisive = [dataclasses.asdict(settings), read, len(speech.train), heard, share.world]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _targets(
    settings: Config, model: EmotionModel, speech: Speech, place: Place, path: Path, fingerprint: str
) -> list[Targets]:
    """Clusters of all utterances: found by the first process, which writes them to `path`; others wait for the file."""
    while (kept := _kept(path, fingerprint)) is None:
        if place.share.rank:  # no barrier: its time limit is shorter than a search in much speech
            time.sleep(_WAIT_S)
            continue
        found = Clusters(_teacher(settings, model).to(place.device), settings.pretrain, settings.train.batch_size)
        targets = found.of(speech.clips, settings.train.seed)
        _keep(path, targets, fingerprint)
    return kept


def _keep(path: Path, targets: Sequence[Targets], fingerprint: str) -> None:
    flat, frames = np.concatenate(targets).astype(np.int32), [len(one) for one in targets]
    checkpoint.write(path, lambda file: np.savez(file, flat=flat, frames=frames, fingerprint=fingerprint))


def _kept(path: Path, fingerprint: str) -> list[Targets] | None:
    if not path.exists():
        return None
    with np.load(path) as arrays:
        if str(arrays["fingerprint"]) != fingerprint:
            return None
        return np.split(arrays["flat"].astype(np.int64), np.cumsum(arrays["frames"])[:-1])


def _teacher(settings: Config, model: EmotionModel) -> EmotionModel:
    if not settings.pretrain.teacher:
        return model
    teacher = encoders.new(ModelConfig(id="teacher", pretrained=settings.pretrain.teacher), settings.train.seed)
    assert isinstance(teacher, EmotionModel)
    if model.frames(torch.arange(RATE_HZ)).tolist() != teacher.frames(torch.arange(RATE_HZ)).tolist():
        raise ConfigurationError(f"pretrain.teacher {settings.pretrain.teacher}: its frames do not match the encoder's")
    return teacher


def _size(clips: Sequence[Clip]) -> dict[str, float]:
    return {"utterances": len(clips), "hours": round(sum(clip.seconds for clip in clips) / 3600, 2)}
