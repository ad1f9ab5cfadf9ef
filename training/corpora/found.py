"""What a corpus reader yields: utterances as the corpus names them, before labels are mapped and audio is read."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from callmood.schemas.common import Emotion
from callmood.worker.errors import ConfigurationError


class Cut(NamedTuple):
    """A part of a recording: from `start_s` to `end_s`, of the channel of this number from 0, or of the only one."""

    start_s: float = 0.0
    end_s: float = math.inf
    channel: int | None = None


WHOLE: Final = Cut()


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One utterance as the corpus has it.

    Attributes:
        id: unique within the corpus.
        path: the file.
        label: as the corpus names it.
        speaker: the person.
        gender: `F`, `M` or empty.
        session: speakers that belong together: a recording session, or a published fold.
        style: `scripted`, `improvised` or empty.
        language: of this utterance; empty: the corpus' language.
        split: `train`, `valid` or `test` as the corpus states it, or empty.
        votes: annotators' votes by label, as the corpus names it.
        cut: part of the file that is the utterance.
        unusable: why the file is no utterance of the corpus; it is dropped and counted by this reason.
    """

    id: str
    path: Path
    label: str
    speaker: str
    gender: str = ""
    session: str = ""
    style: str = ""
    language: str = ""
    split: str = ""
    votes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cut: Cut = WHOLE
    unusable: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """How to read a corpus; an utterance whose label is not in `labels` is dropped and counted."""

    name: str
    language: str
    labels: Mapping[str, Emotion]
    find: Callable[[Path], Iterator[Found]]


def files(root: Path, *patterns: str) -> list[Path]:
    """Files below `root` by the first pattern that finds any, sorted, without hidden ones (`._*`, in some copies).

    Raises:
        ConfigurationError: nothing matches, so this is not the corpus' folder.
    """
    for pattern in patterns:
        found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))
        if found:
            return found
    raise ConfigurationError(f"{root}: found none of {', '.join(patterns)}; give the folder as distributed")


def column(row: Mapping[str, str], path: Path, *names: str) -> str:
    """A field of a CSV row, by the first of its names that the file has; empty where the row is too short.

    Raises:
        ConfigurationError: the file has none of these columns.
    """
    for name in names:
        if name in row:
            return (row[name] or "").strip()
    raise ConfigurationError(f"{path}: no column {' or '.join(names)}")


def refuse_same_ids(found: Iterable[Found]) -> Iterator[Found]:
    """Pass utterances on.

    Raises:
        ConfigurationError: two have the same id.
    """
    seen: set[str] = set()
    for one in found:
        if one.id in seen and not one.unusable:
            raise ConfigurationError(f"two utterances have the id {one.id}: {one.path} is the second")
        if not one.unusable:
            seen.add(one.id)
        yield one
