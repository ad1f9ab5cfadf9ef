"""What the speech check leaves to the model: a part of an utterance to analyse, or an answer without it. Pure."""

from typing import Final

from callmood.schemas.common import AbstainReason, Encoding
from callmood.worker.records import Prediction, Speech

Sound = tuple[Encoding, int, bytes]
"""As `model.audio.Sound`: encoding, sample rate in Hz, and the samples of one channel."""

OTHER_SOUND: Final = AbstainReason.OTHER_SOUND


def duration_s(sound: Sound) -> float:
    """Seconds of audio."""
    encoding, rate_hz, data = sound
    return len(data) / encoding.bytes_per_sample / rate_hz


def part_of(sound: Sound, speech: Speech | None) -> Sound:
    """The part of a sound that counts as speech; all of it if it was not checked."""
    if speech is None:
        return sound
    encoding, rate_hz, data = sound
    first, last = (ms * rate_hz // 1000 * encoding.bytes_per_sample for ms in (speech.start_ms, speech.end_ms))
    return encoding, rate_hz, data[first:last]


def early_answer(speech: Speech | None, *, wants_emotion: bool) -> Prediction | None:
    """The answer for an utterance that the model does not analyse; None if the model analyses it."""
    if not wants_emotion or (speech is not None and not speech.is_speech):
        return Prediction(None, speech=speech)
    if speech is not None and speech.is_sparse:
        return Prediction(None, OTHER_SOUND, speech=speech)
    return None
