"""The engine: calibration, abstention, and faults that affect only their own utterance."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from cpu import dtypes, without_int8

from callmood.schemas.common import Encoding
from callmood.worker.engine import bf16, infer
from callmood.worker.engine.infer import (
    FAILED,
    LOW_CONFIDENCE,
    NOT_FINITE,
    OUT_OF_MEMORY,
    TOO_SHORT,
    Engine,
    open_engine,
)
from callmood.worker.engine.packed import PackedModel, can_pack
from callmood.worker.engine.plan import RECHECK_BELOW, Plan
from callmood.worker.errors import ConfigurationError, ModelError
from callmood.worker.model import audio
from callmood.worker.model.checkpoints import Calibration, HeadKind
from callmood.worker.model.model import EmotionModel, Release, save_bundle
from callmood.worker.settings import ModelSettings

CONFIG = transformers.HubertConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=[8] * 7,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
)

WIDTHS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "conv_dim",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)


def sound(samples, seed=0):
    values = np.random.default_rng(seed).normal(size=samples) * 1_000
    return Encoding.S16LE, 16_000, values.astype("<i2").tobytes()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = EmotionModel.new(CONFIG.to_dict()).eval()
    with torch.no_grad():
        model.head.linear.weight.mul_(5)
    return model


def break_on(model, fails, error=RuntimeError):
    """Let the real model raise whenever `fails(waveforms, lengths)`."""

    def hook(_module, inputs):
        if fails(*inputs):
            raise error("no kernel for this")

    return model.register_forward_pre_hook(hook)


def test_probabilities_are_calibrated(model):
    """Probabilities are the softmax of the logits over the temperature."""
    model.calibration = Calibration(temperature=2.5)
    _, _, data = sound(8_000)
    waveform = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32))[None] / 32_768
    with torch.no_grad():
        expected = (model(waveform, torch.tensor([8_000])) / 2.5).softmax(dim=1)[0].tolist()
    [prediction] = Engine(model).predict([sound(8_000)])
    assert prediction.probabilities == pytest.approx(expected, abs=1e-6)
    assert prediction.reason is None
    assert prediction.inference_ms > 0


def test_a_doubtful_model_abstains_and_still_shows_its_probabilities(model):
    """Below the threshold the label does not stand, and the reason says so."""
    model.calibration = Calibration(abstain_below=1.0)
    [prediction] = Engine(model).predict([sound(8_000)])
    assert sum(prediction.probabilities) == pytest.approx(1)
    assert prediction.reason == LOW_CONFIDENCE


def test_what_is_shorter_than_one_frame_has_no_emotion(model):
    """Too short an utterance gets a reason, in its place among the others, even when all are too short."""
    engine = Engine(model)
    reasons = [prediction.reason for prediction in engine.predict([sound(399), sound(400), sound(0)])]
    assert reasons == [TOO_SHORT, None, TOO_SHORT]
    assert [prediction.reason for prediction in engine.predict([sound(0)])] == [TOO_SHORT]
    assert engine.predict([]) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_harm_only_their_own(model, value):
    """One NaN or infinity among a batch's logits: that utterance has no probabilities, its neighbours have theirs."""

    def poison(_module, _inputs, logits):
        logits[1, 2] = value

    engine = Engine(model)
    expected = engine.predict([sound(8_000), sound(6_000), sound(7_000)])
    model.register_forward_hook(poison)
    found = engine.predict([sound(8_000), sound(6_000), sound(7_000)])
    assert (found[1].probabilities, found[1].reason) == (None, NOT_FINITE)
    assert [found[row].probabilities for row in (0, 2)] == [expected[row].probabilities for row in (0, 2)]


def test_an_exception_harms_only_its_own(model, caplog):
    """An utterance on which the model raises gets a reason; the others of its batch are predicted."""
    engine = Engine(model)
    [expected] = engine.predict([sound(8_000)])
    break_on(model, lambda _, lengths: (lengths == 6_000).any())
    with caplog.at_level(logging.ERROR):
        found = engine.predict([sound(8_000), sound(6_000), sound(7_000)])
    assert [prediction.reason for prediction in found] == [None, FAILED, None]
    assert found[0].probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert "no kernel for this" in caplog.text


def test_bytes_that_cannot_be_decoded_harm_only_their_own(model):
    """Half a sample at the end fails that utterance alone."""
    encoding, rate_hz, data = sound(8_000)
    found = Engine(model).predict([sound(8_000), (encoding, rate_hz, data + b"\0")])
    assert [prediction.reason for prediction in found] == [None, FAILED]


def test_batches_that_fail_as_a_whole_are_halved(model):
    """Where only large batches fail, every utterance is still predicted."""
    break_on(model, lambda waveforms, _: len(waveforms) > 1)
    found = Engine(model).predict([sound(8_000, seed) for seed in range(3)])
    assert all(prediction.probabilities for prediction in found)


