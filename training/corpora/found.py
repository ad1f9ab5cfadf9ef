"""The utterances that a corpus reader yields: with the corpus' own labels, and before the audio is read."""

import contextlib
import csv
import dataclasses
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from callmood.schemas.common import Emotion
from callmood.training import texts
from callmood.training.manifest import DIMENSIONS
from callmood.worker.errors import ConfigurationError


class Cut(NamedTuple):
    """A part of a recording: from `start_s` to `end_s`, of the channel of this number from 0, or of the only one."""

    start_s: float = 0.0
    end_s: float = math.inf
    channel: int | None = None


WHOLE: Final = Cut()
_SEPARATORS: Final = ",;\t"
_EXCEL: Final = re.compile(r"sep=(.)[ \t]*\r?\n", re.IGNORECASE)  # a first line that names the separator


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
        dimensions: valence, arousal and dominance, from 0 to 1; without those that are not annotated.
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
    dimensions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cut: Cut = WHOLE
    unusable: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """How to read a corpus; an utterance whose label is not in `labels` is dropped and counted."""

    name: str
    language: str
    labels: Mapping[str, Emotion]
    find: Callable[[Path], Iterator[Found]]


STRAY: Final = "name is not of this corpus"


def files(root: Path, *patterns: str, name: re.Pattern[str] | None = None) -> list[Path]:
    """Files below `root` by the first pattern that finds any, sorted, without hidden ones (`._*`, in some copies).

    `.wav` at the end of a pattern stands for `.WAV` too.

    Args:
        root: the corpus' folder.
        patterns: of the layouts in which it is distributed.
        name: of a file of the corpus, without its ending. A pattern counts only if it finds one; what it finds else is
            returned beside the corpus' own files.

    Raises:
        ConfigurationError: nothing matches, so this is not the corpus' folder.
    """
    strays: list[Path] = []
    for pattern in patterns:
        found = sorted(
            path
            for path in root.glob(pattern.replace(".wav", ".[wW][aA][vV]"))
            if path.is_file() and not path.name.startswith(".")
        )
        if found and (name is None or any(name.match(path.stem) for path in found)):
            return [*strays, *found]
        strays += found
    if strays:
        return strays
    raise ConfigurationError(f"{root}: found none of {', '.join(patterns)}; give the folder as distributed")


def table(path: Path, *, strict: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their numbers, from 1; fields are separated by commas, semicolons or tabs.

    Rows of empty fields are skipped; a field without a column counts only if it is not empty.

    Raises:
        ConfigurationError: the file cannot be read; or `strict`, and two columns have one name, or a row has more
            fields than columns.
    """
    content = texts.read(path).lstrip("\r\n")
    separator = max(_SEPARATORS, key=content.partition("\n")[0].count)
    if excel := _EXCEL.match(content):
        separator, content = excel[1], content[excel.end() :]
    texts.bound_csv_fields()
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        rows.fieldnames = _names(path, rows.fieldnames or (), strict=strict)
        for number, row in enumerate(rows, start=1):
            beyond: Any = row.pop(None, ())
            if strict and any(beyond):
                raise ConfigurationError(
                    f"{path}, row {number}: more fields than columns; put quotes around a field with a separator in it"
                )
            if any(row.values()):
                yield number, row
    except csv.Error as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _names(path: Path, header: Sequence[str], *, strict: bool) -> list[str]:
    """Names of the columns; where several have none, they get their numbers."""
    names = [name.strip() for name in header]
    if names.count("") > 1:
        names = [name or f"column {number} without a name" for number, name in enumerate(names, start=1)]
    if strict and (twice := {name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"{path}: two columns are called {min(twice)!r}")
    return names


def votes_of(value: Any) -> float:
    """A number of votes; nothing is 0.

    Raises:
        ConfigurationError: it is no finite number of at least 0.
    """
    try:
        count = float(value or 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"votes are numbers: {error}") from error
    if not math.isfinite(count) or count < 0:
        raise ConfigurationError(f"votes are numbers of at least 0, not {value}")
    return count


def dimensions_of(values: Iterable[str], highest: float) -> dict[str, float]:
    """Valence, arousal and dominance, in this order, on a scale from 1 to `highest`, as values from 0 to 1.

    What is no number is left out; what is beyond the scale gets its end.
    """
    found = {}
    for name, value in zip(DIMENSIONS, values, strict=False):
        with contextlib.suppress(ValueError):
            level = (float(value) - 1) / (highest - 1)
            if math.isfinite(level):
                found[name] = round(min(max(level, 0.0), 1.0), 4)
    return found


def column(row: Mapping[str, str], path: Path, *names: str) -> str:
    """A field of a CSV row, by the first of its names that the file has; empty where the row is too short.

    Raises:
        ConfigurationError: the file has none of these columns.
    """
    for name in names:
        if name in row:
            return (row[name] or "").strip()
    raise ConfigurationError(f"{path}: no column {' or '.join(names)}")


def refuse_same_ids(found: Iterable[Found]) -> None:
    """Check that no two usable utterances have the same id.

    Raises:
        ConfigurationError: two have.
    """
    seen: set[str] = set()
    for one in found:
        if one.unusable:
            continue
        if one.id in seen:
            raise ConfigurationError(f"two utterances have the id {one.id}: {one.path} is the second")
        seen.add(one.id)
