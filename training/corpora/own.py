"""Your own labelled calls: a CSV or JSON-lines file of utterances.

Required are `path` (relative to the file), `label` and `speaker`; `id`, `gender`, `session`, `style`, `language`,
`split`, `votes.LABEL` (number of annotators who chose it) and `valence`, `arousal` and `dominance` (from 0 to 1) are
optional. An utterance can be a part of a longer
recording: `start` and `end` in seconds, and `channel`, from 0. Any other column is an error, so that a typo is noticed.
A CSV file may separate fields by commas, semicolons or tabs.
"""

import difflib
import json
import math
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from typing import Any, Final

from callmood.schemas.common import Emotion
from callmood.training import texts
from callmood.training.corpora import sound
from callmood.training.corpora.found import Corpus, Cut, Found, table, votes_of
from callmood.training.manifest import DIMENSIONS
from callmood.worker.errors import ConfigurationError

_NEEDED: Final = {"path", "label", "speaker"}
_TIMES: Final = ("start", "end")
_KNOWN: Final = _NEEDED | {"id", "gender", "session", "style", "language", "split", "channel", *_TIMES, *DIMENSIONS}
_VOTES: Final = "votes."
_LONGEST_S: Final = 10_000_000
"""Four months: a later time is a mistake, and too large to count samples with."""
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
_WINDOWS: Final = "path of Windows: use / between folders"
_TABLES: Final = (".csv", ".tsv", ".txt")
_JSON: Final = ("{", "[")  # how no name of a column begins
_SHEETS: Final = (".xlsx", ".xls", ".ods", ".numbers", ".parquet")
_CHANNEL_DIGITS: Final = 4
_TYPO: Final = 0.8  # a ratio above which one word is taken for a misspelling of another


def find(path: Path) -> Iterator[Found]:
    """Every row of the file.

    Raises:
        ConfigurationError: the file cannot be read, or a row lacks something, has something unknown, or lists a file
            that another row gives to another speaker. The message has the row's number.
    """
    return read(path, _NEEDED)


def read(path: Path, needed: AbstractSet[str]) -> Iterator[Found]:
    """As `find`, of a list whose rows have at least the columns `needed`; other texts are empty."""
    listed = []
    for number, row in rows(path):
        try:
            listed.append((number, _found(path, number, row, needed)))
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}, row {number}: {error}") from error
    _refuse_shared_audio(path, listed)
    yield from (found for _, found in listed)


def _refuse_shared_audio(path: Path, listed: Sequence[tuple[int, Found]]) -> None:
    """Refuse audio that two rows give to two speakers; at their edges, utterances may overlap."""
    by_file: dict[Any, list[tuple[int, Found]]] = defaultdict(list)
    for row in listed:
        by_file[sound.identity(row[1].path)].append(row)
    for rows_of_file in by_file.values():
        if len({found.speaker for _, found in rows_of_file}) > 1:
            for first, second in _overlapping(rows_of_file):
                if _is_shared(first[1], second[1]):
                    (earlier, one), (later, other) = sorted((first, second), key=lambda row: row[0])
                    raise ConfigurationError(
                        f"{path}, row {later}: {other.path.name} is of speaker {one.speaker} in row {earlier}"
                    )


def _overlapping(listed: Sequence[tuple[int, Found]]) -> Iterator[tuple[tuple[int, Found], tuple[int, Found]]]:
    """Pairs of rows of one file that overlap in time, in steps that do not grow with its other rows."""
    begun: list[tuple[int, Found]] = []
    for row in sorted(listed, key=lambda row: row[1].cut.start_s):
        begun = [other for other in begun if other[1].cut.end_s > row[1].cut.start_s]
        yield from ((other, row) for other in begun)
        begun.append(row)


def _is_shared(one: Found, other: Found) -> bool:
    """Whether two speakers have more than half of the shorter utterance in common."""
    if one.speaker == other.speaker or None is not one.cut.channel != other.cut.channel is not None:
        return False
    common_s = min(one.cut.end_s, other.cut.end_s) - max(one.cut.start_s, other.cut.start_s)
    shorter_s = min(one.cut.end_s - one.cut.start_s, other.cut.end_s - other.cut.start_s)
    return common_s == math.inf or common_s > shorter_s / 2


def _found(path: Path, number: int, row: Mapping[str, Any], needed: AbstractSet[str]) -> Found:
    votes = _votes(row)
    texts = {key: _text(key, value) for key, value in row.items() if not key.startswith(_VOTES)}
    texts = {key: text for key, text in texts.items() if text}
    if missing := needed - texts.keys():
        others = "" if missing <= row.keys() else f"; the row has {', '.join(row) or 'nothing'}"
        raise ConfigurationError(f"no {', '.join(sorted(missing))}{others}")
    if unknown := texts.keys() - _KNOWN:
        raise ConfigurationError(f"unknown {', '.join(sorted(name or 'column without a name' for name in unknown))}")
    label, speaker = spelt(texts.pop("label", "")), texts.pop("speaker", "")
    cut = _cut(texts)
    dimensions = {name: _level(name, texts.pop(name)) for name in DIMENSIONS if name in texts}
    if "split" in texts:
        texts["split"] = split_of(texts["split"])
    name = texts.pop("path")
    place = _place(path.parent, name)
    unusable = _WINDOWS if "\\" in name and not sound.is_file(place) else ""
    utterance_id = texts.pop("id", f"{number:06d}-{PurePath(_nfc(name)).stem}")
    return Found(
        utterance_id, place, label, speaker, votes=votes, dimensions=dimensions, cut=cut, unusable=unusable, **texts
    )


