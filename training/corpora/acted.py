"""Acted corpora whose file names say everything: CREMA-D, RAVDESS, EmoDB, SAVEE, TESS."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from callmood.schemas.common import Emotion
from callmood.training.corpora.found import Corpus, Found, column, files
from callmood.worker.errors import ConfigurationError

_SEXES: Final = {"male": "M", "female": "F"}


def _matched(pattern: re.Pattern[str], path: Path) -> re.Match[str]:
    match = pattern.match(path.stem)
    if match is None:
        raise ConfigurationError(f"{path}: not a name of this corpus")
    return match


# CREMA-D (Cao et al. 2014): AudioWAV/1001_IEO_ANG_HI.wav = actor, sentence, intended emotion, level.
_CREMA_D: Final = re.compile(r"^(?P<actor>\d{4})_(?P<text>[A-Z]{3})_(?P<label>[A-Z]{3})_[A-Z]{2}$")
_VOTES: Final = {"A": "ANG", "D": "DIS", "F": "FEA", "H": "HAP", "N": "NEU", "S": "SAD"}


def _find_crema_d(root: Path) -> Iterator[Found]:
    genders = _crema_d_column(root / "VideoDemographics.csv", "ActorID", "Sex")
    votes = _crema_d_votes(root / "processedResults" / "tabulatedVotes.csv")
    for path in files(root, "AudioWAV/*.wav"):
        match = _matched(_CREMA_D, path)
        gender = _SEXES.get(genders.get(match["actor"], "").lower(), "")
        yield Found(
            path.stem,
            path,
            match["label"],
            match["actor"],
            gender=gender,
            style="scripted",
            votes=votes.get(path.stem, {}),
        )


def _crema_d_column(path: Path, key: str, value: str) -> dict[str, str]:
    """One column of a table by another; none without the file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {column(row, path, key): column(row, path, value) for row in csv.DictReader(file)}


def _crema_d_votes(path: Path) -> dict[str, dict[str, float]]:
    """Votes on each clip: the letters' columns of `tabulatedVotes.csv`; a clip is voted on by voice, face and both.

    Only the votes by voice count: numbers from 100,000 up are of face alone, from 200,000 up of both.
    """
    if not path.is_file():
        return {}
    found: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            number = row.get("", "") or "0"
            if number.isdigit() and int(number) < 100_000:  # noqa: PLR2004 - see above
                given = {_VOTES[letter]: float(row.get(letter) or 0) for letter in _VOTES}
                found[column(row, path, "fileName")] = given
    return found


# RAVDESS (Livingstone & Russo 2018): 03-01-05-01-02-01-18.wav = modality (03 audio), channel (01 speech), emotion,
# intensity, statement, repetition, actor; odd actors are male.
_RAVDESS: Final = re.compile(r"^03-01-(?P<label>0[1-8])-\d\d-\d\d-\d\d-(?P<actor>\d\d)$")
_ACTORS_PER_FOLD: Final = 4  # EmoBox' six folds


def _find_ravdess(root: Path) -> Iterator[Found]:
    for path in files(root, "Actor_*/03-01-*.wav", "*/Actor_*/03-01-*.wav"):
        match = _matched(_RAVDESS, path)
        actor = int(match["actor"])
        fold = str((actor - 1) // _ACTORS_PER_FOLD + 1)
        yield Found(
            path.stem, path, match["label"], match["actor"], gender="FM"[actor % 2], session=fold, style="scripted"
        )


# EmoDB (Burkhardt et al. 2005), German: wav/03a01Fa.wav = speaker, text, emotion, version.
_EMODB: Final = re.compile(r"^(?P<speaker>\d\d)[a-z]\d\d(?P<label>[A-Z])[a-z]?$")
_EMODB_MEN: Final = {"03", "10", "11", "12", "15"}


def _find_emodb(root: Path) -> Iterator[Found]:
    for path in files(root, "wav/*.wav", "*.wav"):
        match = _matched(_EMODB, path)
        gender = "M" if match["speaker"] in _EMODB_MEN else "F"
        yield Found(path.stem, path, match["label"], match["speaker"], gender=gender, style="scripted")


# SAVEE (Haq & Jackson 2009), four men: DC_a01.wav, or DC/a01.wav.
_SAVEE: Final = re.compile(r"^((?P<speaker>[A-Z]{2})_)?(?P<label>sa|su|[adfhn])\d\d$")


def _find_savee(root: Path) -> Iterator[Found]:
    for path in files(root, "[A-Z][A-Z]_*.wav", "[A-Z][A-Z]/*.wav", "AudioData/[A-Z][A-Z]/*.wav"):
        match = _matched(_SAVEE, path)
        speaker = match["speaker"] or path.parent.name
        yield Found(f"{speaker}_{path.stem[-3:]}", path, match["label"], speaker, gender="M", style="scripted")


# TESS (Pichora-Fuller & Dupuis 2020), two women: OAF_back_angry.wav = speaker, word, emotion.
_TESS: Final = re.compile(r"^(?P<speaker>[OY]AF?)_(?P<word>\w+?)_(?P<label>[a-z]+)$")


def _find_tess(root: Path) -> Iterator[Found]:
    for path in files(root, "[OY]A*_*.wav", "*/[OY]A*_*.wav"):
        match = _matched(_TESS, path)
        speaker = match["speaker"][:2] + "F"  # one file is called OA_bite_neutral
        yield Found(path.stem, path, match["label"], speaker, gender="F", style="scripted")


def _four(anger: str, happiness: str, neutral: str, sadness: str) -> dict[str, Emotion]:
    return {
        anger: Emotion.ANGER,
        happiness: Emotion.HAPPINESS,
        neutral: Emotion.NEUTRAL,
        sadness: Emotion.SADNESS,
    }


CREMA_D: Final = Corpus("crema-d", "en", _four("ANG", "HAP", "NEU", "SAD"), _find_crema_d)
# `calm` (02) is dropped: it is neither neutral to all listeners nor one of the four.
RAVDESS: Final = Corpus("ravdess", "en", _four("05", "03", "01", "04"), _find_ravdess)
EMODB: Final = Corpus("emodb", "de", _four("W", "F", "N", "T"), _find_emodb)
SAVEE: Final = Corpus("savee", "en", _four("a", "h", "n", "sa"), _find_savee)
TESS: Final = Corpus("tess", "en", _four("angry", "happy", "neutral", "sad"), _find_tess)
