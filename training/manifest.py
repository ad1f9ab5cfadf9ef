"""The manifest: labelled utterances, one JSON object a line, paths relative to the file."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.training import checkpoint, texts
from callmood.worker.errors import ConfigurationError

SPLITS = ("train", "valid", "test")
DIMENSIONS: Final[Sequence[str]] = ("valence", "arousal", "dominance")
_FILE_NAME: Final = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One labelled utterance.

    Attributes:
        id: unique within its corpus.
        path: relative to the manifest.
        corpus: name of the corpus.
        speaker: the person (or the synthetic voice), in whatever language they speak.
        language: a tag such as `en`, or empty.
        label: the emotion.
        split: `train`, `valid` or `test`; empty: a protocol decides.
        seconds: length.
        gender: `F`, `M` or empty.
        session: speakers that belong together.
        style: `scripted`, `improvised` or empty.
        start: of the utterance in the recording that it was cut from, s.
        votes: number of annotators by emotion, without votes for other emotions.
        dimensions: valence, arousal and dominance, from 0 to 1, if annotated.
    """

    id: str
    path: str
    corpus: str
    speaker: str
    language: str
    label: Emotion
    split: str
    seconds: float
    gender: str = ""
    session: str = ""
    style: str = ""
    start: float = 0.0
    votes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    dimensions: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def person(self) -> tuple[str, str]:
        """The speaker, unique among all corpora."""
        return self.corpus, self.speaker

    @property
    def shares(self) -> tuple[float, ...]:
        """The votes' shares in the order of `EMOTIONS`; empty without votes."""
        total = sum(self.votes.values())
        return tuple(self.votes.get(emotion, 0.0) / total for emotion in EMOTIONS) if total else ()

    @property
    def levels(self) -> tuple[float, ...]:
        """The dimensions in the order of `DIMENSIONS`, NaN for one that is missing; empty without any."""
        return tuple(self.dimensions.get(name, math.nan) for name in DIMENSIONS) if self.dimensions else ()


def file_name(text: str) -> str:
    """A name of any characters as the name of a file: itself where that is plain, else its hash."""
    if _FILE_NAME.fullmatch(text):
        return text
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def refuse_shared_speakers(items: Iterable[Item], hint: str = "") -> None:
    """Check that no speaker is in two splits.

    Raises:
        ConfigurationError: one is; the message has the speaker, the splits and the hint.
    """
    splits: dict[tuple[str, str], str] = {}
    for item in items:
        known = splits.setdefault(item.person, item.split)
        if known != item.split:
            raise ConfigurationError(f"speaker {item.speaker} of {item.corpus} is in {known} and in {item.split}{hint}")


def refuse_empty_splits(items: Iterable[Item], where: str) -> None:
    """Check that each split has items.

    Raises:
        ConfigurationError: a split is empty.
    """
    if missing := set(SPLITS) - {item.split for item in items}:
        raise ConfigurationError(f"{where}: no items for {', '.join(sorted(missing))}")


def write(path: Path, items: Iterable[Item]) -> None:
    """Write a manifest."""
    checkpoint.write_text(path, "".join(json.dumps(dataclasses.asdict(item)) + "\n" for item in items))


def read(path: Path) -> list[Item]:
    """Read a manifest with splits.

    Raises:
        ConfigurationError: the file is missing, a line is not an item, a split is unknown or empty, or two splits share
            a speaker.
    """
    return _with_splits(read_any(path), str(path))


def joined(paths: Sequence[Path]) -> list[Item]:
    """Read manifests with splits as one, whose paths are absolute.

    Raises:
        ConfigurationError: see `read`; two items have the same id, or a speaker is in two splits of different files.
    """
    items = [item for path in paths for item in absolute(read_any(path), path)]
    where = " and ".join(map(str, paths))
    refuse_same_ids(items, where)
    return _with_splits(items, where)


def absolute(items: Iterable[Item], path: Path) -> list[Item]:
    """Items with absolute paths; `path` is their manifest."""
    folder = path.resolve().parent
    return [dataclasses.replace(item, path=str(folder / item.path)) for item in items]


def _with_splits(items: list[Item], where: str) -> list[Item]:
    for item in items:
        if item.split not in SPLITS:
            raise ConfigurationError(f"{where}: {item.id} has no split; use `row` with a protocol that makes splits")
    refuse_empty_splits(items, where)
    refuse_shared_speakers(items, "; `row` with `--protocol given_shared` trains on such splits")
    return items


def read_any(path: Path) -> list[Item]:
    """Read a manifest, with or without splits.

    Raises:
        ConfigurationError: the file is missing, a line is not an item, or two items have the same id.
    """
    try:
        lines = texts.read(path).split("\n")
    except ConfigurationError as error:
        raise ConfigurationError(f"no manifest at {error}") from error
    items = [_item(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    refuse_same_ids(items, str(path))
    return items


def refuse_same_ids(items: Iterable[Item], where: str, hint: str = "") -> None:
    """Check that no two items of a corpus have the same id.

    Raises:
        ConfigurationError: two have.
    """
    seen: set[tuple[str, str]] = set()
    for number, item in enumerate(items, start=1):
        if (item.corpus, item.id) in seen:
            raise ConfigurationError(f"{where}, line {number}: two items of {item.corpus} have the id {item.id}{hint}")
        seen.add((item.corpus, item.id))


def _typed(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of an item, each of its type.

    Raises:
        ValueError: one has another; the message has its name.
    """
    for field in (one for one in dataclasses.fields(Item) if one.name in fields):
        value = fields[field.name]
        if field.type is str and not isinstance(value, str):
            raise ValueError(f"{field.name} is {value!r}: use a text")
        if field.type is float and not (type(value) in (int, float) and 0 <= float(value) < math.inf):
            raise ValueError(f"{field.name} is {value!r}: use seconds of at least 0")
    return fields


def _item(path: Path, number: int, line: str) -> Item:
    try:
        fields = _typed(json.loads(line))
        item = Item(**{**fields, "label": Emotion(fields["label"])})
        unknown = item.votes.keys() - set(EMOTIONS)
        are_counts = all(math.isfinite(count) and count >= 0 for count in item.votes.values())
        are_levels = item.dimensions.keys() <= set(DIMENSIONS) and all(0 <= n <= 1 for n in item.dimensions.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        hint = "" if '"corpus"' in line else "; `callmood-train prepare` makes a manifest of a list"
        raise ConfigurationError(f"{path}, line {number}: {error}{hint}") from error
    if unknown:
        raise ConfigurationError(f"{path}, line {number}: unknown labels in votes: {', '.join(sorted(unknown))}")
    if not are_counts:
        raise ConfigurationError(f"{path}, line {number}: votes are numbers of at least 0, not {dict(item.votes)}")
    if not are_levels:
        raise ConfigurationError(
            f"{path}, line {number}: dimensions are {dict(item.dimensions)}: use {', '.join(DIMENSIONS)}, from 0 to 1"
        )
    if item.split not in ("", *SPLITS):
        raise ConfigurationError(f"{path}, line {number}: unknown split {item.split!r}: use {', '.join(SPLITS)}")
    return item
