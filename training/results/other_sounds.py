"""What a bundle makes of other sounds of a telephone line, which its card says."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from callmood.training.evaluate import evaluate, softmax
from callmood.training.loop.data import Clip
from callmood.training.loop.train import predict
from callmood.training.synthetic import around
from callmood.training.synthetic.arrays import Samples
from callmood.training.synthetic.sounds import RATE_HZ
from callmood.worker.model.model import EmotionModel

_BATCH: Final = 16
_ALONE_S: Final = 4
_ALONE_DBFS: Final = -25.0


def measure(model: EmotionModel, clips: Sequence[Clip]) -> dict[str, Any]:
    """`around`: the metrics of clips (at 8 kHz) with a sound each; `alone`: how many sounds it labels without speech.

    Args:
        model: with its calibration.
        clips: those of a test split.
    """
    noisy = [_with_sound(clip, number) for number, clip in enumerate(clips)]
    alone = [_alone(sound) for sound in around.pool(held_out=True)]
    calibration = dataclasses.asdict(model.calibration)
    logits, _ = predict(model, alone, batch_size=_BATCH)
    confidence = softmax(logits, model.calibration.temperature).max(axis=1)
    labelled = float((confidence >= model.calibration.abstain_below).mean())
    return {
        "around": evaluate(*predict(model, noisy, batch_size=_BATCH), **calibration),
        "alone": {"sounds": len(alone), "labelled": round(labelled, 4)},
    }


def _with_sound(clip: Clip, number: int) -> Clip:
    speech = np.frombuffer(clip.audio, "<i2") / 32768
    return dataclasses.replace(clip, audio=_s16(around.add(speech, np.random.default_rng(number), held_out=True)))


def _alone(sound: around.Waveform) -> Clip:
    part = sound[: _ALONE_S * RATE_HZ]
    return Clip(RATE_HZ, _s16(part / np.sqrt(np.square(part).mean()) * 10 ** (_ALONE_DBFS / 20)), label=0)


def _s16(samples: Samples) -> bytes:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()
