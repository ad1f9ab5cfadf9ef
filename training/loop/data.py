"""Manifest items as batches, prepared by the worker's own code, so that training and inference get the same samples.

Every draw (order, speed, crop, augmentation) is a function of the seed, the pass and the clip: a run that is resumed or
shared by several processes gets the same batches as any other run.
"""

import dataclasses
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from callmood.schemas.common import EMOTIONS, RATES_HZ, Encoding
from callmood.training import manifest, wav
from callmood.training.loop import augment, balance
from callmood.training.options import AugmentConfig, TrainConfig
from callmood.worker.errors import ConfigurationError
from callmood.worker.model import audio

_ORDER = 0  # what a draw is for
_CLIP = 1
_NO_AUGMENTATION = AugmentConfig()
_NO_LEVELS = (np.nan,) * len(manifest.DIMENSIONS)
Draw = tuple[int, int]
"""A pass, and the index of a clip."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One utterance in memory.

    Attributes:
        rate_hz: of the audio.
        audio: s16le bytes.
        label: index in `EMOTIONS`.
        votes: shares in the order of `EMOTIONS`, or empty.
        name: the file, for messages.
        corpus: its name.
        levels: valence, arousal and dominance from 0 to 1, NaN for one that is missing; or empty.
    """

    rate_hz: int
    audio: bytes
    label: int
    votes: tuple[float, ...] = ()
    name: str = ""
    corpus: str = ""
    levels: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / wav.SAMPLE_BYTES / self.rate_hz

    def at_speed(self, speed: float) -> "Clip":
        """The same samples, played faster or slower."""
        return dataclasses.replace(self, rate_hz=round(self.rate_hz * speed))

    def crop(self, seconds: float, rng: np.random.Generator) -> "Clip":
        """A random stretch of at most `seconds`."""
        room = len(self.audio) // wav.SAMPLE_BYTES - round(seconds * self.rate_hz)
        if room <= 0:
            return self
        start = int(rng.integers(room + 1)) * wav.SAMPLE_BYTES
        stretch = self.audio[start : start + round(seconds * self.rate_hz) * wav.SAMPLE_BYTES]
        return dataclasses.replace(self, audio=stretch)

    def through(self, config: AugmentConfig, rng: np.random.Generator) -> "Clip":
        """The clip after a telephone line that is drawn, with the configured probability; else the clip as it is."""
        if rng.random() >= config.probability:
            return self
        samples = np.frombuffer(self.audio, "<i2")
        return dataclasses.replace(
            self, audio=augment.telephone_line(samples, self.rate_hz, config, rng).tobytes(), rate_hz=augment.RATE_HZ
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Arguments of `EmotionModel.forward`, and what its answers should be.

    Attributes:
        waveforms: see `EmotionModel.forward`.
        lengths: as there.
        labels: int64 [batch].
        votes: their shares [batch, 4]; one-hot without votes.
        levels: [batch, 3] of valence, arousal and dominance, NaN where one is missing.
    """

    waveforms: Tensor
    lengths: Tensor
    labels: Tensor
    votes: Tensor
    levels: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Arguments of the model's forward pass."""
        return self.waveforms, self.lengths

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True) for field in dataclasses.fields(self)
        }
        return Batch(**moved)

    def pin_memory(self) -> "Batch":
        """In memory that a GPU reads by itself; torch's DataLoader asks for it."""
        return Batch(**{field.name: getattr(self, field.name).pin_memory() for field in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """The part of each step that this process computes: `rank` of `world`."""

    rank: int = 0
    world: int = 1


class Plan:
    """Which clips each step trains on.

    A step is `accumulate` batches on each of `world` processes; where a pass' last step lacks some, batches of its
    beginning come again.
    """

    def __init__(self, clips: Sequence[Clip], config: TrainConfig, share: Share) -> None:
        self._config = config
        self._share = share
        crop_s = config.crop_s or float("inf")
        self._seconds = np.array([min(clip.seconds, crop_s) for clip in clips])
        corpora = [clip.corpus if config.balance == "classes_and_corpora" else "" for clip in clips]
        self._groups = balance.groups([clip.label for clip in clips], corpora)
        self._batches_per_step = config.accumulate * share.world
        batches = -(-len(clips) // config.batch_size)
        self.steps_per_pass = -(-batches // self._batches_per_step)

    def from_step(self, step: int, end: int) -> Iterator[list[Draw]]:
        """This process' batches of steps `step` to `end`."""
        number = -1
        for current in range(step, end):
            if current // self.steps_per_pass != number:
                number = current // self.steps_per_pass
                batches = self._pass(number)
            first = current % self.steps_per_pass * self._batches_per_step + self._share.rank
            for k in range(self._config.accumulate):
                batch = batches[(first + k * self._share.world) % len(batches)]
                yield [(number, int(index)) for index in batch]

    def _pass(self, number: int) -> list[np.ndarray[Any, Any]]:
        """Batches of one pass: shuffled, and within every `bucket_batches` of them by length; shuffled again."""
        rng = np.random.default_rng((self._config.seed, _ORDER, number))
        if self._config.balance == "none":
            order = rng.permutation(self._seconds.size)
        else:
            order = balance.draw(self._groups, self._seconds.size, rng)
        size = self._config.batch_size
        bucket_size = size * self._config.bucket_batches
        batches = []
        for start in range(0, order.size, bucket_size):
            bucket = order[start : start + bucket_size]
            if self._config.bucket_batches > 1:
                bucket = bucket[np.argsort(self._seconds[bucket], kind="stable")]
            batches += [bucket[i : i + size] for i in range(0, bucket.size, size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def generator(seed: int, draw: Draw) -> np.random.Generator:
    """What is drawn for a clip in a pass."""
    return np.random.default_rng((seed, _CLIP, *draw))


class _Drawn(Dataset[Clip]):
    """Clips as training hears them, by (pass, index)."""

    def __init__(self, clips: Sequence[Clip], config: TrainConfig, augmentation: AugmentConfig) -> None:
        self._clips = clips
        self._config = config
        self._augmentation = augmentation

    def __getitem__(self, draw: Draw) -> Clip:
        rng = generator(self._config.seed, draw)
        speed = float(rng.choice(self._config.speeds))
        clip = self._clips[draw[1]]
        if self._config.crop_s:
            clip = clip.crop(self._config.crop_s * speed, rng)
        return clip.through(self._augmentation, rng).at_speed(speed)


def training_batches(
    clips: Sequence[Clip],
    config: TrainConfig,
    batches: Iterable[list[Draw]],
    augmentation: AugmentConfig = _NO_AUGMENTATION,
) -> Iterator[Batch]:
    """The batches of a `Plan`, read and augmented by `config.workers` processes."""
    loader = DataLoader(
        _Drawn(clips, config, augmentation),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


def evaluation_batches(clips: Sequence[Clip], *, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Every clip once and whole, shortest first, each batch with the indices of its clips."""
    order = sorted(range(len(clips)), key=lambda i: clips[i].seconds)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, collate([clips[i] for i in indices])


def collate(clips: Sequence[Clip]) -> Batch:
    """Decode, resample to 16 kHz and pad, as the worker does."""
    waveforms, lengths = audio.prepare([(Encoding.S16LE, clip.rate_hz, clip.audio) for clip in clips])
    one_hot = np.eye(len(EMOTIONS))
    votes = np.array([clip.votes or one_hot[clip.label] for clip in clips])
    levels = np.array([clip.levels or _NO_LEVELS for clip in clips])
    return Batch(
        waveforms,
        lengths,
        torch.tensor([clip.label for clip in clips]),
        torch.tensor(votes, dtype=torch.float32),
        torch.tensor(levels, dtype=torch.float32),
    )


def read_clip(folder: Path, item: manifest.Item) -> Clip:
    """An item's audio; its path is relative to `folder`.

    Raises:
        ConfigurationError: the file is missing, or not mono 16-bit WAV at a rate that the worker knows.
    """
    path = folder / item.path
    try:
        sound, samples = wav.read(path)
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if sound.channels != 1 or sound.sample_bytes != wav.SAMPLE_BYTES or sound.rate_hz not in RATES_HZ:
        raise ConfigurationError(f"{path}: not mono 16-bit WAV at {', '.join(map(str, RATES_HZ))} Hz")
    return Clip(sound.rate_hz, samples, EMOTIONS.index(item.label), item.shares, str(path))


def refuse_short(clips: Sequence[Clip], min_samples: int, *, speed: float = 1.0) -> None:
    """Check that the encoder has at least one frame of each clip, also when it is played that much faster.

    Raises:
        ConfigurationError: a clip is too short, or is not of whole samples; the message has its file.
    """
    for clip in clips:
        if len(clip.audio) % wav.SAMPLE_BYTES:
            raise ConfigurationError(f"{clip.name or 'a clip'}: {len(clip.audio)} bytes are not 16-bit samples")
        seconds = clip.seconds / speed
        if seconds * audio.RATE_HZ < min_samples:
            raise ConfigurationError(
                f"{clip.name or 'a clip'}: {seconds:.3f} s; the encoder needs {min_samples / audio.RATE_HZ:.3f} s"
            )
