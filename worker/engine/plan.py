"""How the engine computes: device, type, packing and rechecks, chosen from the settings and from facts. Pure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from callmood.worker.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from callmood.worker.settings import ModelSettings

Device = Literal["cpu", "cuda"]
DType = Literal["fp32", "bf16", "int8", "int8+bf16"]
INT8: Final[tuple[DType, ...]] = ("int8", "int8+bf16")
RECHECK_BELOW: Final = 0.03
"""The default on a CPU: the most that bfloat16 and int8 changed a probability of a base model, in 2,000 utterances."""

_MIN_WIDTH_FOR_BF16: Final = 512  # a smaller encoder is as fast in float32
_MIN_SPEEDUP_FOR_BF16: Final = 1.3  # less is not worth the rounding


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine offers.

    Attributes:
        has_gpu: torch finds a GPU that it can use.
        has_int8: matrix products in int8 come out right on the CPU.
    """

    has_gpu: bool
    has_int8: bool


@dataclass(frozen=True, slots=True)
class Model:
    """What the loaded model offers.

    Attributes:
        width: of the encoder's hidden states.
        can_pack: packed inference supports its encoder and its head.
        bf16_speedup: how many times faster its products are in bfloat16 than in float32; 0.0 where it was not measured.
    """

    width: int
    can_pack: bool
    bf16_speedup: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How the engine computes.

    Attributes:
        device: as torch names it.
        dtype: type of most products. int8 covers the transformer layers; the rest is in float32 or, after a plus, in
            bfloat16. It needs a CPU and `packed`.
        packed: compute without padding. Otherwise `EmotionModel` itself runs, on padded batches.
        recheck_below: utterances whose two most probable emotions are closer than this are computed again in float32,
            if `dtype` is another type. 0 for none.
    """

    device: str = "cpu"
    dtype: DType = "fp32"
    packed: bool = False
    recheck_below: float = 0.0


REFERENCE: Final = Plan()
"""Padded batches in float32 on a CPU: the numbers that every other plan is compared with."""


def choose_device(settings: "ModelSettings", machine: Machine) -> Device:
    """The device, chosen before the model is loaded.

    Raises:
        ConfigurationError: there is no such device, or it cannot compute in the type that is set.
    """
    if settings.device == "cuda" and not machine.has_gpu:
        raise ConfigurationError("model.device is cuda, but torch finds no GPU it can use: set auto or cpu")
    device: Device = "cuda" if settings.device != "cpu" and machine.has_gpu else "cpu"
    if settings.dtype in INT8 and device == "cuda":
        raise ConfigurationError(
            f"model.dtype is {settings.dtype}, which a GPU cannot compute: set model.device to cpu"
        )
    if settings.dtype in INT8 and not machine.has_int8:
        raise ConfigurationError(
            f"model.dtype is {settings.dtype}, which needs oneDNN and a CPU with VNNI: set auto, fp32 or bf16"
        )
    return device


def choose_plan(settings: "ModelSettings", machine: Machine, model: Model) -> Plan:
    """The plan that the settings ask for; `auto` takes what is fastest with the same labels.

    Raises:
        ConfigurationError: as `choose_device`.
        ModelError: the model cannot be computed as it is set.
    """
    device = choose_device(settings, machine)
    if settings.packed == "on" and not model.can_pack:
        raise ModelError("model.packed is on, but packed inference does not support this model: set auto")
    packed = settings.packed == "on" or (settings.packed == "auto" and device == "cpu" and model.can_pack)
    if settings.dtype in INT8 and not model.can_pack:
        raise ModelError(f"model.dtype is {settings.dtype}, but this model cannot be packed: set auto, fp32 or bf16")
    if settings.dtype in INT8 and not packed:
        raise ModelError(f"model.dtype is {settings.dtype}, but model.packed is off: set it to auto")
    recheck_below = settings.recheck_below
    if recheck_below is None:
        recheck_below = 0.0 if device == "cuda" else RECHECK_BELOW
    return Plan(device, _dtype(settings, device, model), packed, recheck_below)


def _dtype(settings: "ModelSettings", device: Device, model: Model) -> DType:
    """bfloat16 on a GPU, and for a large model on a CPU that multiplies it faster."""
    if settings.dtype != "auto":
        return settings.dtype
    gains = model.width >= _MIN_WIDTH_FOR_BF16 and model.bf16_speedup >= _MIN_SPEEDUP_FOR_BF16
    return "bf16" if device == "cuda" or gains else "fp32"
