"""The engine in types that round: what is in doubt is computed again, and what cannot be rounded is refused."""

import wave

import numpy as np
import pytest
import torch
from cpu import dtypes, needs_bf16, needs_int8
from tiny import BASE, LARGE, SIZE

from callmood.schemas.common import Encoding
from callmood.worker.engine import bf16
from callmood.worker.engine.bf16 import Bf16Linear
from callmood.worker.engine.infer import NOT_FINITE, Engine, open_engine
from callmood.worker.engine.packed import PackedModel
from callmood.worker.engine.plan import RECHECK_BELOW, Plan
from callmood.worker.errors import ModelError
from callmood.worker.model.checkpoints import Calibration
from callmood.worker.model.model import EmotionModel, Release, save_bundle
from callmood.worker.settings import ModelSettings


def sound(samples, seed=0):
    values = np.random.default_rng(seed).normal(size=samples) * 1_000
    return Encoding.S16LE, 16_000, values.astype("<i2").tobytes()


@pytest.fixture(params=[BASE, LARGE], ids=["base", "large"])
def model(request):
    torch.manual_seed(0)
    model = EmotionModel.new({"model_type": "hubert"} | SIZE | request.param).eval()
    with torch.no_grad():
        model.head.linear.weight.mul_(5)
    return model


def rounded(model, dtype, recheck_below):
    """An engine whose results tell the types apart: the reduced model's logits are all far from its own."""
    engine = Engine(model, Plan(dtype=dtype, packed=True, recheck_below=recheck_below))
    forward, shift = engine._forward, torch.tensor([0.03, 0.01, -0.01, -0.03])
    engine._forward = lambda waveforms, lengths: forward(waveforms, lengths) + shift
    return engine


@pytest.mark.parametrize("dtype", dtypes("bf16", "int8", "int8+bf16"))
def test_close_calls_are_computed_again_in_float32(model, dtype):
    """Utterances whose two best emotions are near each other get float32's probabilities, the others keep theirs."""
    sounds = [sound(5_000 + 500 * seed, seed) for seed in range(12)]
    exact = Engine(model).predict(sounds)
    fast = rounded(model, dtype, 0.0).predict(sounds)
    margins = [np.ptp(sorted(prediction.probabilities)[2:]) for prediction in fast]
    below = float(np.median(margins))
    engine = rounded(model, dtype, below)
    found = engine.predict(sounds)
    assert engine.rechecked == sum(margin < below for margin in margins) == 6
    for margin, one, quick, sure in zip(margins, found, fast, exact, strict=True):
        expected = sure if margin < below else quick
        assert one.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert quick.probabilities != pytest.approx(sure.probabilities, abs=1e-4)


@pytest.mark.parametrize("has_products", [pytest.param(True, marks=needs_bf16), False])
def test_bfloat16_works_without_such_products(model, monkeypatch, has_products):
    """A worker that is set to bfloat16 computes in it on any CPU, by torch's own products if need be."""
    monkeypatch.setattr(bf16, "is_available", lambda: has_products)
    laid_out, call = [], Bf16Linear.__call__
    monkeypatch.setattr(Bf16Linear, "__call__", lambda self, inputs: laid_out.append(self) or call(self, inputs))
    sounds = [sound(5_000 + 500 * seed, seed) for seed in range(4)]
    exact, found = (Engine(model, Plan(dtype=dtype, packed=True)).predict(sounds) for dtype in ("fp32", "bf16"))
    assert bool(laid_out) == has_products
    for one, sure in zip(found, exact, strict=True):
        assert one.probabilities == pytest.approx(sure.probabilities, abs=RECHECK_BELOW)


def test_abstention_is_a_close_call_too(model):
    """Near the threshold under which the model abstains, float32 decides as well."""
    [(best, *_)] = [sorted(rounded(model, "bf16", 0.0).predict([sound(8_000)])[0].probabilities, reverse=True)]
    for abstain_below, rechecked in ((best + 0.009, 1), (best - 0.009, 1), (best - 0.011, 0)):
        model.calibration = Calibration(abstain_below=abstain_below)
        engine = rounded(model, "bf16", 0.01)
        engine.predict([sound(8_000)])
        assert engine.rechecked == rechecked


def test_a_model_in_float32_has_no_close_calls(model):
    """Where nothing was rounded, nothing is computed twice."""
    engine = Engine(model, Plan(packed=True, recheck_below=1.0))
    engine.predict([sound(8_000)])
    assert engine.rechecked == 0


