"""Acted corpora whose file names carry speaker and label: CREMA-D, RAVDESS, EmoDB, SAVEE, TESS."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from callmood.schemas.common import Emotion
from callmood.training.corpora.found import STRAY, Corpus, Found, column, files, table, votes_of
from callmood.worker.errors import ConfigurationError

_SEXES: Final = {"male": "M", "female": "F"}


def _stray(path: Path) -> Found:
    """A file among the clips that is not a clip, such as a second download `... (1).wav`."""
    return Found(path.stem, path, "", "", unusable=STRAY)


# CREMA-D (Cao et al. 2014): AudioWAV/1001_IEO_ANG_HI.wav = actor, sentence, intended emotion, level. One clip of the
# release, 1040_ITH_SAD_X, has a level of one letter.
_CREMA_D: Final = re.compile(r"^(?P<actor>\d{4})_(?P<text>[A-Z]{3})_(?P<label>[A-Z]{3})_[A-Z]{1,2}$")
_VOICE: Final = 1  # a query type
_VOTES: Final = {"A": "ANG", "D": "DIS", "F": "FEA", "H": "HAP", "N": "NEU", "S": "SAD"}


def _find_crema_d(root: Path) -> Iterator[Found]:
    genders = _crema_d_column(root / "VideoDemographics.csv", "ActorID", "Sex")
    votes = _crema_d_votes(root / "processedResults" / "tabulatedVotes.csv")
    for path in files(root, "AudioWAV/*.wav", name=_CREMA_D):
        match = _CREMA_D.match(path.stem)
        if match is None:
            yield _stray(path)
            continue
        gender = _SEXES.get(genders.get(match["actor"], "").lower(), "")
        yield Found(
            path.stem,
            path,
            match["label"],
            match["actor"],
            gender=gender,
            style="scripted",
            votes=votes.get(_full_level(path.stem), {}),
        )


def _crema_d_column(path: Path, key: str, value: str) -> dict[str, str]:
    """One column of a table by another; empty without the file."""
    if not path.is_file():
        return {}
    return {column(row, path, key): column(row, path, value) for _, row in table(path)}


def _crema_d_votes(path: Path) -> dict[str, dict[str, float]]:
    """Votes of those who only heard a clip, from `processedResults/tabulatedVotes.csv`; empty without the file.

    A clip has three rows. The unnamed first column is `queryType * 100000 + clipNum`: from 100001 for voice, from
    200001 for face, from 300001 for both. Source: the repository's README ("queryType") and the file itself, as of
    CheyneyComputerScience/CREMA-D@63f0471, whose first row is 100001 and whose last is 307442.
    """
    if not path.is_file():
        return {}
    found: dict[str, dict[str, float]] = {}
    for line, row in table(path):
        number = column(row, path, "")
        if number.isascii() and number.isdigit() and int(number) // 100_000 == _VOICE:
            try:
                given = {_VOTES[letter]: votes_of(column(row, path, letter)) for letter in _VOTES}
            except ConfigurationError as error:
                raise ConfigurationError(f"{path}, row {line}: {error}") from error
            found[_full_level(column(row, path, "fileName"))] = given
    return found


def _full_level(name: str) -> str:
    """A clip's name with a level of two letters."""
    return f"{name}X" if name.endswith("_X") else name


# RAVDESS (Livingstone & Russo 2018): 03-01-05-01-02-01-18.wav = modality (03 audio), channel (01 speech), emotion,
# intensity, statement, repetition, actor; odd actors are male.
_RAVDESS: Final = re.compile(r"^03-01-(?P<label>0[1-8])-\d\d-\d\d-\d\d-(?P<actor>\d\d)$")
_ACTORS_PER_FOLD: Final = 4  # EmoBox' six folds


def _find_ravdess(root: Path) -> Iterator[Found]:
    for path in files(root, "Actor_*/03-01-*.wav", "*/Actor_*/03-01-*.wav", name=_RAVDESS):
        match = _RAVDESS.match(path.stem)
        if match is None:
            yield _stray(path)
            continue
        actor = int(match["actor"])
        fold = str((actor - 1) // _ACTORS_PER_FOLD + 1)
        yield Found(
            path.stem, path, match["label"], match["actor"], gender="FM"[actor % 2], session=fold, style="scripted"
        )


# EmoDB (Burkhardt et al. 2005), German: wav/03a01Fa.wav = speaker, text, emotion, version.
_EMODB: Final = re.compile(r"^(?P<speaker>\d\d)[a-z]\d\d(?P<label>[A-Z])[a-z]?$")
_EMODB_MEN: Final = {"03", "10", "11", "12", "15"}


def _find_emodb(root: Path) -> Iterator[Found]:
    for path in files(root, "wav/*.wav", "*.wav", name=_EMODB):
        match = _EMODB.match(path.stem)
        if match is None:
            yield _stray(path)
            continue
        gender = "M" if match["speaker"] in _EMODB_MEN else "F"
        yield Found(path.stem, path, match["label"], match["speaker"], gender=gender, style="scripted")


# SAVEE (Haq & Jackson 2009), four men: DC_a01.wav, or DC/a01.wav.
_SAVEE: Final = re.compile(r"^((?P<speaker>[A-Z]{2})_)?(?P<clip>(?P<label>sa|su|[adfhn])\d\d)$")


def _find_savee(root: Path) -> Iterator[Found]:
    for path in files(root, "[A-Z][A-Z]_*.wav", "[A-Z][A-Z]/*.wav", "AudioData/[A-Z][A-Z]/*.wav", name=_SAVEE):
        match = _SAVEE.match(path.stem)
        if match is None:
            yield _stray(path)
            continue
        speaker = match["speaker"] or path.parent.name
        yield Found(f"{speaker}_{match['clip']}", path, match["label"], speaker, gender="M", style="scripted")


# TESS (Pichora-Fuller & Dupuis 2020), two women: OAF_back_angry.wav = speaker, word, emotion.
_TESS: Final = re.compile(r"^(?P<speaker>[OY]AF?)_(?P<word>\w+?)_(?P<label>[a-z]+)$")


def _find_tess(root: Path) -> Iterator[Found]:
    for path in files(root, "[OY]A*_*.wav", "*/[OY]A*_*.wav", name=_TESS):
        match = _TESS.match(path.stem)
        if match is None:
            yield _stray(path)
            continue
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
# `calm` (02) is dropped: not all listeners hear it as neutral.
RAVDESS: Final = Corpus("ravdess", "en", _four("05", "03", "01", "04"), _find_ravdess)
EMODB: Final = Corpus("emodb", "de", _four("W", "F", "N", "T"), _find_emodb)
SAVEE: Final = Corpus("savee", "en", _four("a", "h", "n", "sa"), _find_savee)
TESS: Final = Corpus("tess", "en", _four("angry", "happy", "neutral", "sad"), _find_tess)
