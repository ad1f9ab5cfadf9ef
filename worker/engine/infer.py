"""The engine: call audio in, calibrated probabilities out. A bad utterance does not affect others in its batch."""

import copy
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from callmood.schemas.common import AbstainReason, Encoding
from callmood.worker.engine import bf16, int8
from callmood.worker.engine.cores import usable_cores
from callmood.worker.engine.packed import PackedModel, can_pack
from callmood.worker.engine.plan import INT8, REFERENCE, Device, Machine, Model, Plan, choose_device, choose_plan
from callmood.worker.errors import ModelError
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

Forward = Callable[[Tensor, Tensor], Tensor]
"""Waveforms and lengths to logits; see `EmotionModel.forward`."""
Collect = Callable[[], list[Prediction]]
"""Waits for a batch that was started."""

_SILENCE: Final = (Encoding.S16LE, audio.RATE_HZ, bytes(2 * audio.RATE_HZ))
_WARM_UP_S: Final = 15  # of each utterance in the warm-up batch of a GPU
_MAX_ROUNDING_ERROR: Final = 0.2  # of a probability; beyond it the products are wrong, not merely imprecise
_NOISES: Final = 4  # sounds at which the rounding error is measured
_SMALL: Final = 10_000_000
"""Weights, below which two cores compute hardly more than one, and wait for each other while other processes run."""
_MOST_SLOTS: Final = 8
"""Batches side by side: each takes memory, and the activations of 15 s of audio are up to 0.3 GB."""
_TORCHS_THREADS: Final = torch.get_num_threads()
"""What torch would take, before `compute_with` has changed that for threads that begin later."""
_log: Final = logging.getLogger(__name__)


def open_engine(settings: "ModelSettings") -> "Engine":
    """Load a model and make the engine for it, not yet warm.

    Raises:
        ConfigurationError: there is no such device, or it cannot compute in the type that is set.
        ModelError: the checkpoint cannot be used, or not in the type that is set.
    """
    machine = Machine(has_gpu=torch.cuda.is_available(), has_int8=int8.is_available())
    device = choose_device(settings, machine)
    threads = _prepare(device, settings)
    model = load(settings.path)
    if not settings.threads and sum(weights.numel() for weights in model.parameters()) < _SMALL:
        threads = 1
        compute_with(threads)
    chosen = choose_plan(settings, machine, _facts(model, settings, device))
    engine = Engine(model, chosen, batch_seconds=settings.batch_seconds, threads=threads)
    error = engine.rounding_error()
    if error < _MAX_ROUNDING_ERROR:
        return engine
    if settings.dtype != "auto":
        raise ModelError(
            f"in {chosen.dtype} this model's probabilities are wrong by up to {error:.2f}: set model.dtype to fp32"
        )
    _log.warning(
        "computing in fp32: the faster type is too imprecise", extra={"dtype": chosen.dtype, "max_error": error}
    )
    return Engine(model, replace(chosen, dtype="fp32"), batch_seconds=settings.batch_seconds, threads=threads)


def _prepare(device: Device, settings: "ModelSettings") -> int:
    """What torch must know before anything is loaded; returns the threads that it may use on the CPU."""
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # would leave the resampler 60 dB of its 90
        torch.cuda.set_per_process_memory_fraction(settings.gpu_memory_share)
    threads = settings.threads or min(_TORCHS_THREADS, usable_cores())
    compute_with(threads)
    return threads


def compute_with(threads: int) -> None:
    """Let what this thread computes take so many cores; threads that have called this before keep their number."""
    torch.get_num_threads()  # the first call in a thread takes the number that another thread has set last
    torch.set_num_threads(threads)


def _facts(model: EmotionModel, settings: "ModelSettings", device: Device) -> Model:
    width = model.encoder.config.hidden_size
    decides = settings.dtype == "auto" and device == "cpu"
    return Model(width, can_pack(model), bf16.speedup(width) if decides else 0.0)


