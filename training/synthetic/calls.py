"""Two-party calls for the demo: a script in, a stereo file out, customer left and agent right, both after mu-law."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from callmood.schemas.common import Emotion, Role
from callmood.training.synthetic import prosody, speak, telephone
from callmood.worker.errors import ConfigurationError

CHANNELS = (Role.CUSTOMER, Role.AGENT)
_END_MS = 600  # after the last turn
_STRENGTH = 1.0  # callers of the demo act clearly
_LINE = telephone.Line(level_dbfs=-22, snr_db=44)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Sentences of one party, `wait_ms` after the end of the turn before (negative: the party cuts in)."""

    role: Role
    emotion: Emotion
    wait_ms: int
    text: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """A call as written; `voices` are in the order of `CHANNELS`."""

    seed: int
    voices: tuple[speak.Voice, ...]
    turns: tuple[Turn, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """The place of a turn in the file, ms from its start."""

    start_ms: int
    end_ms: int
    role: Role
    emotion: Emotion
    text: str


def read(path: Path) -> Script:
    """Read a script.

    Raises:
        ConfigurationError: the file is not a script; the message names the wrong part.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        voices = tuple(speak.Voice(**values[role]) for role in CHANNELS)
        return Script(values["seed"], voices, tuple(_turn(turn) for turn in values["turns"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: {type(error).__name__}: {error}") from error


def perform(script: Script) -> tuple[NDArray[np.int16], list[Spoken]]:
    """Speak a script.

    Returns:
        int16 [samples, 2] at 8 kHz, and what was said when.
    """
    placed: list[tuple[int, int, NDArray[np.float64]]] = []
    spoken: list[Spoken] = []
    end = 0
    for number, turn in enumerate(script.turns):
        channel = CHANNELS.index(turn.role)
        rng = np.random.default_rng((script.seed, number))
        style = prosody.draw(turn.emotion, rng, _STRENGTH)
        samples = prosody.act(turn.text, script.voices[channel], style, rng)
        narrowed = telephone.narrow(samples, speak.RATE_HZ, _LINE)
        start = max(end + _samples(turn.wait_ms), 0)
        end = start + narrowed.size
        placed.append((channel, start, narrowed))
        spoken.append(Spoken(_ms(start), _ms(end), turn.role, turn.emotion, " ".join(turn.text)))
    channels = np.zeros((len(CHANNELS), max(start + part.size for _, start, part in placed) + _samples(_END_MS)))
    for channel, start, part in placed:
        channels[channel, start : start + part.size] += part
    rng = np.random.default_rng((script.seed, len(script.turns)))
    return np.stack([telephone.transmit(samples, _LINE, rng) for samples in channels], axis=1), spoken


def make_all(folder: Path) -> list[Path]:
    """Make `<name>.flac` and `<name>.json` (what was said when) beside every `<name>.toml` of a folder.

    Raises:
        ConfigurationError: a script is wrong, or espeak-ng or a voice is missing.
    """
    made = []
    for path in sorted(folder.glob("*.toml")):
        audio, spoken = perform(read(path))
        soundfile.write(path.with_suffix(".flac"), audio, telephone.RATE_HZ, subtype="PCM_16")
        lines = ",\n".join("  " + json.dumps(dataclasses.asdict(turn), ensure_ascii=False) for turn in spoken)
        path.with_suffix(".json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        made.append(path.with_suffix(".flac"))
    return made


def _turn(values: Mapping[str, Any]) -> Turn:
    return Turn(
        **{**values, "role": Role(values["role"]), "emotion": Emotion(values["emotion"]), "text": tuple(values["text"])}
    )


def _samples(ms: int) -> int:
    return ms * telephone.RATE_HZ // 1000


def _ms(samples: int) -> int:
    return samples * 1000 // telephone.RATE_HZ
