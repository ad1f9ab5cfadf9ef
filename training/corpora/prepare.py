"""Prepare a corpus, or your own list: map labels, check and convert audio, write a manifest and a report of drops."""

import dataclasses
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from callmood.training import manifest, protocols, wav
from callmood.training.checkpoint import refuse_overwriting, write_text
from callmood.training.corpora import iemocap, own, sound
from callmood.training.corpora.found import WHOLE, Corpus, Found, refuse_same_ids
from callmood.training.corpora.labels import Labels
from callmood.worker.errors import ConfigurationError

MANIFEST: Final = "manifest.jsonl"
REPORT: Final = "prepared.json"
_SHORTEST_S: Final = 0.1
_EXAMPLES: Final = 3  # of what was dropped, per reason


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How to prepare.

    Attributes:
        partial: accept an IEMOCAP that is not whole.
        speakers_of_2021: IEMOCAP's speakers as the authors' code had them.
        split: `speakers`: assign speakers without a split to train, valid and test.
        seed: of that draw.
        name: of your own list, among several.
        meanings: of labels that are none of the four emotions, such as `frustrated=anger`, or `other=` to drop them.
    """

    partial: bool = False
    speakers_of_2021: bool = False
    split: str = ""
    seed: int = 0
    name: str = ""
    meanings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.name and self.name != manifest.file_name(self.name):
            raise ConfigurationError(f"--name {self.name!r}: use ASCII letters, digits, _ . and -, at most 100")


class _Out:
    """The folder to write to, and the files that must not be overwritten: those of the utterances."""

    def __init__(self, folder: Path, listed: Sequence[Found]) -> None:
        self.folder = folder
        self._audio = folder / "audio"
        self._sources: set[Any] = set()
        if self._audio.exists():
            self._sources = {sound.identity(found.path) for found in listed}

    def audio(self, utterance_id: str) -> Path:
        """The file for the converted audio of an utterance.

        Raises:
            ConfigurationError: it is the recording of an utterance.
        """
        path = self._audio / f"{manifest.file_name(utterance_id)}.wav"
        if self._sources and sound.identity(path) in self._sources:
            raise ConfigurationError(
                f"{path} is a recording, and would be overwritten by a part of one: choose another output folder"
            )
        return path


def prepare(corpus: Corpus, root: Path, out: Path, options: Options) -> Path:
    """Write the manifest and a report of what was dropped and why; convert audio other than mono 16-bit WAV.

    Returns:
        The manifest's path.

    Raises:
        ConfigurationError: the corpus is missing or not whole, a label of an own list has no meaning, two of its
            utterances have the same id, a speaker has two splits, nothing is left, or a source would be overwritten.
    """
    for name in (MANIFEST, REPORT):
        refuse_overwriting(out / name, root)
    labels = Labels(corpus, options.meanings)
    listed = list(corpus.find(root))
    if corpus is own.CORPUS:
        refuse_same_ids(listed)
    labels.refuse_unknown(listed, root)
    out.mkdir(parents=True, exist_ok=True)
    items, dropped = _usable(corpus, labels, listed, _Out(out, listed), options)
    if not items:
        raise ConfigurationError(f"{root}: no utterance can be used; {_counted(dropped) or 'it lists none'}")
    if corpus is iemocap.CORPUS and not options.partial:
        iemocap.refuse_other_counts([item.session for item in items])
    if options.split == "speakers" and not all(item.split for item in items):
        try:
            items = protocols.by_speaker(items, options.seed)
        except ConfigurationError as error:
            raise ConfigurationError(f"{root}: {error}; {_counted(dropped) or 'nothing was dropped'}") from error
    path = out / MANIFEST
    manifest.write(path, items)
    write_text(out / REPORT, json.dumps({**report(items, dropped), "map": labels.given}, indent=2) + "\n")
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


def _usable(
    corpus: Corpus, labels: Labels, listed: Sequence[Found], out: _Out, options: Options
) -> tuple[list[manifest.Item], dict[str, list[str]]]:
    """The first usable utterance of each id; and the ids of the others, by the reason why they are dropped."""
    items: dict[str, manifest.Item] = {}
    dropped: dict[str, list[str]] = defaultdict(list)
    for found in listed:
        if found.id in items and not found.unusable:
            dropped["id of an earlier utterance"].append(found.id)
            continue
        try:
            items[found.id] = _item(corpus, labels, found, out, options)
        except sound.DroppedError as reason:
            dropped[str(reason)].append(found.id)
    return list(items.values()), dropped


def _item(corpus: Corpus, labels: Labels, found: Found, out: _Out, options: Options) -> manifest.Item:
    if found.unusable:
        raise sound.DroppedError(found.unusable)
    label = labels.of(found.label)
    if not sound.is_file(found.path):
        raise sound.DroppedError("audio missing")
    path, seconds = _audio(corpus, found, out)
    if seconds < _SHORTEST_S:
        raise sound.DroppedError(f"shorter than {_SHORTEST_S} s")
    speaker = found.speaker
    if options.speakers_of_2021 and corpus is iemocap.CORPUS:
        speaker = iemocap.speaker_of_2021(found.id, found.style)
    return manifest.Item(
        id=found.id,
        path=os.path.relpath(path, out.folder),
        corpus=options.name or corpus.name,
        speaker=speaker,
        language=found.language or corpus.language,
        label=label,
        split=found.split,
        seconds=seconds,
        gender=found.gender,
        session=found.session,
        style=found.style,
        start=found.cut.start_s,
        votes=labels.votes(found.votes),
        dimensions=found.dimensions,
    )


def _audio(corpus: Corpus, found: Found, out: _Out) -> tuple[Path, float]:
    """The file to train on, the corpus' own if it can be used as it is; and its length in seconds."""
    if found.cut == WHOLE and (seconds := sound.seconds_in_place(found.path)) is not None:
        return found.path, seconds
    samples, rate_hz = sound.pcm(found.path, found.cut, mix=corpus is not own.CORPUS)
    path = out.audio(found.id)
    wav.write(path, rate_hz, samples.tobytes())
    return path, samples.size / rate_hz