class Engine:
    """Runs batches on one device. On a GPU, one thread owns it; on a CPU, several may start batches.

    Args:
        model: in evaluation mode, in float32. The engine fuses it and moves it: do not save it afterwards.
        plan: how it is computed.
        batch_seconds: padded seconds of the largest batch that will come; the warm-up on a GPU tries one.
        threads: that it may use on a CPU.

    Attributes:
        info: which model it is.
        plan: as given.
        slots: batches that a CPU computes side by side; 0 on a GPU.
        threads: as given.
        batch_seconds: as given, or less: what has been found to fit into memory.
        rechecked: utterances that were computed again so far.
    """

    def __init__(
        self, model: EmotionModel, plan: Plan = REFERENCE, *, batch_seconds: float = 60.0, threads: int = 1
    ) -> None:
        self.info = model.info
        self.plan = plan
        self.slots = 0 if plan.device == "cuda" else threads // -(-threads // _MOST_SLOTS)
        self.threads = threads
        self.batch_seconds = batch_seconds
        self.rechecked = 0
        self._counting = threading.Lock()
        self._calibration = model.calibration
        self._min_samples = model.min_samples
        exact = model.to(plan.device).fuse()
        rounded = copy.deepcopy(exact).to(torch.bfloat16) if "bf16" in plan.dtype else exact
        self._forward: Forward = rounded
        if plan.packed:
            self._forward = PackedModel(rounded, int8=exact if plan.dtype in INT8 else None)
        self._exact: Forward | None = None
        if plan.dtype in INT8 or (plan.dtype == "bf16" and plan.recheck_below > 0):
            self._exact = PackedModel(exact) if plan.packed else exact

    def warm_up(self) -> None:
        """Run a batch of silence: torch chooses kernels and takes memory before the first utterance comes.

        Raises:
            Exception: the model does not run here.
        """
        self._run([_SILENCE])()
        if self._is_on_gpu:
            encoding, rate_hz, second = _SILENCE
            self.predict([(encoding, rate_hz, second * _WARM_UP_S)] * max(1, int(self.batch_seconds / _WARM_UP_S)))

    @torch.inference_mode()
    def rounding_error(self) -> float:
        """The most that a probability of white or brown noise is off; 0 if nothing is to be computed again.

        Any sound shows activations that eight bits cannot hold, and products that come out wrong.
        """
        if self._exact is None:
            return 0.0
        noise = torch.randn(_NOISES, audio.RATE_HZ, generator=torch.Generator().manual_seed(0))
        noise[::2] = noise[::2].cumsum(dim=1)
        waveforms = (noise / noise.abs().amax(dim=1, keepdim=True) / 2).to(self.plan.device)
        lengths = torch.full((_NOISES,), audio.RATE_HZ, device=self.plan.device)
        found, expected = (self._calibrated(forward(waveforms, lengths)) for forward in (self._forward, self._exact))
        return float((found - expected).abs().max())

    @property
    def depth(self) -> int:
        """Batches to have under way: a GPU gets its next one while it runs one."""
        return self.slots or 2

    @property
    def _is_on_gpu(self) -> bool:
        return self.plan.device == "cuda"

    def predict(self, sounds: Sequence[Sound]) -> list[Prediction]:
        """Predict a batch; see `start`."""
        return self.start(sounds)()

    def start(self, sounds: Sequence[Sound], threads: int = 0) -> Collect:
        """Begin a batch. On a GPU this returns while it runs; the result waits, and may do so in another thread.

        `threads`: that it takes on a CPU; 0: as the calling thread has taken before.

        Predictions are in the order of `sounds`. An utterance on which the model fails gets no probabilities and a
        reason; the others are not affected.

        Raises:
            Exception: the model fails on silence as well, so the fault is its own and no later answer can be trusted.
                The result may raise it too: on a GPU some faults show only there.
        """
        started_s = time.perf_counter()
        if threads:
            compute_with(threads)
        fit = [row for row, sound in enumerate(sounds) if self._is_long_enough(sound)]
        collect = self._begin([sounds[row] for row in fit]) if fit else list[Prediction]

        def collect_all() -> list[Prediction]:
            predictions = [Prediction(None, TOO_SHORT)] * len(sounds)
            for row, prediction in zip(fit, collect(), strict=True):
                predictions[row] = prediction
            inference_ms = (time.perf_counter() - started_s) * 1000
            return [replace(prediction, inference_ms=inference_ms) for prediction in predictions]

        return collect_all

    def _is_long_enough(self, sound: Sound) -> bool:
        encoding, rate_hz, data = sound
        return audio.resampled(len(data) // encoding.bytes_per_sample, rate_hz) >= self._min_samples

    def _begin(self, sounds: Sequence[Sound]) -> Collect:
        """Begin together; where that fails, each half by itself, down to the one utterance that is at fault."""
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
        """A prediction that blames the utterance, unless silence fails as well: then the fault is the model's."""
        self._run([_SILENCE])()
        _log.error("inference failed on one utterance", exc_info=error)
        return Prediction(None, OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else FAILED)

    def _remember(self, sounds: Sequence[Sound]) -> None:
        """A batch did not fit: from now on batches must be half as large."""
        longest_s = max(len(data) / (encoding.bytes_per_sample * rate_hz) for encoding, rate_hz, data in sounds)
        self.batch_seconds = min(self.batch_seconds, longest_s * len(sounds) / 2)
        _log.warning(
            "out of memory: batches are smaller from now on",
            extra={"utterances": len(sounds), "batch_seconds": self.batch_seconds},
        )
        if self._is_on_gpu:
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run(self, sounds: Sequence[Sound]) -> Collect:
        """Nothing in here waits for a GPU, unless close calls are computed again."""
        waveforms, lengths = self._prepared(sounds)
        probabilities = self._calibrated(self._forward(waveforms, lengths))
        if self._exact is not None and len(rows := self._close_calls(probabilities)):
            lengths = lengths[rows]
            logits = self._exact(waveforms[rows, : int(lengths.max())], lengths)
            probabilities[rows] = self._calibrated(logits)
            with self._counting:
                self.rechecked += len(rows)
        if not self._is_on_gpu:
            return lambda: self._judged(probabilities)
        here = torch.empty(probabilities.shape, pin_memory=True)
        here.copy_(probabilities, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def collect() -> list[Prediction]:
            arrived.synchronize()
            return self._judged(here)

        return collect

    def _prepared(self, sounds: Sequence[Sound]) -> tuple[Tensor, Tensor]:
        """As `audio.prepare`. For int8 each utterance is resampled alone: rounding would magnify a last bit."""
        if self.plan.dtype not in INT8:
            return audio.prepare(sounds, self.plan.device)
        alone = [audio.prepare([sound], self.plan.device) for sound in sounds]
        waveforms = torch.nn.utils.rnn.pad_sequence([waveform[0] for waveform, _ in alone], batch_first=True)
        return waveforms, torch.cat([length for _, length in alone])

    def _judged(self, probabilities: Tensor) -> list[Prediction]:
        return [_judged(row, self._calibration.abstain_below) for row in probabilities.tolist()]

    def _calibrated(self, logits: Tensor) -> Tensor:
        """Logits [batch, 4] -> probabilities; NaN where a logit is not finite."""
        probabilities = (logits / self._calibration.temperature).softmax(dim=1)
        return probabilities.masked_fill(~logits.isfinite().all(dim=1, keepdim=True), torch.nan)

    def _close_calls(self, probabilities: Tensor) -> Tensor:
        """Rows whose label rounding may have decided: between two emotions, or between one and none."""
        best, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
        below = self.plan.recheck_below
        is_between_two = best - second < below
        is_near_abstention = (best - self._calibration.abstain_below).abs() < below
        return (is_between_two | is_near_abstention).nonzero()[:, 0]


def _judged(probabilities: list[float], abstain_below: float) -> Prediction:
    anger, happiness, neutral, sadness = probabilities
    if math.isnan(anger):
        return Prediction(None, NOT_FINITE)
    reason = LOW_CONFIDENCE if max(probabilities) < abstain_below else None
    return Prediction((anger, happiness, neutral, sadness), reason)
