"""Folders in the shape of IEMOCAP as distributed: made names, and tones whose pitch is the class."""

import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE_HZ = 16_000
PITCH_HZ = {"ang": 350, "hap": 700, "exc": 700, "neu": 1400, "sad": 2800, "fru": 500, "xxx": 600}

# Per session: neutral, happy or excited, angry, sad; improvised; by women.
TABLE = {
    1: (384, 278, 229, 194, 521, 528),
    2: (362, 327, 137, 197, 530, 481),
    3: (320, 286, 240, 305, 627, 522),
    4: (258, 303, 327, 143, 534, 528),
    5: (384, 442, 170, 245, 731, 590),
}
# Dialogues whose names have one letter more, with how many utterances of them are by women.
LONG = {3: ("Ses03M_impro05a", 150, 56), 5: ("Ses05M_script01_1b", 24, 9)}


@dataclass(frozen=True)
class Utterance:
    """A name, and what the annotators said."""

    dialogue: str
    speaker: str
    number: int
    label: str

    @property
    def name(self) -> str:
        """As the corpus has it."""
        return f"{self.dialogue}_{self.speaker}{self.number:03d}"


def whole() -> Iterator[Utterance]:
    """All 5,531 utterances of the four classes, with every margin of the published table, and 40 of other classes."""
    for session, (neutral, happy, angry, sad, improvised, women) in TABLE.items():
        labels = ["neu"] * neutral + ["hap", "exc"] * (happy // 2) + ["hap"] * (happy % 2)
        labels += ["ang"] * angry + ["sad"] * sad
        np.random.default_rng(session).shuffle(labels)
        dialogue, long_count, long_women = LONG.get(session, ("", 0, 0))
        in_long = set(range(long_count)) if "impro" in dialogue else set(range(len(labels) - long_count, len(labels)))
        spoken_by_women = set(sorted(in_long)[:long_women])
        spoken_by_women |= set([i for i in range(len(labels)) if i not in in_long][: women - long_women])
        for i, label in enumerate(labels):
            plain = f"Ses{session:02d}F_impro{i // 100 + 1:02d}" if i < improvised else f"Ses{session:02d}M_script01_1"
            if i in in_long:
                plain = dialogue
            yield Utterance(plain, "F" if i in spoken_by_women else "M", i, label)
        for i in range(8):
            yield Utterance(f"Ses{session:02d}F_impro01", "F", 900 + i, "fru" if i % 2 else "xxx")


def small(per_class: int = 2) -> Iterator[Utterance]:
    """A few utterances of each class by each of the ten speakers."""
    for session in TABLE:
        for speaker in "FM":
            for index, label in enumerate(["ang", "exc", "neu", "sad", "fru"]):
                for number in range(per_class):
                    dialogue = f"Ses{session:02d}F_" + ("impro01" if number % 2 else "script01_1")
                    yield Utterance(dialogue, speaker, 10 * index + number, label)


def write(root: Path, utterances: Iterable[Utterance], *, seconds: float = 0.5) -> Path:
    """Write the folder; returns it. Each file is a tone with noise: one of a few of its class, and one sample."""
    rng = np.random.default_rng(1)
    lines: dict[Path, list[str]] = {}
    made: dict[tuple[str, int], bytes] = {}
    for number, utterance in enumerate(utterances):
        session = root / f"Session{int(utterance.dialogue[3:5])}"
        evaluation = session / "dialog" / "EmoEvaluation" / f"{utterance.dialogue}.txt"
        label = utterance.label
        lines.setdefault(evaluation, ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]).append(
            f"[6.2901 - 8.2357]\t{utterance.name}\t{label}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
        )
        kind = (label, utterance.number % 5)
        if kind not in made:
            made[kind] = _tone(label, seconds * (1 + 0.1 * (utterance.number % 5)), rng)
        path = session / "sentences" / "wav" / utterance.dialogue / f"{utterance.name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes(number.to_bytes(2, "little") + made[kind])  # no two are the same
    for evaluation, text in lines.items():
        (evaluation.parent / "Categorical").mkdir(parents=True, exist_ok=True)  # annotators' own folders lie there too
        evaluation.write_text("\n".join(text))
        (evaluation.parent / f"._{evaluation.name}").write_bytes(b"\x00\x05\x16\x07")  # as copies from a Mac have
    return root


def _tone(label: str, seconds: float, rng: np.random.Generator) -> bytes:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    samples = np.sin(2 * np.pi * PITCH_HZ[label] * time_s) + rng.normal(scale=0.1, size=time_s.size)
    return (samples * 8000).astype("<i2").tobytes()
