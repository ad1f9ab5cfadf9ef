"""The engine: prepare, run, finish. Call audio in, calibrated probabilities out; a bad utterance harms only itself."""

import copy
import functools
import logging
import math
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor

from callmood.schemas.common import AbstainReason, Encoding
from callmood.worker.engine import int8
from callmood.worker.engine.packed import PackedModel, can_pack
from callmood.worker.errors import ConfigurationError, ModelError
from callmood.worker.model import audio
from callmood.worker.model.audio import Sound
from callmood.worker.model.model import EmotionModel, load
from callmood.worker.records import Prediction

if TYPE_CHECKING:
    from callmood.worker.settings import ModelSettings

TOO_SHORT: Final = AbstainReason.TOO_SHORT
LOW_CONFIDENCE: Final = AbstainReason.LOW_CONFIDENCE
NOT_FINITE: Final = AbstainReason.NOT_FINITE
FAILED: Final = AbstainReason.INFERENCE_FAILED
OUT_OF_MEMORY: Final = AbstainReason.OUT_OF_MEMORY

DType = Literal["fp32", "bf16", "int8", "int8+bf16"]
INT8: Final = ("int8", "int8+bf16")
Forward = Callable[[Tensor, Tensor], Tensor]
"""Waveforms and lengths to logits; see `EmotionModel.forward`."""
Collect = Callable[[], list[Prediction]]
"""Waits for a batch that was started."""

_SILENCE: Final = (Encoding.S16LE, audio.RATE_HZ, bytes(2 * audio.RATE_HZ))
_LONGEST_S: Final = 15
_LARGE: Final = 512  # of the encoder's width; a smaller model is as fast in float32
_GAIN: Final = 1.3  # less is not worth the rounding
_FRAMES, _TRIES = 256, 7
CLOSE: Final = 0.03  # twice what bfloat16 and int8 change of a probability at most
_TOO_FAR: Final = 0.2  # rounding that changes a probability by as much is none
_TRIAL: Final = 4  # sounds at which that is measured
_log: Final = logging.getLogger(__name__)


def open_engine(settings: "ModelSettings") -> "Engine":
    """Load a model and make the engine for it, not yet warm.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used, or not in the type that it is told to be computed in.
    """
    device = _open_device(settings)
    if settings.dtype in INT8 and not (device == "cpu" and int8.is_available()):
        raise ConfigurationError(f"model.dtype is {settings.dtype}, for which torch needs oneDNN and a CPU with VNNI")
    model = load(settings.path)
    dtype = _choose_type(model, device) if settings.dtype == "auto" else settings.dtype
    is_packed = settings.packed == "on" or (settings.packed == "auto" and device == "cpu" and can_pack(model))
    if is_packed and not can_pack(model):
        raise ModelError("model.packed is on, but packed inference knows no WavLM; say auto")
    if dtype in INT8 and not is_packed:
        raise ModelError("model.dtype is int8, which runs packed: model.packed must not be off, and the model no WavLM")
    recheck_below = settings.recheck_below
    if recheck_below is None:
        recheck_below = 0.0 if device == "cuda" else CLOSE
    made = functools.partial(
        Engine, model.to(device), packed=is_packed, recheck_below=recheck_below, batch_seconds=settings.batch_seconds
    )
    engine = made(dtype=dtype)
    off = engine.rounding_error()
    if off < _TOO_FAR:
        return engine
    if settings.dtype != "auto":
        raise ModelError(f"in {dtype} this model's probabilities are off by {off:.2f}; set model.dtype to fp32")
    _log.warning("computed in fp32: in %s probabilities are off by %.2f", dtype, off)
    return made(dtype="fp32")


def _open_device(settings: "ModelSettings") -> str:
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
    return device


def _choose_type(model: EmotionModel, device: str) -> DType:
    """bfloat16 on a GPU, and on a CPU that multiplies it faster, if the model is large enough to gain by it."""
    if device == "cuda":
        return "bf16"
    width = model.encoder.config.hidden_size
    if width < _LARGE or _product_s(torch.float32, width) < _GAIN * _product_s(torch.bfloat16, width):
        return "fp32"
    return "bf16"


