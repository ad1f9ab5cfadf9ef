"""Other engines in the benchmark: they run the classifier that torch runs, and are left out if not installed."""

import re
import sys

import numpy as np
import pytest
import torch
from tiny import SIZE

from callmood.__main__ import main
from callmood.bench import engine, other_engines
from callmood.bench.engine import build
from callmood.bench.other_engines import Exported, Other, open_all
from callmood.bench.synthetic import speak
from callmood.worker.engine.infer import Engine
from callmood.worker.model import audio

TINY = SIZE | {"classifier_proj_size": 16, "use_weighted_layer_sum": True, "num_labels": 4}
LIBRARIES = ("nncf", "onnx", "onnxruntime", "openvino")


@pytest.fixture(autouse=True)
def _small_shape(monkeypatch):
    monkeypatch.setitem(engine.SHAPES, "base", TINY)
    monkeypatch.setattr(engine, "BATCH_SIZES", (1,))
    monkeypatch.setattr(other_engines, "CALIBRATION", 4)
    monkeypatch.setitem(engine.PEAK_SIZES, "cpu", 256)
    engine.matrix_peak.cache_clear()


@pytest.fixture
def sounds():
    return [speak(0.5, seed) for seed in range(20)]


@pytest.fixture
def only(monkeypatch):
    """Leaves these libraries installed; skips the test if one of them is not."""

    def keep(*libraries):
        for library in libraries:
            pytest.importorskip(library)
        for library in set(LIBRARIES) - set(libraries):
            monkeypatch.setitem(sys.modules, library, None)

    return keep


def _differences(others, reference, lengths_s):
    """The largest difference from the logits of torch, by engine."""
    with torch.no_grad():
        waveforms = [audio.prepare([speak(length, 99)])[0] for length in lengths_s]
        expected = [reference(waveform).logits[0].numpy() for waveform in waveforms]
    return {
        other.name: max(
            float(np.abs(other.logits(waveform.numpy()) - logits).max())
            for waveform, logits in zip(waveforms, expected, strict=True)
        )
        for other in others
    }


def test_what_is_exported_gives_the_classes_of_the_engine(sounds):
    """Its softmax is the engine's probabilities, in the same order."""
    reference, model = build("base", sounds)
    with torch.no_grad():
        logits = Exported(reference)(audio.prepare(sounds[:1])[0])[0]
    np.testing.assert_allclose(
        logits.softmax(dim=0), Engine(model).predict(sounds[:1])[0].probabilities, atol=1e-4, rtol=0
    )


def test_onnx_runtime_gives_the_logits_of_torch_at_every_length(sounds, only):
    """The length of the exported example is not built in; int8 is near float32, but not float32."""
    only("onnx", "onnxruntime")
    reference, _ = build("base", sounds)
    off = _differences(open_all(reference, sounds, [].append), reference, (0.1, 0.7, 2.0))
    assert list(off) == ["ONNX Runtime, fp32", "ONNX Runtime, int8"]
    assert off["ONNX Runtime, fp32"] < 1e-3 < off["ONNX Runtime, int8"] < 2


def test_openvino_gives_the_logits_of_torch_at_every_length(sounds, only):
    """The length of the example is not built in; each row names the type that was really used."""
    only("openvino", "nncf")
    reference, _ = build("base", sounds)
    off = _differences(open_all(reference, sounds, [].append), reference, (0.1, 0.7, 2.0))
    assert re.fullmatch(r"OpenVINO, fp32(, OpenVINO, (bf16|fp16))?, OpenVINO, int8(\+bf16|\+fp16)?", ", ".join(off))
    assert off["OpenVINO, fp32"] < 1e-3 < list(off.values())[-1]


def test_engines_that_are_not_installed_are_left_out_with_a_line(sounds, only):
    """The line names the libraries and the extra that brings them."""
    only()
    reference, _ = build("base", sounds)
    lines = []
    assert list(open_all(reference, sounds, lines.append)) == []
    assert lines == [
        "ONNX Runtime is left out; it needs onnx and onnxruntime: pip install 'callmood[bench]'",
        "OpenVINO is left out; it needs openvino: pip install 'callmood[bench]'",
    ]


def test_openvino_without_nncf_has_no_row_in_int8(sounds, only):
    """The other rows of OpenVINO are there, and a line names what is missing."""
    only("openvino")
    reference, _ = build("base", sounds)
    lines = []
    names = [other.name for other in open_all(reference, sounds, lines.append)]
    assert names[0] == "OpenVINO, fp32"
    assert not any("int8" in name for name in names)
    assert lines[-1] == "OpenVINO in int8 is left out; it needs nncf: pip install 'callmood[bench]'"


def test_an_engine_with_other_logits_is_not_measured(sounds):
    """What computes something else than the classifier ends the command."""
    reference, _ = build("base", sounds)
    samples = audio.prepare(sounds[:1])[0].numpy()
    wrong = Other("wrong", lambda _: np.zeros(4, np.float32))
    with pytest.raises(RuntimeError, match="wrong: logits of 2000 samples differ"):
        other_engines._checked(wrong, Exported(reference), samples)


@pytest.mark.parametrize(("sign", "share"), [(1, r"100\.00%"), (-1, r"0\.00%")])
def test_the_table_has_the_rate_and_the_labels_of_another_engine(monkeypatch, capsys, sign, share):
    """Labels are compared with those of float32, each with that of the same utterance."""

    def torch_itself(reference, *_):
        exported = Exported(reference).eval()
        yield Other("torch", lambda samples: sign * exported(torch.from_numpy(samples))[0].numpy())

    monkeypatch.setattr(other_engines, "open_all", torch_itself)
    assert main(["bench", "engine", "--utterances", "4", "--agreement", "12"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"torch +\d.* s/s +\d.* x\n12 labels, {share} as in fp32\n", printed), printed
