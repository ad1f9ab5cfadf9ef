"""The utterances that a corpus reader yields: with the corpus' own labels, and before the audio is read."""

import codecs
import contextlib
import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from callmood.schemas.common import Emotion
from callmood.training.manifest import DIMENSIONS
from callmood.worker.errors import ConfigurationError


class Cut(NamedTuple):
    """A part of a recording: from `start_s` to `end_s`, of the channel of this number from 0, or of the only one."""

    start_s: float = 0.0
    end_s: float = math.inf
    channel: int | None = None


WHOLE: Final = Cut()
_SEPARATORS: Final = ",;\t"


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


def files(root: Path, *patterns: str) -> list[Path]:
    """Files below `root` by the first pattern that finds any, sorted, without hidden ones (`._*`, in some copies).

    `.wav` at the end of a pattern stands for `.WAV` too.

    Raises:
        ConfigurationError: nothing matches, so this is not the corpus' folder.
    """
    for pattern in patterns:
        found = sorted(
            path
            for path in root.glob(pattern.replace(".wav", ".[wW][aA][vV]"))
            if path.is_file() and not path.name.startswith(".")
        )
        if found:
            return found
    raise ConfigurationError(f"{root}: found none of {', '.join(patterns)}; give the folder as distributed")


def text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if its first bytes say so, as those of some spreadsheets do.

    Raises:
        ConfigurationError: the file cannot be read; of bytes that are no UTF-8, the message has the line.
    """
    try:
        content = path.read_bytes()
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def table(path: Path, *, strict: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their numbers, from 1; fields are separated by commas, semicolons or tabs.

    Raises:
        ConfigurationError: the file cannot be read; or `strict`, and two columns have one name, or a row has more
            fields than columns.
    """
    content = text(path)
    separator = max(_SEPARATORS, key=content.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        rows.fieldnames = names = [name.strip() for name in rows.fieldnames or ()]
        if strict and (twice := {name for name in names if names.count(name) > 1}):
            raise ConfigurationError(f"{path}: two columns are called {min(twice)!r}")
        for number, row in enumerate(rows, start=1):
            if strict and None in row:
                raise ConfigurationError(
                    f"{path}, row {number}: more fields than columns; put quotes around a field with a separator in it"
                )
            yield number, row
    except csv.Error as error:
        raise ConfigurationError(f"{path}: {error}") from error


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
