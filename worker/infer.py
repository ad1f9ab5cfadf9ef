"""The engine: prepare, run, finish. Call audio in, calibrated probabilities out; a bad utterance harms only itself."""

import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from schemas.common import Encoding
from worker import audio
from worker.audio import Sound
from worker.errors import ConfigurationError
from worker.model import EmotionModel, load
from worker.records import Prediction

TOO_SHORT: Final = "too_short"
LOW_CONFIDENCE: Final = "low_confidence"
NOT_FINITE: Final = "not_finite"
FAILED: Final = "inference_failed"

_SILENCE: Final = (Encoding.S16LE, audio.RATE_HZ, bytes(2 * audio.RATE_HZ))
_LONGEST_S: Final = 15
_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
_log: Final = logging.getLogger(__name__)


def open_engine(
    path: str, *, device: str = "auto", dtype: str = "auto", threads: int = 0, batch_seconds: float = 60.0
) -> "Engine":
    """Load a model and make the engine for it, not yet warm.

    Args:
        path: bundle, Hugging Face folder or `demo-tiny`.
        device: `cpu`, `cuda`, or `auto`: a GPU if there is one.
        dtype: `fp32`, `bf16`, or `auto`: bf16 on a GPU, fp32 on a CPU.
        threads: CPU threads; 0 leaves the choice to torch.
        batch_seconds: padded seconds of the largest batch that will come.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("model.device is cuda, but torch finds no GPU it can use")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bf16" if device == "cuda" else "fp32"
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # would leave the resampler 60 dB of its 90
    if threads:
        torch.set_num_threads(threads)
    return Engine(load(path, device=device, dtype=_TYPES[dtype]), batch_seconds=batch_seconds)


class Engine:
    """Runs batches on one device. Not thread-safe: one thread owns it.

    Args:
        model: in evaluation mode, on its device, in its type. The engine fuses it: do not save it afterwards.
        batch_seconds: padded seconds of the largest batch that will come; the warm-up on a GPU tries one.
    """

    def __init__(self, model: EmotionModel, *, batch_seconds: float = 60.0) -> None:
        self.model = model.fuse()
        self._device = next(model.parameters()).device
        self._batch_seconds = batch_seconds

    def warm_up(self) -> None:
        """Run what will be run: kernels are chosen and memory is taken before the first caller speaks.

        Raises:
            Exception: the model does not run here, whatever torch says to it.
        """
        self._run([_SILENCE])
        if self._device.type == "cuda":
            encoding, rate_hz, second = _SILENCE
            self._run([(encoding, rate_hz, second * _LONGEST_S)] * max(1, int(self._batch_seconds / _LONGEST_S)))

    def predict(self, sounds: Sequence[Sound]) -> list[Prediction]:
        """Predict a batch; predictions stand in the order of `sounds`.

        An utterance on which the model fails gets no probabilities and a reason; the others are not affected.

        Raises:
            Exception: the model fails on silence as well, so the fault is its own and no later answer can be trusted.
        """
        started_s = time.perf_counter()
        predictions = [Prediction(None, TOO_SHORT)] * len(sounds)
        fit = [row for row, sound in enumerate(sounds) if self._is_long_enough(sound)]
        for row, prediction in zip(fit, self._isolated([sounds[row] for row in fit]), strict=True):
            predictions[row] = prediction
        inference_ms = (time.perf_counter() - started_s) * 1000
        return [replace(prediction, inference_ms=inference_ms) for prediction in predictions]

    def _is_long_enough(self, sound: Sound) -> bool:
        encoding, rate_hz, data = sound
        return audio.resampled(len(data) // encoding.bytes_per_sample, rate_hz) >= self.model.min_samples

    def _isolated(self, sounds: Sequence[Sound]) -> list[Prediction]:
        """Predict together, or one by one where that fails."""
        if len(sounds) == 1:
            return [self._alone(sounds[0])]
        # Whatever one utterance does to torch must stay with it. The error is dropped, and with it the tensors that it
        # holds, before the second try: that one says which utterance it was.
        with contextlib.suppress(Exception):
            return self._run(sounds) if sounds else []
        return [self._alone(sound) for sound in sounds]

    def _alone(self, sound: Sound) -> Prediction:
        try:
            return self._run([sound])[0]
        except Exception:  # noqa: BLE001 - as above; a fault of the model itself is raised by the silence
            self._run([_SILENCE])
            _log.exception("inference failed on one utterance")
            return Prediction(None, FAILED)

    @torch.inference_mode()
    def _run(self, sounds: Sequence[Sound]) -> list[Prediction]:
        waveforms, lengths = audio.prepare(sounds, self._device)
        return self._finish(self.model(waveforms, lengths))

    def _finish(self, logits: Tensor) -> list[Prediction]:
        """Logits [batch, 4] -> calibrated predictions."""
        calibration = self.model.calibration
        probabilities = (logits / calibration.temperature).softmax(dim=1)
        probabilities[~logits.isfinite().all(dim=1)] = torch.nan
        return [_judged(row, calibration.abstain_below) for row in probabilities.tolist()]


def _judged(probabilities: list[float], abstain_below: float) -> Prediction:
    anger, happiness, neutral, sadness = probabilities
    if math.isnan(anger):
        return Prediction(None, NOT_FINITE)
    reason = LOW_CONFIDENCE if max(probabilities) < abstain_below else None
    return Prediction((anger, happiness, neutral, sadness), reason)
