"""The speech check: whether a person speaks in an utterance, and in which part of it.

A frame of 32 ms is voiced if Silero's network finds it likelier speech than not, and a voice can make it (`unvoiced`).
Somebody speaks if, in the 1.5 s of the utterance with the most voiced frames, at least a quarter are voiced: a word is
enough, and a tune with a few voiced frames is not. bench/RESULTS.md has the errors of this rule and of others.

Each utterance is judged alone, on the CPU, in float32, so what it is batched with cannot change the answer. That costs
little beside the emotion model (bench/RESULTS.md).
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from callmood.schemas.common import Encoding
from callmood.worker.engine.infer import Engine, open_engine
from callmood.worker.engine.parts import early_answer, part_of
from callmood.worker.engine.unvoiced import unvoiced
from callmood.worker.model import audio, silero
from callmood.worker.model.audio import Sound
from callmood.worker.records import Prediction, Speech, Utterance

if TYPE_CHECKING:
    from callmood.worker.settings import ModelSettings

FRAME_MS: Final = silero.FRAME * 1000 // silero.RATE_HZ
SPEECH_FROM: Final = 0.25
"""Least share of voiced frames of an utterance that is speech."""

_WINDOW: Final = 47  # frames: 1.5 s
_VOICED: Final = 0.5
_LONG_BREAK: Final = 31  # frames, 1 s: other sound before the first word, or behind the last, that is cut off
_MARGIN: Final = 6  # frames, about 200 ms, that are kept beside a word at a cut
_MAX_OTHER: Final = 0.5  # of the part that counts; with more, no emotion is read from it
_DIGITS: Final = 3
_SILENCE: Final = (Encoding.S16LE, silero.RATE_HZ, bytes(2 * silero.RATE_HZ))
_log: Final = logging.getLogger(__name__)


class SpeechCheck:
    """Judges utterances. Thread-safe.

    Args:
        network: the probability of each frame; see `Silero.forward`.
    """

    def __init__(self, network: silero.Silero) -> None:
        self._network = network

    @classmethod
    def open(cls) -> "SpeechCheck":
        """The check, warm.

        Raises:
            ModelError: its weights cannot be used.
        """
        check = cls(silero.load())
        check.probabilities(_SILENCE)
        return check

    def judge(self, sound: Sound) -> Speech | None:
        """What is in an utterance; None: the check fails on it, and it counts as speech.

        Raises:
            Exception: the check fails on silence as well.
        """
        try:
            probabilities = self.probabilities(sound)
        except Exception as error:  # noqa: BLE001 - whatever one utterance does to torch must stay with it
            self.probabilities(_SILENCE)
            _log.error("speech check failed on one utterance", exc_info=error)
            return None
        encoding, rate_hz, data = sound
        return verdict(probabilities, len(data) // encoding.bytes_per_sample * 1000 // rate_hz)

    @torch.inference_mode()
    def probabilities(self, sound: Sound) -> npt.NDArray[np.float32]:
        """That of each frame, [frames]; 0 if no voice makes it.

        Raises:
            ValueError: one is not finite.
        """
        waveform = audio.waveform(sound, silero.RATE_HZ)
        probabilities = self._network(waveform)
        if not probabilities.isfinite().all():
            raise ValueError("a probability is not finite")
        found: npt.NDArray[np.float32] = probabilities.numpy()
        found[unvoiced(waveform.numpy())] = 0
        return found


def verdict(probabilities: npt.NDArray[np.float32], duration_ms: int) -> Speech:
    """What the probabilities of an utterance's frames say, at least one; see the module.

    Another sound of at least a second before the first word or behind the last one does not count.
    """
    voiced = probabilities > _VOICED
    share = _shares(voiced)
    best = round(float(share.max()), _DIGITS)
    if best < SPEECH_FROM:
        return Speech(best, 0, 0)
    frames = np.flatnonzero(voiced & _spoken(share, voiced.size))
    first, last = int(frames[0]), int(frames[-1])
    start_ms = 0 if first < _LONG_BREAK else (first - _MARGIN) * FRAME_MS
    end_ms = duration_ms if voiced.size - 1 - last < _LONG_BREAK else (last + 1 + _MARGIN) * FRAME_MS
    breaks = np.diff(frames) - 1
    other = int(breaks[breaks >= _LONG_BREAK].sum())
    return Speech(best, start_ms, min(end_ms, duration_ms), is_sparse=other > _MAX_OTHER * (last + 1 - first))


def _shares(voiced: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The share of voiced frames in each window of the utterance, by its first frame."""
    window = min(_WINDOW, voiced.size)
    sums = np.concatenate([[0], np.cumsum(voiced)])
    shares: npt.NDArray[np.float64] = (sums[window:] - sums[:-window]) / window
    return shares


def _spoken(share: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.bool_]:
    """The frames inside a window that is speech."""
    starts = np.zeros(frames + 1, dtype=np.int64)
    starts[: share.size] += share >= SPEECH_FROM
    starts[frames - share.size + 1 :] -= share >= SPEECH_FROM
    spoken: npt.NDArray[np.bool_] = np.cumsum(starts[:frames]) > 0
    return spoken


class Listener:
    """What the inference process does, without the process: the speech check, then the model.

    Args:
        engine: the model.
        check: None if it is off.
    """

    def __init__(self, engine: Engine, check: SpeechCheck | None) -> None:
        self.info = engine.info
        self._engine = engine
        self._check = check

    @classmethod
    def open(cls, settings: "ModelSettings") -> "Listener":
        """As the settings have it.

        Raises:
            ConfigurationError: there is no such device, or it cannot compute in the type that is set.
            ModelError: the checkpoint or the check's weights cannot be used.
        """
        return cls(open_engine(settings), SpeechCheck.open() if settings.speech_check else None)

    def answer(self, utterances: Sequence[Utterance]) -> list[Prediction]:
        """The answers to these utterances, in their order."""
        sounds = [(one.encoding, one.rate_hz, one.audio) for one in utterances]
        found = [self._check.judge(sound) if self._check else None for sound in sounds]
        answers = [
            early_answer(speech, wants_emotion=one.wants_emotion) for one, speech in zip(utterances, found, strict=True)
        ]
        rows = [row for row, early in enumerate(answers) if early is None]
        predictions = self._engine.predict([part_of(sounds[row], found[row]) for row in rows]) if rows else []
        for row, prediction in zip(rows, predictions, strict=True):
            answers[row] = replace(prediction, speech=found[row])
        return [one for one in answers if one is not None]
