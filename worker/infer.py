"""The engine: prepare, run, finish. Call audio in, calibrated probabilities out; a bad utterance harms only itself."""

import logging
import math
import time
import timeit
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from schemas.common import Encoding
from worker import audio
from worker.audio import Sound
from worker.errors import ConfigurationError, ModelError
from worker.model import EmotionModel, load
from worker.packed import PackedModel, can_pack
from worker.records import Prediction

if TYPE_CHECKING:
    from worker.settings import ModelSettings

TOO_SHORT: Final = "too_short"
LOW_CONFIDENCE: Final = "low_confidence"
NOT_FINITE: Final = "not_finite"
FAILED: Final = "inference_failed"
OUT_OF_MEMORY: Final = "out_of_memory"

_SILENCE: Final = (Encoding.S16LE, audio.RATE_HZ, bytes(2 * audio.RATE_HZ))
_LONGEST_S: Final = 15
_LARGE: Final = 512  # of the encoder's width; a smaller model is as fast in float32
_GAIN: Final = 1.3  # less is not worth the rounding
_FRAMES, _TRIES = 256, 7
_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
_log: Final = logging.getLogger(__name__)


def open_engine(settings: "ModelSettings") -> "Engine":
    """Load a model and make the engine for it, not yet warm.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used.
    """
    device, has_gpu = settings.device, torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigurationError("model.device is cuda, but torch finds no GPU it can use")
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # would leave the resampler 60 dB of its 90
        torch.cuda.set_per_process_memory_fraction(settings.gpu_memory_share)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model = load(settings.path)
    dtype = _choose_type(model, device) if settings.dtype == "auto" else _TYPES[settings.dtype]
    is_packed = settings.packed == "on" or (settings.packed == "auto" and device == "cpu" and can_pack(model))
    if is_packed and not can_pack(model):
        raise ModelError("model.packed is on, but packed inference knows no WavLM; say auto")
    return Engine(model.to(device, dtype), batch_seconds=settings.batch_seconds, packed=is_packed)


def _choose_type(model: EmotionModel, device: str) -> torch.dtype:
    """bfloat16 on a GPU, and on a CPU that multiplies it faster, if the model is large enough to gain by it."""
    if device == "cuda":
        return torch.bfloat16
    width = model.encoder.config.hidden_size
    if width < _LARGE or _product_s(torch.float32, width) < _GAIN * _product_s(torch.bfloat16, width):
        return torch.float32
    return torch.bfloat16


def _product_s(dtype: torch.dtype, width: int) -> float:
    """Seconds of a matrix product of the encoder; measured, for a CPU that has the instructions may be slow at them."""
    inputs, weight = torch.ones(_FRAMES, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    return min(timeit.repeat(lambda: torch.nn.functional.linear(inputs, weight), number=1, repeat=_TRIES))


class Engine:
    """Runs batches on one device. Not thread-safe: one thread owns it.

    Args:
        model: in evaluation mode, on its device, in its type. The engine fuses it: do not save it afterwards.
        batch_seconds: padded seconds of the largest batch that will come; the warm-up on a GPU tries one.
        packed: compute without padding. Off, `EmotionModel` itself runs, on padded batches.

    Attributes:
        batch_seconds: as given, or less: what has been found to fit into memory.
        is_packed: as given.
        device: where the model is.
        dtype: of its weights.
    """

    def __init__(self, model: EmotionModel, *, batch_seconds: float = 60.0, packed: bool = False) -> None:
        self.model = model.fuse()
        self.batch_seconds = batch_seconds
        self.is_packed = packed
        self._forward = PackedModel(self.model) if packed else self.model
        self.device, self.dtype = model.encoder.device, model.encoder.dtype

    def warm_up(self) -> None:
        """Run what will be run: kernels are chosen and memory is taken before the first caller speaks.

        Raises:
            Exception: the model does not run here, whatever torch says to it.
        """
        self._run([_SILENCE])
        if self.device.type == "cuda":
            encoding, rate_hz, second = _SILENCE
            self._predict([(encoding, rate_hz, second * _LONGEST_S)] * max(1, int(self.batch_seconds / _LONGEST_S)))

    def predict(self, sounds: Sequence[Sound]) -> list[Prediction]:
        """Predict a batch; predictions stand in the order of `sounds`.

        An utterance on which the model fails gets no probabilities and a reason; the others are not affected.

        Raises:
            Exception: the model fails on silence as well, so the fault is its own and no later answer can be trusted.
        """
        started_s = time.perf_counter()
        predictions = [Prediction(None, TOO_SHORT)] * len(sounds)
        fit = [row for row, sound in enumerate(sounds) if self._is_long_enough(sound)]
        for row, prediction in zip(fit, self._predict([sounds[row] for row in fit]), strict=True):
            predictions[row] = prediction
        inference_ms = (time.perf_counter() - started_s) * 1000
        return [replace(prediction, inference_ms=inference_ms) for prediction in predictions]

    def _is_long_enough(self, sound: Sound) -> bool:
        encoding, rate_hz, data = sound
        return audio.resampled(len(data) // encoding.bytes_per_sample, rate_hz) >= self.model.min_samples

    def _predict(self, sounds: Sequence[Sound]) -> list[Prediction]:
        """Predict together; where that fails, each half by itself, down to the one utterance that is to blame."""
        if not sounds:
            return []
        try:
            return self._run(sounds)
        except Exception as error:  # noqa: BLE001 - whatever one utterance does to torch must stay with it
            is_too_large = isinstance(error, torch.OutOfMemoryError)
            if len(sounds) == 1:
                return [self._blame(error)]
        # Here the error is gone, and with it the tensors that it held.
        if is_too_large:
            self._remember(sounds)
        middle = len(sounds) // 2
        return self._predict(sounds[:middle]) + self._predict(sounds[middle:])

    def _blame(self, error: Exception) -> Prediction:
        """The utterance, unless silence fails as well: then the fault is the model's, and is raised."""
        self._run([_SILENCE])
        _log.error("inference failed on one utterance", exc_info=error)
        return Prediction(None, OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else FAILED)

    def _remember(self, sounds: Sequence[Sound]) -> None:
        """A batch did not fit: from now on batches are to be half as large."""
        longest_s = max(len(data) / (encoding.bytes_per_sample * rate_hz) for encoding, rate_hz, data in sounds)
        self.batch_seconds = min(self.batch_seconds, longest_s * len(sounds) / 2)
        _log.warning("out of memory with %d utterances; at most %.1f s a batch now", len(sounds), self.batch_seconds)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run(self, sounds: Sequence[Sound]) -> list[Prediction]:
        waveforms, lengths = audio.prepare(sounds, self.device)
        return self._finish(self._forward(waveforms, lengths))

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
