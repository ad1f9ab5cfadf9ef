"""The synthetic corpus: espeak-ng voices, acted emotions, telephone lines. A function of its seed."""

import dataclasses
import itertools
import tomllib
import wave
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.training import manifest
from callmood.training.options import CorpusConfig
from callmood.training.synthetic import prosody, speak, telephone
from callmood.worker.errors import ConfigurationError

NAME = "synthetic"
SOURCE = Path(__file__).with_name("synthetic.toml")
_SENTENCES_JOINED = ((1, 2, 3), (0.5, 0.35, 0.15))  # sentences of an utterance, and their shares
_MARGIN_MS = (60, 250)  # line noise before and after speech, as the segmenter leaves it
_WORKERS = 4  # espeak-ng processes at a time; the samples do not depend on it


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One utterance to be made; `key` seeds everything that is drawn for it."""

    item: manifest.Item
    voice: speak.Voice
    sentences: tuple[str, ...]
    key: tuple[int, ...]


def synthesize(folder: Path, config: CorpusConfig) -> Path:
    """Make the corpus: WAV files (8 kHz, 16 bit, after mu-law) and their manifest.

    Returns:
        The manifest's path.

    Raises:
        ConfigurationError: espeak-ng or one of its variants is missing.
    """
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    missing = set(itertools.chain(*source["variants"].values())) - speak.variants()
    if missing:
        raise ConfigurationError(f"espeak-ng {speak.version()} has no variants {', '.join(sorted(missing))}")
    parts = list(plan(source, config))
    for split in manifest.SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)

    def make(part: Part) -> manifest.Item:
        pcm = render(part)
        write_wav(folder / part.item.path, pcm)
        return dataclasses.replace(part.item, seconds=pcm.size / telephone.RATE_HZ)

    with ThreadPoolExecutor(_WORKERS) as pool:
        items = list(pool.map(make, parts))
    path = folder / "manifest.jsonl"
    manifest.write(path, items)
    return path


def plan(source: Mapping[str, Mapping[str, Sequence[str]]], config: CorpusConfig) -> Iterator[Part]:
    """Plan the corpus without speaking it; no sentence and no voice is in two splits."""
    languages = list(source["languages"].items())
    for split_index, split in enumerate(manifest.SPLITS):
        for variant_index, variant in enumerate(source["variants"][split][: config.voices_per_split]):
            rng = np.random.default_rng((config.seed, split_index, variant_index))
            for chosen in rng.permutation(len(languages))[: config.languages_per_voice]:
                language, text = languages[chosen]
                own = [s for i, s in enumerate(source["sentences"][text]) if _split_of(i) == split]
                for number in range(config.utterances(split)):
                    count = min(int(rng.choice(_SENTENCES_JOINED[0], p=_SENTENCES_JOINED[1])), len(own))
                    sentences = tuple(own[i] for i in rng.permutation(len(own))[:count])
                    for emotion_index, emotion in enumerate(EMOTIONS):
                        item = _item(split, speak.Voice(language, variant), number, emotion)
                        key = (config.seed, split_index, variant_index, int(chosen), number, emotion_index)
                        yield Part(item, speak.Voice(language, variant), sentences, key)


def render(part: Part) -> NDArray[np.int16]:
    """Speak one utterance and send it down a line; int16 at 8 kHz, shape [samples]."""
    rng = np.random.default_rng(part.key)
    samples = prosody.act(part.sentences, part.voice, prosody.draw(part.item.label, rng), rng)
    line = telephone.draw(rng)
    margins = [round(rng.uniform(*_MARGIN_MS) * telephone.RATE_HZ / 1000) for _ in range(2)]
    narrowed = telephone.narrow(samples, speak.RATE_HZ, line)
    return telephone.transmit(np.pad(narrowed, margins), line, rng)


def write_wav(path: Path, pcm: NDArray[np.int16]) -> None:
    """Write mono int16 samples at 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(telephone.RATE_HZ)
        file.writeframes(pcm.astype("<i2").tobytes())


def _split_of(sentence_index: int) -> str:
    return {3: "valid", 4: "test"}.get(sentence_index % 5, "train")


def _item(split: str, voice: speak.Voice, number: int, emotion: Emotion) -> manifest.Item:
    name = f"{voice.variant}-{voice.language}-{number:02d}-{emotion}"
    return manifest.Item(
        id=name,
        path=f"{split}/{name}.wav",
        corpus=NAME,
        speaker=f"espeak-ng:{voice.variant}",
        language=voice.language,
        label=emotion,
        split=split,
        seconds=0.0,
    )
