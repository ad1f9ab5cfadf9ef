"""What a corpus reader gives: utterances as the corpus names them, before labels are mapped and audio is read."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from callmood.schemas.common import Emotion
from callmood.worker.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One utterance as the corpus has it.

    Attributes:
        id: unique within the corpus.
        path: the file.
        label: in the corpus' own words.
        speaker: the person.
        gender: `F`, `M` or nothing.
        session: speakers that belong together: a recording session, or a published fold.
        style: `scripted`, `improvised`, or nothing.
        language: where an utterance has its own; else the corpus'.
        split: where the corpus states one: `train`, `valid`, `test`.
        votes: annotators' votes by label, in the corpus' own words.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """How a corpus is read; a label that `labels` does not map is dropped and reported."""

    name: str
    language: str
    labels: Mapping[str, Emotion]
    find: Callable[[Path], Iterator[Found]]


def files(root: Path, *patterns: str) -> list[Path]:
    """Files below `root` by the first pattern that finds any, sorted; hidden ones (`._*`, in some copies) are none.

    Raises:
        ConfigurationError: nothing matches, so this is not the corpus' folder.
    """
    for pattern in patterns:
        found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))
        if found:
            return found
    raise ConfigurationError(f"{root}: found none of {', '.join(patterns)}; is this the folder as distributed?")


def column(row: Mapping[str, str], path: Path, *names: str) -> str:
    """A field of a CSV row, by the first of its names that is there.

    Raises:
        ConfigurationError: there is none of them.
    """
    for name in names:
        if name in row:
            return row[name].strip()
    raise ConfigurationError(f"{path}: no column {' or '.join(names)}")


def same_ids(found: Iterable[Found]) -> Iterator[Found]:
    """Pass utterances on.

    Raises:
        ConfigurationError: two have one id.
    """
    seen: set[str] = set()
    for one in found:
        if one.id in seen:
            raise ConfigurationError(f"utterance {one.id} is there twice")
        seen.add(one.id)
        yield one
