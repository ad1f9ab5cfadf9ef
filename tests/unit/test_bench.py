"""The benchmark of the engine: it measures what it says, on a model small enough for a test."""

import re

import numpy as np
import pytest
from cpu import needs_bf16, needs_int8
from tiny import SIZE

from callmood.__main__ import main
from callmood.bench import engine, other_engines
from callmood.bench.engine import batches, build, labels, latencies_ms, plans, waste
from callmood.bench.synthetic import duration_s, lengths_s, speak
from callmood.worker.engine import bf16, int8
from callmood.worker.engine.infer import Engine

TINY = SIZE | {"classifier_proj_size": 16, "use_weighted_layer_sum": True, "num_labels": 4}


@pytest.fixture(autouse=True)
def _small_shape(monkeypatch):
    monkeypatch.setitem(engine.SHAPES, "base", TINY)
    monkeypatch.setattr(engine, "BATCH_SIZES", (1, 2))
    monkeypatch.setitem(engine.PEAK_SIZES, "cpu", 256)
    engine.matrix_peak.cache_clear()
    monkeypatch.setattr(other_engines, "open_all", lambda *_: iter(()))


def test_lengths_are_those_of_calls():
    """Half the utterances are shorter than 2.5 s, none is longer than 15 s, and the seed decides them."""
    lengths = lengths_s(2_000, 3)
    assert np.median(lengths) == pytest.approx(2.5, rel=0.1)
    assert max(lengths) == 15.0
    assert lengths == lengths_s(2_000, 3)


def test_every_utterance_is_in_one_batch_and_waste_is_what_is_padded():
    """The batches are the worker's own; the share of padding is counted from them."""
    sounds = [speak(length, seed) for seed, length in enumerate(lengths_s(40, 1))]
    taken = batches(sounds, 20.0)
    assert sorted(key for batch in taken for key in batch) == list(range(40))
    padded_s = sum(len(batch) * max(duration_s(sounds[key]) for key in batch) for batch in taken)
    assert waste(sounds, 20.0) == pytest.approx(1 - sum(map(duration_s, sounds)) / padded_s)


def test_the_labels_of_the_random_model_differ():
    """The fitted head gives every class to some utterance: agreement is about something."""
    sounds = [speak(1.0, seed) for seed in range(60)]
    _, model = build("base", sounds[:40])
    assert set(labels(Engine(model), sounds, 60.0)) == {0, 1, 2, 3}


def test_every_arrival_is_answered():
    """Each utterance has one delay, none shorter than nothing."""
    sounds = [speak(0.5, seed) for seed in range(20)]
    _, model = build("base", sounds)
    took = latencies_ms(Engine(model), sounds, 50.0, 60.0)
    assert len(took) == 20
    assert min(took) > 0


def test_the_command_prints_its_tables(capsys):
    """Pipeline, the engine's plans, agreement and delays: each has its line."""
    assert main(["bench", "engine", "--utterances", "6", "--agreement", "12"]) == 0
    printed = capsys.readouterr().out
    for line in (
        r"pipeline, batches of 2 +\d",
        r"engine, padded, fp32 +\d",
        r"engine, packed, fp32 +\d.* x ",
        r"12 labels: anger \d+%",
        r"at 90% load: p50 \d+ ms, p99 \d+ ms",
    ):
        assert re.search(line, printed), printed


@needs_int8
@needs_bf16
def test_the_command_compares_labels_with_those_of_float32(capsys):
    """Where the CPU has other types, each has its line, with the share of labels that are float32's."""
    assert main(["bench", "engine", "--utterances", "6", "--agreement", "12"]) == 0
    printed = capsys.readouterr().out
    for line in (
        r"engine, packed, bf16 +\d.* x ",
        r"engine, packed, int8, rechecked +\d.* x ",
        r"12 labels, \d+\.\d\d% as in fp32; \d+\.\d% computed again",
    ):
        assert re.search(line, printed), printed


@pytest.mark.parametrize(
    ("has_int8", "has_bf16", "left"),
    [
        (True, True, {"fp32", "bf16", "int8", "int8+bf16"}),
        (True, False, {"fp32", "int8"}),
        (False, True, {"fp32", "bf16"}),
        (False, False, {"fp32"}),
    ],
)
def test_types_without_products_of_the_cpu_are_left_out(monkeypatch, has_int8, has_bf16, left):
    """They would take minutes and mean nothing; the command prints which they are."""
    monkeypatch.setattr(int8, "is_available", lambda: has_int8)
    monkeypatch.setattr(bf16, "is_available", lambda: has_bf16)
    assert {plan.dtype for plan in plans("cpu")} == left


def test_a_gpu_is_measured_in_its_own_types():
    """On a GPU there is no int8, and nothing is computed again by default."""
    assert {(plan.device, plan.dtype, plan.recheck_below) for plan in plans("cuda")} == {
        ("cuda", "fp32", 0.0),
        ("cuda", "bf16", 0.0),
    }
