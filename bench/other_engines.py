"""ONNX Runtime and OpenVINO on a CPU, beside the engine: the same classifier, as many threads, one utterance at a time.

They come with the optional extra `bench`. Each is used in the way that was fastest here: ONNX Runtime gets the graph of
torch's older exporter, OpenVINO converts the module itself, which keeps attention in one operation.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from callmood.worker.model import audio
from callmood.worker.model.audio import Sound

Samples = NDArray[np.float32]
Logits = Callable[[Samples], NDArray[np.float32]]
"""From samples at 16 kHz [1, samples] to logits [classes]."""

TOLERANCE: Final = 1e-3
"""By which logits may differ from torch's; those of the benchmark's head are whole units apart."""
CALIBRATION: Final = 32
"""Utterances from which OpenVINO's int8 learns the range of activations."""
_OPSET: Final = 20  # the first with GELU


class Other(NamedTuple):
    """A classifier that another engine runs."""

    name: str
    logits: Logits


class Exported(nn.Module):
    """What is exported: the classifier, from samples to logits.

    Args:
        reference: a classifier of transformers; its parametrised weights become plain ones.
    """

    def __init__(self, reference: Any) -> None:
        super().__init__()
        for module in reference.modules():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
        self._reference = reference

    def forward(self, samples: Tensor) -> Tensor:
        """From [1, samples] at 16 kHz to [1, classes]."""
        logits: Tensor = self._reference(samples).logits
        return logits


def open_all(reference: Any, sounds: Sequence[Sound], say: Callable[[str], None]) -> Iterator[Other]:
    """The classifier in each engine that is installed, one after the other.

    Args:
        reference: as in `Exported`, on the CPU.
        sounds: utterances to calibrate on; the first `CALIBRATION` are used.
        say: gets a line for each engine that is not installed.

    Raises:
        RuntimeError: in float32, logits of an engine are not those of torch.
    """
    module = Exported(reference).eval()
    calibration = [audio.prepare([sound])[0].numpy() for sound in sounds[:CALIBRATION]]
    if _installed("ONNX Runtime", ("onnx", "onnxruntime"), say):
        yield from _onnx_runtime(module, calibration)
    if _installed("OpenVINO", ("openvino",), say):
        yield from _openvino(module, calibration, int8=_installed("OpenVINO in int8", ("nncf",), say))


def _installed(engine: str, libraries: Sequence[str], say: Callable[[str], None]) -> bool:
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    if missing:
        say(f"{engine} is left out; it needs {' and '.join(missing)}: pip install 'callmood[bench]'")
    return not missing


def _onnx_runtime(module: Exported, calibration: Sequence[Samples]) -> Iterator[Other]:
    """In float32, and with the weights of matrix products in int8, a scale per column; activations while it runs."""
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        with _quiet():
            torch.onnx.export(
                module,
                (torch.from_numpy(calibration[0]),),
                plain,
                dynamo=False,  # the newer graph is slower in int8, and its exporter needs more packages
                input_names=["samples"],
                dynamic_axes={"samples": {1: "length"}},
                opset_version=_OPSET,
            )
        yield _checked(Other("ONNX Runtime, fp32", _session(plain)), module, calibration[0])
        quantization = importlib.import_module("onnxruntime.quantization")
        with _quiet():
            quantization.quantize_dynamic(
                plain, quantised, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True
            )  # with the convolutions in int8, it is slower than in float32, and off by whole units
        yield Other("ONNX Runtime, int8", _session(quantised))


def _session(path: Path) -> Logits:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def logits(samples: Samples) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {entry.name: samples})[0][0]
        return found

    return logits


def _openvino(module: Exported, calibration: Sequence[Samples], *, int8: bool) -> Iterator[Other]:
    """In float32, in the type that OpenVINO chooses for this CPU if it is another one, and with products in int8.

    int8 leaves the convolutions as they are, and does not use NNCF's scheme for transformers: it loses most labels.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report each use to its makers
    with _quiet():
        openvino = importlib.import_module("openvino")
        example = torch.from_numpy(calibration[0])
        model = openvino.convert_model(module, example_input=example, input=[1, -1])
    plain, _ = _compiled(openvino, model, {"INFERENCE_PRECISION_HINT": "f32"})
    yield _checked(Other("OpenVINO, fp32", plain), module, calibration[0])
    plain, chosen = _compiled(openvino, model, {})
    if chosen != "fp32":
        yield Other(f"OpenVINO, {chosen}", plain)
    if not int8:
        return
    with _quiet():
        nncf = importlib.import_module("nncf")
        nncf.set_log_level(logging.ERROR)
        quantised = nncf.quantize(
            model,
            nncf.Dataset(calibration),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=["Convolution", "GroupConvolution"]),
        )
    rest, chosen = _compiled(openvino, quantised, {})
    yield Other("OpenVINO, int8" if chosen == "fp32" else f"OpenVINO, int8+{chosen}", rest)


def _compiled(openvino: Any, model: Any, properties: dict[str, Any]) -> tuple[Logits, str]:
    """The model on this CPU, and the type of what is not in int8."""
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(model, "CPU", properties | threads)
    request = compiled.create_infer_request()
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def logits(samples: Samples) -> NDArray[np.float32]:
        found: NDArray[np.float32] = request.infer([samples])[0][0]
        return found.copy()

    return logits, {"f32": "fp32", "f16": "fp16"}.get(chosen, chosen)


def _checked(other: Other, module: Exported, samples: Samples) -> Other:
    """The same, if its logits at three lengths are those of torch.

    Raises:
        RuntimeError: they are not.
    """
    for length in (samples.shape[1] // 4, samples.shape[1] // 2, samples.shape[1]):
        cut = np.ascontiguousarray(samples[:, :length])
        with torch.no_grad():
            off = float(np.abs(other.logits(cut) - module(torch.from_numpy(cut))[0].numpy()).max())
        if not off <= TOLERANCE:
            raise RuntimeError(f"{other.name}: logits of {length} samples differ from torch's by {off:.4f}")
    return other


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and advice of libraries, which are no part of the table."""
    level, verbosity = logging.root.level, transformers.logging.get_verbosity()
    logging.root.setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.setLevel(level)
        transformers.logging.set_verbosity(verbosity)