@needs_int8
def test_int8_harms_only_what_is_not_finite(model):
    """An utterance that overflows has no probabilities; its neighbours have those that they have without it."""
    engine = Engine(model, Plan(dtype="int8", packed=True, recheck_below=0.03))
    [expected, _] = engine.predict([sound(8_000), sound(7_000)])
    convolution = engine._forward._front_end[-1]
    call = type(convolution).__call__

    def overflow(features, valid):
        found, valid = call(convolution, features, valid)
        return found.masked_fill(torch.tensor(len(features) < 40), torch.inf), valid

    engine._forward._front_end[-1] = overflow
    found = engine.predict([sound(8_000), sound(5_000)])
    assert found[0].probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert found[1].reason == NOT_FINITE


@needs_int8
def test_after_the_plus_the_front_end_is_rounded_too(model):
    """In int8+bf16 probabilities are none of int8's, and no farther from float32's than rounding goes."""
    [sure], [whole], [rounded] = (
        Engine(model, Plan(dtype=dtype, packed=True)).predict([sound(8_000)]) for dtype in ("fp32", "int8", "int8+bf16")
    )
    assert rounded.probabilities != whole.probabilities
    assert rounded.probabilities == pytest.approx(sure.probabilities, abs=RECHECK_BELOW)


@pytest.fixture
def unroundable(model, tmp_path):
    """One activation is a million times the others, which leaves int8 no digits for the rest."""
    with torch.no_grad():
        feed_forward = model.encoder.encoder.layers[0].feed_forward
        feed_forward.intermediate_dense.weight.mul_(50)
        feed_forward.intermediate_dense.bias[0] = 1e6
        feed_forward.output_dense.weight.mul_(50)[:, 0] = 0
    save_bundle(model, tmp_path, Release("m", "1", "r"), storage=torch.float32)
    return str(tmp_path)


@needs_int8
def test_a_model_that_int8_cannot_hold_is_refused(unroundable):
    """The engine does not begin, and the error is the reason and what to do."""
    with pytest.raises(ModelError, match=r"^in int8 .* wrong by up to 0\.\d+: set model.dtype to fp32"):
        open_engine(ModelSettings(path=unroundable, device="cpu", dtype="int8"))


def test_a_model_that_int8_cannot_hold_runs_by_default(unroundable):
    """`auto` does not take int8, and so does not refuse the model."""
    assert open_engine(ModelSettings(path=unroundable, device="cpu")).plan.dtype == "fp32"


def test_a_type_that_nobody_chose_gives_way_to_float32(model, tmp_path, monkeypatch, caplog):
    """Where bfloat16 comes out wrong, a worker set to it does not start; one set to auto computes in float32."""
    save_bundle(model, tmp_path, Release("m", "1", "r"), storage=torch.float32)
    monkeypatch.setattr("callmood.worker.engine.plan._MIN_WIDTH_FOR_BF16", 0)
    monkeypatch.setattr(bf16, "speedup", lambda _: 2.0)
    assert open_engine(ModelSettings(path=str(tmp_path), device="cpu")).plan.dtype == "bf16"
    call, wrong = PackedModel.__call__, torch.tensor([2.0, 0, 0, -2])
    monkeypatch.setattr(
        PackedModel, "__call__", lambda self, *batch: call(self, *batch) + wrong * (self._dtype == torch.bfloat16)
    )
    with pytest.raises(ModelError, match=r"^in bf16 .* wrong by up to 0\.\d+: set model.dtype to fp32"):
        open_engine(ModelSettings(path=str(tmp_path), device="cpu", dtype="bf16"))
    engine = open_engine(ModelSettings(path=str(tmp_path), device="cpu"))
    assert engine.plan.dtype == "fp32"
    [record] = caplog.records
    assert (record.message, record.dtype) == ("computing in fp32: the faster type is too imprecise", "bf16")
    assert record.max_error > 0.2
    [found], [expected] = engine.predict([sound(8_000)]), Engine(model).predict([sound(8_000)])
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


@pytest.mark.parametrize("dtype", dtypes("bf16", "int8", "int8+bf16"))
def test_labels_of_real_speech_are_those_of_float32(speech_folder, dtype):
    """The trained demo model on people's voices: rounding moves probabilities by less than is computed again."""
    spoken = []
    for path in sorted(speech_folder.glob("*.wav"))[::3]:
        with wave.open(str(path)) as file:
            if 0.4 < file.getnframes() / file.getframerate() < 2:
                spoken.append((Encoding.S16LE, file.getframerate(), file.readframes(file.getnframes())))
    rounded = open_engine(ModelSettings(device="cpu", dtype=dtype))
    exact = open_engine(ModelSettings(device="cpu", dtype="fp32")).predict(spoken)
    found = rounded.predict(spoken)
    for one, sure in zip(found, exact, strict=True):
        assert np.argmax(one.probabilities) == np.argmax(sure.probabilities)
        assert one.probabilities == pytest.approx(sure.probabilities, abs=RECHECK_BELOW / 2)
    assert 0 < rounded.rechecked < len(spoken) / 2
    assert len(spoken) > 50
