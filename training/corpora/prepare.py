"""Prepare a corpus, or your own list: map labels, check and convert audio, write a manifest and a report of drops."""

import dataclasses
import json
import os
import shutil
import subprocess
import wave
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from callmood.schemas.common import RATES_HZ
from callmood.training import manifest, protocols, wav
from callmood.training.checkpoint import write_text
from callmood.training.corpora import iemocap
from callmood.training.corpora.found import Corpus, Found, refuse_same_ids
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.audio import RATE_HZ

MANIFEST: Final = "manifest.jsonl"
REPORT: Final = "prepared.json"
_SHORTEST_S: Final = 0.1
_LOUDEST: Final = 8.0  # beyond full scale; floats that clip a little are usual, floats scaled as integers are not
_EXAMPLES: Final = 3  # of what was dropped, per reason


class _DroppedError(Exception):
    """This utterance cannot be used; the message is the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How to prepare.

    Attributes:
        partial: accept an IEMOCAP that is not whole.
        speakers_of_2021: IEMOCAP's speakers as the authors' code had them.
        split: `speakers`: assign speakers without a split to train, valid and test.
        seed: of that draw.
        name: of your own list, among several.
    """

    partial: bool = False
    speakers_of_2021: bool = False
    split: str = ""
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.name and self.name != manifest.file_name(self.name):
            raise ConfigurationError(f"--name {self.name!r}: use ASCII letters, digits, _ . and -, at most 100")


def prepare(corpus: Corpus, root: Path, out: Path, options: Options) -> Path:
    """Write the manifest and a report of what was dropped and why; convert audio other than mono 16-bit WAV.

    Returns:
        The manifest's path.

    Raises:
        ConfigurationError: the corpus is missing or not whole, two utterances have the same id, a speaker has two
            splits, or nothing is left.
    """
    out.mkdir(parents=True, exist_ok=True)
    items: list[manifest.Item] = []
    dropped: dict[str, list[str]] = {}
    for found in refuse_same_ids(corpus.find(root)):
        try:
            items.append(_item(corpus, found, out, options))
        except _DroppedError as reason:
            dropped.setdefault(str(reason), []).append(found.id)
    if not items:
        raise ConfigurationError(f"{root}: no utterance can be used; {_counted(dropped) or 'it lists none'}")
    if corpus is iemocap.CORPUS and not options.partial:
        iemocap.refuse_other_counts([item.session for item in items])
    if options.split == "speakers" and not all(item.split for item in items):
        items = protocols.by_speaker(items, options.seed)
    path = out / MANIFEST
    manifest.write(path, items)
    write_text(out / REPORT, json.dumps(report(items, dropped), indent=2) + "\n")
    return path


def report(items: list[manifest.Item], dropped: dict[str, list[str]]) -> dict[str, Any]:
    """Counts of what was kept, and of what was dropped by reason."""
    return {
        "utterances": len(items),
        "hours": round(sum(item.seconds for item in items) / 3600, 2),
        "speakers": len({item.person for item in items}),
        "labels": dict(Counter(str(item.label) for item in items)),
        "splits": dict(Counter(item.split or "none" for item in items)),
        "dropped": {
            reason: {"utterances": len(ids), "examples": ids[:_EXAMPLES]} for reason, ids in sorted(dropped.items())
        },
    }


def _counted(dropped: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(ids)} dropped: {reason}" for reason, ids in sorted(dropped.items()))


def _item(corpus: Corpus, found: Found, out: Path, options: Options) -> manifest.Item:
    if found.unusable:
        raise _DroppedError(found.unusable)
    if found.label not in corpus.labels:
        raise _DroppedError(f"label {found.label}")
    if not found.path.is_file():
        raise _DroppedError("audio missing")
    path, seconds = _audio(corpus, found, out)
    if seconds < _SHORTEST_S:
        raise _DroppedError(f"shorter than {_SHORTEST_S} s")
    speaker = found.speaker
    if options.speakers_of_2021 and corpus is iemocap.CORPUS:
        speaker = iemocap.speaker_of_2021(found.id, found.style)
    votes: Counter[str] = Counter()
    for label, count in found.votes.items():
        if label in corpus.labels:
            votes[str(corpus.labels[label])] += count  # type: ignore[assignment]
    return manifest.Item(
        id=found.id,
        path=os.path.relpath(path, out),
        corpus=options.name or corpus.name,
        speaker=speaker,
        language=found.language or corpus.language,
        label=corpus.labels[found.label],
        split=found.split,
        seconds=seconds,
        gender=found.gender,
        session=found.session,
        style=found.style,
        votes=dict(votes),
    )


def _audio(corpus: Corpus, found: Found, out: Path) -> tuple[Path, float]:
    """The file to train on, the corpus' own if it can be used as it is; and its length in seconds."""
    try:
        sound = wav.measure(found.path)
        if sound.channels == 1 and sound.sample_bytes == wav.SAMPLE_BYTES and sound.rate_hz in RATES_HZ:
            return found.path, sound.frames / sound.rate_hz
    except (wave.Error, EOFError):
        pass  # not plain WAV: libsndfile and ffmpeg read more formats
    samples, rate_hz = _decoded(found.path)
    if corpus.name == "own" and samples.shape[1] > 1:
        raise _DroppedError(f"{samples.shape[1]} channels: give one speaker's channel alone")
    if not np.isfinite(samples).all():
        raise _DroppedError("samples are not finite numbers")
    if np.abs(samples).max(initial=0.0) > _LOUDEST:
        raise _DroppedError(f"samples beyond {_LOUDEST:g} times full scale: floats must be scaled to 1")
    mono = samples.mean(axis=1)
    if rate_hz not in RATES_HZ:
        import soxr  # noqa: PLC0415 - training images may lack it

        mono, rate_hz = soxr.resample(mono, rate_hz, RATE_HZ), RATE_HZ
    path = out / "audio" / f"{manifest.file_name(found.id)}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(wav.SAMPLE_BYTES)
        file.setframerate(rate_hz)
        file.writeframes(np.clip(mono * 32768, -32768, 32767).astype("<i2").tobytes())
    return path, mono.size / rate_hz


def _decoded(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.float64]], int]:
    """Samples [frames, channels] and their rate; by libsndfile, or by ffmpeg what that cannot read."""
    import soundfile  # noqa: PLC0415 - training images may lack it

    if path.suffix.lower() in (".mp4", ".m4a", ".webm", ".mkv"):
        return _by_ffmpeg(path), RATE_HZ
    try:
        samples, rate_hz = soundfile.read(path, always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: a raw file, whose rate nobody knows
        raise _DroppedError("audio cannot be read") from error
    return samples, int(rate_hz)


def _by_ffmpeg(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    if shutil.which("ffmpeg") is None:
        raise ConfigurationError(f"{path}: needs ffmpeg, which is not installed")
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ac", "1", "-ar", str(RATE_HZ), "-f", "s16le", "-"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode:
        raise _DroppedError("audio cannot be read")
    return np.frombuffer(done.stdout, "<i2")[:, None] / 32768
