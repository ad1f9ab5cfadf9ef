"""Your own labelled calls: a CSV or JSON-lines file of utterances.

Required are `path` (relative to the file), `label` and `speaker`; `id`, `gender`, `session`, `style`, `language`,
`split` and `votes.LABEL` (number of annotators who chose it) are optional. Any other column is an error, so that a typo
is noticed. A CSV file may separate fields by commas, semicolons or tabs.
"""

import csv
import difflib
import io
import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from callmood.schemas.common import Emotion
from callmood.training.corpora.found import Corpus, Found
from callmood.worker.errors import ConfigurationError

_NEEDED: Final = {"path", "label", "speaker"}
_KNOWN: Final = _NEEDED | {"id", "gender", "session", "style", "language", "split"}
_VOTES: Final = "votes."
_LABELS: Final = {
    **{str(emotion): emotion for emotion in Emotion},
    "ang": Emotion.ANGER,
    "angry": Emotion.ANGER,
    "hap": Emotion.HAPPINESS,
    "happy": Emotion.HAPPINESS,
    "neu": Emotion.NEUTRAL,
    "sad": Emotion.SADNESS,
}
_SPLITS: Final = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
}
_TABLES: Final = (".csv", ".tsv")
_TYPO: Final = 0.8  # a ratio above which one word is taken for a misspelling of another


def find(path: Path) -> Iterator[Found]:
    """Every row of the file.

    Raises:
        ConfigurationError: the file cannot be read, or a row lacks something, has something unknown, or lists a file
            that another row gives to another speaker. The message has the row's number.
    """
    speakers: dict[Path, str] = {}
    for number, row in _rows(path):
        try:
            found = _found(path, number, row)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}, row {number}: {error}") from error
        if speakers.setdefault(found.path, found.speaker) != found.speaker:
            raise ConfigurationError(
                f"{path}, row {number}: {found.path.name} is of speaker {speakers[found.path]} in an earlier row"
            )
        yield found


def _found(path: Path, number: int, row: Mapping[str, Any]) -> Found:
    votes = {_label(key.removeprefix(_VOTES)): _count(value) for key, value in row.items() if key.startswith(_VOTES)}
    texts = {key: _text(key, value) for key, value in row.items() if not key.startswith(_VOTES)}
    texts = {key: text for key, text in texts.items() if text}
    if missing := _NEEDED - texts.keys():
        raise ConfigurationError(f"no {', '.join(sorted(missing))}")
    if unknown := texts.keys() - _KNOWN:
        raise ConfigurationError(f"unknown {', '.join(sorted(unknown))}")
    texts["label"] = texts["label"].lower()
    if "split" in texts:
        split = texts["split"].lower()
        if split not in _SPLITS:
            raise ConfigurationError(f"unknown split {texts['split']!r}: use train, valid or test, or leave it empty")
        texts["split"] = _SPLITS[split]
    place = path.parent / texts.pop("path")
    return Found(id=texts.pop("id", f"{number:06d}-{place.stem}"), path=place, votes=votes, **texts)


def _text(key: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas' empty cells
        return ""
    if isinstance(value, list | dict):
        raise ConfigurationError(f"{key} is a {type(value).__name__}, not a text")
    text = str(value).strip()
    return text if key == "path" else unicodedata.normalize("NFC", text)  # one name, however its accents are written


def _label(name: str) -> str:
    """A label that votes are for, in lower case. Other emotions are allowed; a misspelt one of ours is not."""
    label = name.strip().lower()
    if label not in _LABELS and (meant := difflib.get_close_matches(label, _LABELS, n=1, cutoff=_TYPO)):
        raise ConfigurationError(f"unknown {_VOTES}{name}: write {_VOTES}{meant[0]}")
    return label


def _count(value: Any) -> float:
    try:
        count = float(value or 0)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"votes are numbers: {error}") from error
    if not math.isfinite(count) or count < 0:
        raise ConfigurationError(f"votes are numbers of at least 0, not {value}")
    return count


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their numbers, from 1; empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if path.suffix.lower() in _TABLES:
        yield from enumerate(_table(path, text), start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _object(path, number, line)


def _table(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        for number, row in enumerate(rows, start=1):
            if None in row:
                raise ConfigurationError(
                    f"{path}, row {number}: more fields than columns; put quotes around a field with a separator in it"
                )
            yield row
    except csv.Error as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{path}, row {number}: {error}") from error
    if not isinstance(row, dict):
        raise ConfigurationError(f"{path}, row {number}: not a JSON object")
    votes = row.pop("votes", None) or {}
    if not isinstance(votes, dict):
        raise ConfigurationError(f"{path}, row {number}: votes are an object of label and number, not {votes!r}")
    return {**row, **{f"{_VOTES}{label}": count for label, count in votes.items()}}


CORPUS: Final = Corpus("own", "", _LABELS, find)
