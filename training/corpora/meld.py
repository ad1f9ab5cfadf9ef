"""MELD (Poria et al. 2019): a television series; MP4 files and a CSV for each split. Needs ffmpeg."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from callmood.schemas.common import Emotion
from callmood.training import texts
from callmood.training.corpora.found import Corpus, Found, column, files
from callmood.worker.errors import ConfigurationError

_LABELS: Final = {
    "anger": Emotion.ANGER,
    "joy": Emotion.HAPPINESS,
    "neutral": Emotion.NEUTRAL,
    "sadness": Emotion.SADNESS,
}
_SPLITS: Final = {
    "train": ("train", "train/train_splits", "train_splits"),
    "dev": ("valid", "dev_splits_complete", "dev/dev_splits_complete"),
    "test": ("test", "output_repeated_splits_test", "test/output_repeated_splits_test"),
}
_MAIN: Final = {"Chandler": "M", "Joey": "M", "Monica": "F", "Phoebe": "F", "Rachel": "F", "Ross": "M"}


def find(root: Path) -> Iterator[Found]:
    """Utterances in the released splits, which share their speakers: train with `--protocol given_shared`.

    Raises:
        ConfigurationError: a split has no table or no folder of clips.
    """
    for name, (split, *folders) in _SPLITS.items():
        path = files(root, f"{name}_sent_emo.csv", f"*/{name}_sent_emo.csv")[0]
        folder = next((root / folder for folder in folders if (root / folder).is_dir()), None)
        if folder is None:
            raise ConfigurationError(f"{root}: no folder {' or '.join(folders)}; unpack {name}.tar.gz of the release")
        for row in _rows(path):
            utterance = f"dia{column(row, path, 'Dialogue_ID')}_utt{column(row, path, 'Utterance_ID')}"
            speaker = column(row, path, "Speaker")
            yield Found(
                id=f"{name}_{utterance}",
                path=folder / f"{utterance}.mp4",
                label=column(row, path, "Emotion"),
                speaker=speaker,
                gender=_MAIN.get(speaker, ""),
                style="scripted",
                split=split,
            )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table; some of its quotation marks are not in UTF-8."""
    texts.bound_csv_fields()
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield from csv.DictReader(file)
    except csv.Error as error:
        raise ConfigurationError(f"{path}: {error}") from error


CORPUS: Final = Corpus("meld", "en", _LABELS, find)
