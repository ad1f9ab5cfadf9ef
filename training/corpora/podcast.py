"""MSP-Podcast (Lotfian & Busso 2019): `Audios` and `Labels/labels_consensus.csv`; splits and votes as released."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from callmood.schemas.common import Emotion
from callmood.training.corpora.found import Corpus, Found, column, files

_LABELS: Final = {"A": Emotion.ANGER, "H": Emotion.HAPPINESS, "N": Emotion.NEUTRAL, "S": Emotion.SADNESS}
_WORDS: Final = {"angry": "A", "happy": "H", "neutral": "N", "sad": "S"}  # in the detailed labels
_SPLITS: Final = {"train": "train", "development": "valid", "validation": "valid", "test1": "test"}
_GENDERS: Final = {"male": "M", "female": "F"}


def find(root: Path) -> Iterator[Found]:
    """Utterances of Train, Development and Test1; other test sets are dropped by their split's name as label.

    A speaker that is not known gets a name of its own: nothing can be said of what the splits share.
    """
    path = files(root, "Labels/labels_consensus.csv", "Labels/labels_concensus.csv")[0]  # the older spelling
    votes = _votes(root / "Labels" / "labels_detailed.csv")
    folder = root / ("Audios" if (root / "Audios").is_dir() else "Audio")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
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
            )


def _votes(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Primary emotions by file, one a row of the detailed labels; none without the file."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                word = column(row, path, "EmoClass_Major").lower()
                counts[column(row, path, "FileName")][_WORDS.get(word, word)] += 1
    return counts


CORPUS: Final = Corpus("msp-podcast", "en", _LABELS, find)
