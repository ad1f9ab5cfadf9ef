"""Your own labelled calls: a CSV or JSON-lines file of utterances.

Needed is `path` (relative to the file), `label` and `speaker`; `id`, `gender`, `session`, `style`, `language`, `split`
and `votes.LABEL` (annotators who said so) may be there. Other columns are an error, so that no typo goes unseen.
"""

import csv
import json
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


def find(path: Path) -> Iterator[Found]:
    """Every row of the file.

    Raises:
        ConfigurationError: it cannot be read, or a row lacks something or has something unknown; its number is told.
    """
    for number, row in enumerate(_rows(path), start=1):
        votes = {key.removeprefix(_VOTES): value for key, value in row.items() if key.startswith(_VOTES)}
        rest = {key: value for key, value in row.items() if not key.startswith(_VOTES) and value not in (None, "")}
        if missing := _NEEDED - rest.keys():
            raise ConfigurationError(f"{path}, row {number}: no {', '.join(sorted(missing))}")
        if unknown := rest.keys() - _KNOWN:
            raise ConfigurationError(f"{path}, row {number}: unknown {', '.join(sorted(map(str, unknown)))}")
        try:
            counted = {label: float(value or 0) for label, value in votes.items()}
        except ValueError as error:
            raise ConfigurationError(f"{path}, row {number}: votes are numbers: {error}") from error
        texts = {key: str(value).strip() for key, value in rest.items()}
        texts["label"] = texts["label"].lower()
        place = path.parent / texts.pop("path")
        yield Found(id=texts.pop("id", f"{number:06d}-{place.stem}"), path=place, votes=counted, **texts)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if path.suffix == ".csv":
        yield from csv.DictReader(text.splitlines())
        return
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"{path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ConfigurationError(f"{path}, line {number}: not a JSON object")
        given = row.pop("votes", {})
        yield {**row, **{f"{_VOTES}{label}": count for label, count in given.items()}}


CORPUS: Final = Corpus("own", "", _LABELS, find)