def _votes(row: Mapping[str, Any]) -> dict[str, float]:
    votes: dict[str, float] = {}
    for name, value in row.items():
        if name.startswith(_VOTES):
            label = label_of(name.removeprefix(_VOTES))
            if label in votes:
                raise ConfigurationError(f"two columns have votes for {label}")
            votes[label] = votes_of(value)
    return votes


def _place(folder: Path, name: str) -> Path:
    """The file of this name, however list, folder and file name write an accent: copies from macOS often differ."""
    listed, places = folder / name, [folder]
    if sound.is_file(listed):
        return listed
    for part in Path(name).parts:
        spellings = dict.fromkeys((part, _nfc(part), unicodedata.normalize("NFD", part)))
        places = [path for place in places for one in spellings if os.path.lexists(path := place / one)]
    return next(filter(sound.is_file, places), listed)


def _cut(texts: dict[str, str]) -> Cut:
    """Take the times and the channel out of a row."""
    start_s = _seconds("start", texts.pop("start", "0"))
    end_s = _seconds("end", texts.pop("end")) if "end" in texts else math.inf
    if start_s >= end_s:
        raise ConfigurationError(f"end is {end_s:g}, which is not after start, {start_s:g}")
    channel = texts.pop("channel", "").removesuffix(".0")  # pandas' integers beside empty cells
    if channel and not (channel.isascii() and channel.isdigit() and len(channel) <= _CHANNEL_DIGITS):
        raise ConfigurationError(f"channel is {channel!r}: use a whole number; the first one is 0")
    return Cut(start_s, end_s, int(channel) if channel else None)


def _level(name: str, text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 <= level <= 1:
        raise ConfigurationError(f"{name} is {text!r}: use a number from 0 to 1")
    return level


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise ConfigurationError(f"{key} is {text!r}: use seconds") from error
    if not 0 <= seconds <= _LONGEST_S:
        raise ConfigurationError(f"{key} is {text!r}: use seconds from 0 to {_LONGEST_S:,}")
    return seconds


def _text(key: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas' empty cells
        return ""
    if isinstance(value, list | dict):
        raise ConfigurationError(f"{key} is a {type(value).__name__}, not a text")
    text = str(value).strip()
    return text if key == "path" else _nfc(text)  # one name, however its accents are written


def spelt(label: str) -> str:
    """A label without what does not distinguish two: case, spaces around it, the way an accent is written."""
    return _nfc(label).strip().lower()


def split_of(name: str) -> str:
    """The split of one of its usual names; empty of an empty one.

    Raises:
        ConfigurationError: it is another name.
    """
    known = {"": "", **_SPLITS}
    if (split := name.strip().lower()) not in known:
        raise ConfigurationError(f"unknown split {name!r}: use train, valid or test, or leave it empty")
    return known[split]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def label_of(name: str) -> str:
    """A label that votes are for, in lower case. Other emotions are allowed.

    Raises:
        ConfigurationError: it is a misspelt one of ours.
    """
    label = spelt(name)
    if label not in _LABELS and (meant := difflib.get_close_matches(label, _LABELS, n=1, cutoff=_TYPO)):
        raise ConfigurationError(f"unknown {_VOTES}{name}: write {_VOTES}{meant[0]}")
    return label


def rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their numbers, from 1; empty lines are skipped.

    Raises:
        ConfigurationError: the file is no list; of a row, the message has its number.
    """
    if path.suffix.lower() in _SHEETS:
        raise ConfigurationError(f"{path}: save the list as CSV or as JSON lines")
    content = texts.read(path)
    if path.suffix.lower() in _TABLES and not content.lstrip().startswith(_JSON):
        yield from table(path, strict=True)
        return
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield number, _object(path, number, line)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names all differ: the later of two values would replace the earlier one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        hint = "; JSON lines have one object a line" if line.startswith("[") else ""
        raise ConfigurationError(f"{path}, row {number}: {error}{hint}") from error
    if not isinstance(row, dict):
        raise ConfigurationError(f"{path}, row {number}: not a JSON object: JSON lines have one a line")
    votes = row.pop("votes", None) or {}
    if not isinstance(votes, dict):
        raise ConfigurationError(f"{path}, row {number}: votes are an object of label and number, not {votes!r}")
    try:
        return _unique([*row.items(), *((f"{_VOTES}{label}", count) for label, count in votes.items())])
    except ValueError as error:
        raise ConfigurationError(f"{path}, row {number}: {error}") from error


CORPUS: Final = Corpus("own", "", _LABELS, find)