def test_the_one_to_blame_is_found_by_halving(model):
    """One bad utterance among 16 costs two runs for each halving, the first, and a look at silence."""
    runs = []
    model.register_forward_pre_hook(lambda _module, inputs: runs.append(len(inputs[0])))
    break_on(model, lambda _, lengths: (lengths == 6_000).any())
    found = Engine(model).predict([sound(6_000 if seed == 5 else 8_000, seed) for seed in range(16)])
    assert [seed for seed, prediction in enumerate(found) if prediction.reason == FAILED] == [5]
    assert len(runs) == 1 + 2 * 4 + 1


def test_what_fits_into_memory_is_remembered(model, caplog):
    """Out of memory halves the batch until it fits, and the engine says what batches it can take from now on."""
    break_on(model, lambda waveforms, _: waveforms.numel() > 30_000, torch.OutOfMemoryError)
    engine = Engine(model, batch_seconds=60.0)
    found = engine.predict([sound(8_000, seed) for seed in range(16)])
    assert all(prediction.probabilities for prediction in found)
    assert engine.batch_seconds == 1.0
    assert {record.message for record in caplog.records} == {"out of memory: batches are smaller from now on"}
    sizes = [(record.utterances, record.batch_seconds) for record in caplog.records]
    assert sizes[:3] == [(16, 4.0), (8, 2.0), (4, 1.0)]


def test_an_utterance_that_never_fits_harms_only_its_own(model):
    """One that is too large even alone gets the reason; the others are predicted."""
    break_on(model, lambda waveforms, _: waveforms.numel() > 30_000, torch.OutOfMemoryError)
    found = Engine(model).predict([sound(8_000), sound(32_000), sound(7_000)])
    assert [prediction.reason for prediction in found] == [None, OUT_OF_MEMORY, None]


@pytest.mark.parametrize("packed", [True, False])
def test_packed_or_padded_the_predictions_are_the_same(model, packed):
    """The setting chooses how it is computed, not what comes out; each utterance is as it is alone."""
    sounds = [sound(8_000), sound(400, 1), sound(21_000, 2)]
    found = Engine(model, Plan(packed=packed)).predict(sounds)
    for one, prediction in zip(sounds, found, strict=True):
        [alone] = Engine(model).predict([one])
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("head", [HeadKind.MEAN_LINEAR, HeadKind.HF_SUPERB])
def test_nothing_of_a_batch_waits_for_its_device(norm, head):
    """Prepared and run on a device that holds no values: whatever would fetch one from a GPU raises there."""
    large = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "conv_bias": True}
    model = EmotionModel.new(CONFIG.to_dict() | large, head=head).eval().to("meta")
    _, _, data = sound(8_000)
    sounds = [(encoding, rate_hz, data) for encoding in Encoding for rate_hz in (8_000, 16_000, 48_000)]
    with torch.inference_mode():
        probabilities = Engine(model, Plan(device="meta"))._calibrated(model(*audio.prepare(sounds, "meta")))
    assert probabilities.shape == (12, 4)


def test_a_model_that_fails_on_everything_is_not_hidden(model):
    """When silence fails too, the fault is the model's: it is raised, so that the process ends."""
    break_on(model, lambda *_: True)
    engine = Engine(model)
    with pytest.raises(RuntimeError, match="no kernel"):
        engine.predict([sound(8_000)])
    with pytest.raises(RuntimeError, match="no kernel"):
        engine.warm_up()


@pytest.mark.parametrize("dtype", dtypes("auto", "fp32", "bf16", "int8", "int8+bf16"))
def test_an_engine_is_opened_from_a_bundle(model, tmp_path, dtype):
    """For a small model on a CPU `auto` is float32; bfloat16 and int8 give nearly the same probabilities."""
    save_bundle(model, tmp_path, Release("m", "1", "r"), storage=torch.float32)
    engine = open_engine(ModelSettings(path=str(tmp_path), device="cpu", dtype=dtype))
    engine.warm_up()
    assert engine.info.id == "m"
    assert engine.plan.dtype == ("fp32" if dtype == "auto" else dtype)
    [found], [expected] = engine.predict([sound(8_000)]), Engine(model).predict([sound(8_000)])
    # What the product promises: rounding moves no probability by more than decides what is computed again.
    assert found.probabilities == pytest.approx(
        expected.probabilities, abs=1e-6 if dtype in ("auto", "fp32") else RECHECK_BELOW
    )


