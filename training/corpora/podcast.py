"""MSP-Podcast (Lotfian & Busso 2019): `Audios` and `Labels/labels_consensus.csv`; splits and votes as released."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from callmood.schemas.common import Emotion
from callmood.training.corpora.found import Corpus, Found, column, dimensions_of, files, table

_LABELS: Final = {"A": Emotion.ANGER, "H": Emotion.HAPPINESS, "N": Emotion.NEUTRAL, "S": Emotion.SADNESS}
_WORDS: Final = {"angry": "A", "happy": "H", "neutral": "N", "sad": "S"}  # in the detailed labels
_SPLITS: Final = {"train": "train", "development": "valid", "validation": "valid", "test1": "test"}
_LEVELS: Final = ("EmoVal", "EmoAct", "EmoDom")
_HIGHEST: Final = 7  # of these three
_GENDERS: Final = {"male": "M", "female": "F"}

_log = logging.getLogger(__name__)


def find(root: Path) -> Iterator[Found]:
    """Utterances of Train, Development and Test1; other test sets are dropped by their split's name as label.

    A speaker that is not known gets a name of their own: they may be one of the others.
    """
    path = files(root, "[Ll]abel*/labels_consensus.csv", "[Ll]abel*/labels_concensus.csv")[0]  # the older spelling
    votes = _votes(path.with_name("labels_detailed.csv"))
    folder = root / ("Audios" if (root / "Audios").is_dir() else "Audio")
    for _, row in table(path):
        name = column(row, path, "FileName")
        split = column(row, path, "Split_Set")
        speaker = column(row, path, "SpkrID")
        known = _SPLITS.get(split.lower())
        yield Found(
            id=Path(name).stem,
            path=folder / name,
            label=column(row, path, "EmoClass") if known else split,
            speaker=speaker if speaker.lower() != "unknown" else f"unknown:{Path(name).stem}",
            gender=_GENDERS.get(column(row, path, "Gender").lower(), ""),
            split=known or "",
            votes=votes.get(name, {}),
            dimensions=dimensions_of((row.get(level) or "" for level in _LEVELS), _HIGHEST),
        )


def _votes(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Primary emotions by file, one vote a row of the detailed labels; empty without the file.

    Releases 1.6 and 2.0 have a column `EmoClass_Major`. Releases 1.7 to 1.11 have `EmoDetail`, whose second part is it:
    `WORKER00000014; Neutral; Concerned; A:4.000000; V:3.000000; D:4.000000;`.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    if not path.is_file():
        return counts
    for _, row in table(path):
        if "FileName" not in row or not {"EmoClass_Major", "EmoDetail"} & row.keys():
            _log.warning("no votes read: %s has no FileName with EmoClass_Major or EmoDetail", path)
            return counts
        if "EmoClass_Major" in row:
            word = column(row, path, "EmoClass_Major")
        else:
            word = [*column(row, path, "EmoDetail").split(";"), "", ""][1]
        word = word.strip().lower()
        if word:
            counts[column(row, path, "FileName")][_WORDS.get(word, word)] += 1
    return counts


CORPUS: Final = Corpus("msp-podcast", "en", _LABELS, find)
