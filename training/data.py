"""Manifest items as batches, through the worker's own preparation: the model trains on what it will hear in service."""

import dataclasses
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from schemas.common import EMOTIONS, RATES_HZ, Encoding
from training import manifest
from training.config import TrainConfig
from worker import audio
from worker.errors import ConfigurationError

_BUCKET_BATCHES = 8  # batches among which utterances are sorted by length: less padding, still shuffled
_SAMPLE_BYTES = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One utterance in memory: s16le bytes and the index of its label in `EMOTIONS`."""

    rate_hz: int
    audio: bytes
    label: int

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.audio) / _SAMPLE_BYTES / self.rate_hz

    def at_speed(self, speed: float) -> "Clip":
        """The same samples, played faster or slower."""
        return dataclasses.replace(self, rate_hz=round(self.rate_hz * speed))

    def crop(self, seconds: float, rng: np.random.Generator) -> "Clip":
        """A random stretch of at most `seconds`."""
        room = len(self.audio) // _SAMPLE_BYTES - round(seconds * self.rate_hz)
        if room <= 0:
            return self
        start = int(rng.integers(room + 1)) * _SAMPLE_BYTES
        stretch = self.audio[start : start + round(seconds * self.rate_hz) * _SAMPLE_BYTES]
        return dataclasses.replace(self, audio=stretch)


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What `EmotionModel.forward` takes, and int64 labels [batch]."""

    waveforms: Tensor
    lengths: Tensor
    labels: Tensor


def load(path: Path) -> dict[str, list[Clip]]:
    """Read a manifest and its audio: clips by split, in the manifest's order.

    Raises:
        ConfigurationError: the manifest is refused, or a file is no mono 16-bit WAV at a rate the worker knows.
    """
    clips: dict[str, list[Clip]] = {split: [] for split in manifest.SPLITS}
    for item in manifest.read(path):
        clips[item.split].append(_clip(path.parent / item.path, EMOTIONS.index(item.label)))
    return clips


def training_batches(clips: Sequence[Clip], config: TrainConfig, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch in random order, at random speeds, cropped to `crop_s`, utterances of like length together."""
    speeds = rng.choice(config.speeds, size=len(clips))
    order = rng.permutation(len(clips))
    cropped = [clips[i].at_speed(speed).crop(config.crop_s, rng) for i, speed in zip(order, speeds, strict=True)]
    batch_size = config.batch_size
    bucket_size = batch_size * _BUCKET_BATCHES
    batches: list[Sequence[Clip]] = []
    for start in range(0, len(cropped), bucket_size):
        bucket = sorted(cropped[start : start + bucket_size], key=lambda clip: clip.seconds)
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    for index in rng.permutation(len(batches)):
        yield collate(batches[index])


def evaluation_batches(clips: Sequence[Clip], *, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Every clip once and whole, shortest first, each batch with the indices of its clips."""
    order = sorted(range(len(clips)), key=lambda i: clips[i].seconds)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, collate([clips[i] for i in indices])


def collate(clips: Sequence[Clip]) -> Batch:
    """Decode, resample to 16 kHz and pad, as the worker does."""
    waveforms, lengths = audio.prepare([(Encoding.S16LE, clip.rate_hz, clip.audio) for clip in clips])
    return Batch(waveforms, lengths, torch.tensor([clip.label for clip in clips]))


def _clip(path: Path, label: int) -> Clip:
    try:
        with wave.open(str(path), "rb") as file:
            rate_hz = file.getframerate()
            if file.getnchannels() != 1 or file.getsampwidth() != _SAMPLE_BYTES or rate_hz not in RATES_HZ:
                raise ConfigurationError(f"{path}: not mono 16-bit WAV at {', '.join(map(str, RATES_HZ))} Hz")
            return Clip(rate_hz, file.readframes(file.getnframes()), label)
    except (OSError, wave.Error) as error:
        raise ConfigurationError(f"{path}: {error}") from error
