"""Silero VAD's 8 kHz network, with the weights of its package: the probability of speech for each 32 ms.

Only the weights are used, because the package's own code processes one frame at a time. Here the convolutions process
all frames of an utterance together; only the recurrent layer runs frame by frame. The package has the 8 kHz weights as
TorchScript only, which torch has deprecated, so this module reads the archive directly: a pickle and arrays.
"""

import pickle
import zipfile
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from callmood.worker.errors import ModelError

RATE_HZ: Final = 8_000
FRAME: Final = 256
"""Samples for which there is one probability."""

_PACKAGE: Final = "silero_vad"
_WEIGHTS: Final = "data/silero_vad.jit"
_NETWORK: Final = "_model_8k"
_CONTEXT: Final = 32  # samples of the frame before that each frame begins with
_HOP: Final = 64
_BINS: Final = 65
_WIDTH: Final = 128
_STRIDES: Final = (1, 2, 2, 1)


class Silero(nn.Module):
    """The network. Before an utterance there is silence, and nothing is remembered.

    Args:
        parts: the network's attributes, nested as its modules are.
    """

    def __init__(self, parts: dict[str, Any]) -> None:
        super().__init__()
        self._spectrum: Tensor = parts["stft"]["forward_basis_buffer"]
        layers = [parts["encoder"][str(n)]["reparam_conv"] for n in range(len(_STRIDES))]
        self._layers: list[tuple[Tensor, Tensor]] = [(layer["weight"], layer["bias"]) for layer in layers]
        self._memory = nn.LSTM(_WIDTH, _WIDTH, batch_first=True)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self._memory.load_state_dict({f"{name}_l0": parts["decoder"]["rnn"][name] for name in names})
        last = parts["decoder"]["decoder"]["2"]
        self._last: tuple[Tensor, Tensor] = last["weight"][:, :, 0], last["bias"]
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Probabilities [frames] of a waveform, float32 [samples] at 8 kHz, full scale is 1. Silence fills the last."""
        frames = -(-waveform.numel() // FRAME)
        padded = functional.pad(waveform, (_CONTEXT, frames * FRAME - waveform.numel()))
        framed = padded.unfold(0, _CONTEXT + FRAME, FRAME)[:, None]
        spectrum = functional.conv1d(functional.pad(framed, (0, _CONTEXT), "reflect"), self._spectrum, stride=_HOP)
        found = (spectrum[:, :_BINS] ** 2 + spectrum[:, _BINS:] ** 2).sqrt()
        for (weight, bias), stride in zip(self._layers, _STRIDES, strict=True):
            found = functional.conv1d(found, weight, bias, stride=stride, padding=1).relu()
        remembered, _ = self._memory(found[None, :, :, 0])
        return functional.linear(remembered[0].relu(), *self._last).sigmoid()[:, 0]


def load() -> Silero:
    """The network with the weights of the installed package.

    Raises:
        ModelError: the package is missing, or its weights are not those that this code knows.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the speech check needs the package silero-vad: install it, or set model.speech_check to false"
        )
    path = Path(spec.submodule_search_locations[0]) / _WEIGHTS
    try:
        return Silero(_read(path)[_NETWORK])
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, LookupError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not the weights that the speech check needs: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """The attributes of a TorchScript module, nested, without its code."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            module: dict[str, Any] = _Reader(file, archive, name.removesuffix(".pkl")).load()
    return module


class _Module(dict[str, Any]):
    """A module in the pickle, whatever its class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Its attributes are the items."""
        self.update(state)


class _Reader(pickle.Unpickler):
    """Reads modules, float32 tensors and numbers; anything else that the pickle names is an error."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if module.startswith("__torch__."):
            return _Module
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): np.float32,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch.jit._pickle", "build_intlist"): list,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not expected")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a tensor."""
        _, dtype, key, _, _ = pid
        return torch.from_numpy(np.frombuffer(self._archive.read(f"{self._folder}/{key}"), dtype).copy())


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_unused: object) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()
