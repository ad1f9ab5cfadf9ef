"""Maps a corpus' labels to emotions: the four of the corpus, and others by `--map LABEL=EMOTION`."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.training.corpora import own
from callmood.training.corpora.found import Corpus, Found
from callmood.training.corpora.sound import DroppedError
from callmood.worker.errors import ConfigurationError

_OPTION: Final = "--map"
_VALUES: Final = f"use {', '.join(EMOTIONS)}, or nothing to drop these utterances"


class Labels:
    """The emotion of each label of a corpus; None of one that the user drops.

    Args:
        corpus: the corpus. An own list's labels are read without regard to case; of another corpus they are exact.
        given: texts such as `frustrated=anger` or `other=`, which overrule the corpus' own meaning.

    Raises:
        ConfigurationError: a text is not of this form, names no emotion of ours, or contradicts an earlier one.
    """

    def __init__(self, corpus: Corpus, given: Sequence[str] = ()) -> None:
        self._is_own = corpus is own.CORPUS
        self.given = _read(given, own.spelt if self._is_own else str.strip)
        self._meaning: Mapping[str, Emotion | None] = {**corpus.labels, **self.given}

    def of(self, label: str) -> Emotion:
        """The emotion of a label.

        Raises:
            DroppedError: the label is of none of the four emotions.
        """
        emotion = self._meaning.get(label)
        if emotion is None:
            raise DroppedError(f"label {label}")
        return emotion

    def votes(self, votes: Mapping[str, float]) -> dict[str, float]:
        """Votes by emotion, without those for labels of no emotion."""
        counts: dict[str, float] = {}
        for label, count in votes.items():
            if emotion := self._meaning.get(label):
                counts[str(emotion)] = counts.get(emotion, 0) + count
        return counts

    def refuse_unknown(self, found: Iterable[Found], root: Path) -> None:
        """Check that all labels of an own list have a meaning, and that each label of the user's map occurs.

        Raises:
            ConfigurationError: one does not; the message has the counts and the options to write.
        """
        usable = [one for one in found if not one.unusable]
        counts = Counter(one.label for one in usable)
        unknown = {label: count for label, count in counts.most_common() if label not in self._meaning}
        if self._is_own and unknown:
            options = " ".join(f"{_OPTION} {shlex.quote(label + '=')}" for label in unknown)
            raise ConfigurationError(
                f"{root}: labels outside the four emotions: {_counted(unknown)}. Add {options} and write after each "
                f"= the emotion that the label means: {_VALUES}"
            )
        occurring = counts.keys() | {label for one in usable for label in one.votes}
        if missing := self.given.keys() - occurring:
            raise ConfigurationError(
                f"{root}: {_OPTION} {min(missing)}: no utterance has this label; labels are {_counted(counts)}"
            )


def _read(given: Sequence[str], spelt: Callable[[str], str]) -> dict[str, Emotion | None]:
    read: dict[str, Emotion | None] = {}
    for text in given:
        label, equals, value = text.rpartition("=")
        name, value = spelt(label), value.strip().lower()
        if not equals or not name:
            raise ConfigurationError(f"{_OPTION} {text!r}: use LABEL=EMOTION, for example frustrated=anger")
        if value and value not in EMOTIONS:
            raise ConfigurationError(f"{_OPTION} {text!r}: unknown emotion {value!r}: {_VALUES}")
        emotion = Emotion(value) if value else None
        if read.setdefault(name, emotion) is not emotion:
            raise ConfigurationError(f"{_OPTION}: {name!r} has two meanings")
    return read


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label} ({count})" for label, count in counts.items()) or "none"
