"""IEMOCAP (Busso et al. 2008), as distributed: `Session1` to `Session5`. Four classes, excitement counts as happiness.

A line is `[6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]`: times, name, label, and the
means of valence, activation and dominance, from 1 to 5. The first letter F or M of a name is the person who wore the
markers; the last one is the speaker.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from callmood.schemas.common import Emotion
from callmood.training.corpora.found import STRAY, Corpus, Found, dimensions_of, files
from callmood.worker.errors import ConfigurationError

_LINE: Final = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w+)\t\[([^\]\n]*)", re.MULTILINE)
_NAME: Final = re.compile(r"^Ses(?P<session>\d\d)[FM]_(?P<style>impro|script)\d\d(_\d)?[a-z]?_(?P<speaker>[FM])\w*\d+$")
_HIGHEST: Final = 5  # of valence, activation and dominance
_STYLES: Final = {"impro": "improvised", "script": "scripted"}
_LABELS: Final = {
    "ang": Emotion.ANGER,
    "hap": Emotion.HAPPINESS,
    "exc": Emotion.HAPPINESS,
    "neu": Emotion.NEUTRAL,
    "sad": Emotion.SADNESS,
}
# Where SpeechBrain's recipe of 2021 looks for the speaker in a name: right only for dialogues without a letter.
_FIXED: Final = {"improvised": 15, "scripted": 18}

UTTERANCES: Final = {"01": 1085, "02": 1023, "03": 1151, "04": 1031, "05": 1241}
"""Utterances of the four classes by session; 5,531 in all (checked against the lists that s3prl publishes)."""


def find(root: Path) -> Iterator[Found]:
    """Every labelled utterance of the release, with any label."""
    for path in files(root, "Session*/dialog/EmoEvaluation/*.txt"):
        for name, label, levels in _LINE.findall(path.read_text(encoding="utf-8", errors="replace")):
            match = _NAME.match(name)
            if match is None:
                yield Found(name, path, label, "", unusable=STRAY)
                continue
            folder = path.parents[2] / "sentences" / "wav" / path.stem
            yield Found(
                id=name,
                path=folder / f"{name}.wav",
                label=label,
                speaker=f"Ses{match['session']}{match['speaker']}",
                gender=match["speaker"],
                session=match["session"],
                style=_STYLES[match["style"]],
                dimensions=dimensions_of(levels.split(","), _HIGHEST),
            )


def speaker_of_2021(name: str, style: str) -> str:
    """The speaker as the authors' code of 2021 reads it: the letter at a fixed position, `M` unless it is `F`."""
    return f"{name[:5]}{'F' if name[_FIXED[style] :].startswith('F') else 'M'}"


def refuse_other_counts(sessions: Sequence[str]) -> None:
    """Check that these sessions of four-class utterances are the whole of IEMOCAP.

    Raises:
        ConfigurationError: there are too few or too many utterances; the message has the counts by session.
    """
    counts = Counter(sessions)
    wrong = {session: counts[session] for session in UTTERANCES if counts[session] != UTTERANCES[session]}
    if wrong or sum(counts.values()) != sum(UTTERANCES.values()):
        sessions_text = ", ".join(
            f"session {session}: {count} of {UTTERANCES[session]}" for session, count in wrong.items()
        )
        raise ConfigurationError(
            f"IEMOCAP has {sum(UTTERANCES.values())} utterances of the four classes, this folder has "
            f"{sum(counts.values())} ({sessions_text}); accept that with --partial"
        )


CORPUS: Final = Corpus("iemocap", "en", _LABELS, find)