@without_int8
@pytest.mark.parametrize("dtype", ["int8", "int8+bf16"])
def test_int8_is_refused_where_its_products_are_wrong(tmp_path, dtype):
    """This CPU has no VNNI: a worker that is set to int8 does not start, and no model is loaded for it."""
    with pytest.raises(ConfigurationError, match="VNNI"):
        open_engine(ModelSettings(path=str(tmp_path / "none"), device="cpu", dtype=dtype))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_missing_gpu_is_a_configuration_error(tmp_path):
    """Asking for a GPU that is not there stops before anything is loaded."""
    with pytest.raises(ConfigurationError, match="GPU"):
        open_engine(ModelSettings(path=str(tmp_path), device="cuda"))


def test_a_shared_gpu_is_told_its_share_before_the_model_comes(monkeypatch):
    """The limit stands before anything is loaded: torch asks the GPU for no more than that."""
    done = []

    def load(path):
        done.append(path)
        raise ModelError("there is none")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", done.append)
    monkeypatch.setattr(infer, "load", load)
    with pytest.raises(ModelError, match="there is none"):
        open_engine(ModelSettings(path="bundle", device="auto", gpu_memory_share=0.25))
    assert done == [0.25, "bundle"]


@pytest.mark.parametrize("speedup", [1.0, 2.0])
def test_large_models_run_in_bfloat16_where_it_is_faster(tmp_path, monkeypatch, speedup):
    """`auto` measures the products of the model's own width, and takes bfloat16 if they are fast in it."""
    measured = []
    monkeypatch.setattr(bf16, "speedup", lambda width: measured.append(width) or speedup)
    large = transformers.HubertConfig(**CONFIG.to_dict() | {"hidden_size": 512, "num_attention_heads": 8})
    save_bundle(EmotionModel.new(large.to_dict()), tmp_path, Release("m", "1", "r"))
    engine = open_engine(ModelSettings(path=str(tmp_path), device="cpu"))
    assert engine.plan == Plan("cpu", "bf16" if speedup == 2.0 else "fp32", packed=True, recheck_below=RECHECK_BELOW)
    assert measured == [512]
    open_engine(ModelSettings(path=str(tmp_path), device="cpu", dtype="fp32"))
    assert measured == [512]


def test_an_encoder_that_cannot_be_packed_is_padded(tmp_path):
    """A WavLM bundle is opened and answers, on padded batches; that packing be on is refused, not ignored."""
    config = transformers.WavLMConfig(**{key: getattr(CONFIG, key) for key in WIDTHS})
    save_bundle(EmotionModel.new(config.to_dict()), tmp_path, Release("wavlm", "1", "test"))
    engine = open_engine(ModelSettings(path=str(tmp_path), device="cpu"))
    assert not engine.plan.packed
    together = engine.predict([sound(9_000), sound(4_000, seed=1)])
    for prediction, one in zip(together, [sound(9_000), sound(4_000, seed=1)], strict=True):
        assert prediction.probabilities == pytest.approx(engine.predict([one])[0].probabilities, abs=1e-5)
    with pytest.raises(ModelError, match="does not support this model"):
        open_engine(ModelSettings(path=str(tmp_path), device="cpu", packed="on"))


def test_a_head_without_a_packed_way_is_padded(model):
    """A new head that only has `forward` is not packed by the rules of another one: packing it is refused."""
    assert can_pack(model)
    model.head = torch.nn.Identity()
    assert not can_pack(model)
    with pytest.raises(ModelError, match="Identity on hubert cannot be packed"):
        PackedModel(model)


@pytest.mark.parametrize(("threads", "slots"), [(1, 1), (2, 2), (8, 8), (9, 4), (12, 6), (16, 8), (64, 8)])
def test_a_cpu_has_a_slot_for_each_thread_and_at_most_eight(model, threads, slots):
    """So many batches can be under way, however many cores there are: each takes memory."""
    engine = Engine(model, threads=threads)
    assert (engine.slots, engine.depth) == (slots, slots)


def test_a_batch_takes_the_threads_that_it_is_given(model):
    """On a CPU, the thread that starts a batch computes with so many, also if it had more before."""
    engine = Engine(model, threads=3)
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(torch.get_num_threads).result()
        for threads in (2, 1):
            pool.submit(engine.start, [sound(4_000)], threads).result()
            assert pool.submit(torch.get_num_threads).result() == threads
        pool.submit(infer.compute_with, before).result()  # what threads of other tests take


@pytest.mark.parametrize("plan", [Plan(), Plan(packed=True)])
def test_batches_side_by_side_are_as_batches_alone(model, plan):
    """Threads that share an engine get what one thread gets."""
    engine = Engine(model, plan, threads=4)
    batches = [[sound(4_000 + 800 * n, seed=n + k) for n in range(3)] for k in range(16)]
    alone = [[p.probabilities for p in engine.predict(batch)] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.start(batch, 1)(), batches))
    for found, expected in zip(together, alone, strict=True):
        assert [p.probabilities for p in found] == [pytest.approx(one, abs=1e-5) for one in expected]