def _product_s(dtype: torch.dtype, width: int) -> float:
    """Seconds of a matrix product of the encoder; measured, for a CPU that has the instructions may be slow at them."""
    inputs, weight = torch.ones(_FRAMES, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    return min(timeit.repeat(lambda: torch.nn.functional.linear(inputs, weight), number=1, repeat=_TRIES))


class Engine:
    """Runs batches on one device. Not thread-safe: one thread owns it.

    Args:
        model: in evaluation mode, on its device, in float32. The engine fuses it: do not save it afterwards.
        dtype: what most of it is computed in. int8 is for the transformer layers, the rest is in float32 or, after a
            plus, in bfloat16; it needs a CPU and `packed`.
        packed: compute without padding. Off, `EmotionModel` itself runs, on padded batches.
        recheck_below: utterances whose two most probable emotions are closer than this are computed again in float32,
            if `dtype` is another. 0 for none.
        batch_seconds: padded seconds of the largest batch that will come; the warm-up on a GPU tries one.

    Attributes:
        model: what says which model it is.
        dtype, is_packed: as given.
        batch_seconds: as given, or less: what has been found to fit into memory.
        device: where the model is.
        rechecked: utterances that were computed again so far.
    """

    def __init__(
        self,
        model: EmotionModel,
        *,
        dtype: DType = "fp32",
        packed: bool = False,
        recheck_below: float = 0.0,
        batch_seconds: float = 60.0,
    ) -> None:
        self.model = model.fuse()
        self.dtype, self.is_packed, self.batch_seconds = dtype, packed, batch_seconds
        self.device = model.encoder.device
        self.rechecked = 0
        self._recheck_below = recheck_below
        self._exact: Forward | None = None
        if dtype in INT8 or (dtype == "bf16" and recheck_below > 0):
            self._exact = PackedModel(self.model) if packed else self.model
        computed = copy.deepcopy(self.model).to(torch.bfloat16) if "bf16" in dtype else self.model
        in_int8 = self.model if dtype in INT8 else None
        self._forward: Forward = PackedModel(computed, int8=in_int8) if packed else computed
        if self._exact is None:
            self.model = computed  # the float32 weights, if these are others, are not needed

    def warm_up(self) -> None:
        """Run what will be run: kernels are chosen and memory is taken before the first caller speaks.

        Raises:
            Exception: the model does not run here, whatever torch says to it.
        """
        self._run([_SILENCE])()
        if self.device.type == "cuda":
            encoding, rate_hz, second = _SILENCE
            self.predict([(encoding, rate_hz, second * _LONGEST_S)] * max(1, int(self.batch_seconds / _LONGEST_S)))

    @torch.inference_mode()
    def rounding_error(self) -> float:
        """Most that a probability of white or brown noise is off; 0 if nothing is to be computed again.

        Activations that eight bits cannot hold show in any sound, and so do products that come out wrong.
        """
        if self._exact is None:
            return 0.0
        noise = torch.randn(_TRIAL, audio.RATE_HZ, generator=torch.Generator().manual_seed(0))
        noise[::2] = noise[::2].cumsum(dim=1)
        waveforms = (noise / noise.abs().amax(dim=1, keepdim=True) / 2).to(self.device)
        lengths = torch.full((_TRIAL,), audio.RATE_HZ, device=self.device)
        found, expected = (self._calibrated(forward(waveforms, lengths)) for forward in (self._forward, self._exact))
        return float((found - expected).abs().max())

    @property
    def depth(self) -> int:
        """Batches to have under way: a GPU gets its next one while it runs, a CPU has nothing to run it with."""
        return 2 if self.device.type == "cuda" else 1

    def predict(self, sounds: Sequence[Sound]) -> list[Prediction]:
        """Predict a batch; see `start`."""
        return self.start(sounds)()

    def start(self, sounds: Sequence[Sound]) -> Collect:
        """Begin a batch. On a GPU this returns while it runs; what it returns waits, and may do so in another thread.

        Predictions stand in the order of `sounds`. An utterance on which the model fails gets no probabilities and a
        reason; the others are not affected.

        Raises:
            Exception: the model fails on silence as well, so the fault is its own and no later answer can be trusted.
                What is returned may raise it too: on a GPU some faults show only there.
        """
        started_s = time.perf_counter()
        fit = [row for row, sound in enumerate(sounds) if self._is_long_enough(sound)]
        collect = self._begin([sounds[row] for row in fit]) if fit else list[Prediction]

        def all_of_them() -> list[Prediction]:
            predictions = [Prediction(None, TOO_SHORT)] * len(sounds)
            for row, prediction in zip(fit, collect(), strict=True):
                predictions[row] = prediction
            inference_ms = (time.perf_counter() - started_s) * 1000
            return [replace(prediction, inference_ms=inference_ms) for prediction in predictions]

        return all_of_them

    def _is_long_enough(self, sound: Sound) -> bool:
        encoding, rate_hz, data = sound
        return audio.resampled(len(data) // encoding.bytes_per_sample, rate_hz) >= self.model.min_samples

    def _begin(self, sounds: Sequence[Sound]) -> Collect:
        """Begin together; where that fails, each half by itself, down to the one utterance that is to blame."""
        try:
            return self._run(sounds)
        except Exception as error:  # noqa: BLE001 - whatever one utterance does to torch must stay with it
            is_too_large = isinstance(error, torch.OutOfMemoryError)
            if len(sounds) == 1:
                blamed = [self._blame(error)]
                return lambda: blamed
        # Here the error is gone, and with it the tensors that it held.
        if is_too_large:
            self._remember(sounds)
        middle = len(sounds) // 2
        first, second = self._begin(sounds[:middle]), self._begin(sounds[middle:])
        return lambda: first() + second()

    def _blame(self, error: Exception) -> Prediction:
        """The utterance, unless silence fails as well: then the fault is the model's, and is raised."""
        self._run([_SILENCE])()
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
    def _run(self, sounds: Sequence[Sound]) -> Collect:
        """Nothing in here waits for a GPU, unless close calls are computed again."""
        waveforms, lengths = audio.prepare(sounds, self.device)
        probabilities = self._calibrated(self._forward(waveforms, lengths))
        if self._exact is not None and len(rows := self._close_calls(probabilities)):
            lengths = lengths[rows]
            logits = self._exact(waveforms[rows, : int(lengths.max())], lengths)
            probabilities[rows] = self._calibrated(logits)
            self.rechecked += len(rows)
        if self.device.type != "cuda":
            return lambda: self._judged(probabilities)
        here = torch.empty(probabilities.shape, pin_memory=True)
        here.copy_(probabilities, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def collect() -> list[Prediction]:
            arrived.synchronize()
            return self._judged(here)

        return collect

    def _judged(self, probabilities: Tensor) -> list[Prediction]:
        return [_judged(row, self.model.calibration.abstain_below) for row in probabilities.tolist()]

    def _calibrated(self, logits: Tensor) -> Tensor:
        """Logits [batch, 4] -> probabilities; NaN where a logit is not finite."""
        probabilities = (logits / self.model.calibration.temperature).softmax(dim=1)
        return probabilities.masked_fill(~logits.isfinite().all(dim=1, keepdim=True), torch.nan)

    def _close_calls(self, probabilities: Tensor) -> Tensor:
        """Rows whose label rounding may have decided: between two emotions, or between one and none."""
        best, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
        of_two = best - second < self._recheck_below
        of_none = (best - self.model.calibration.abstain_below).abs() < self._recheck_below
        return (of_two | of_none).nonzero()[:, 0]


def _judged(probabilities: list[float], abstain_below: float) -> Prediction:
    anger, happiness, neutral, sadness = probabilities
    if math.isnan(anger):
        return Prediction(None, NOT_FINITE)
    reason = LOW_CONFIDENCE if max(probabilities) < abstain_below else None
    return Prediction((anger, happiness, neutral, sadness), reason)
