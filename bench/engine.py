"""Compare the inference engine with transformers' pipeline and other engines: same weights, same utterances, same run.

Needs torch, transformers and numpy only, so that `python -m callmood.bench.engine` runs in a CUDA image without other
packages. On a CPU, it also measures ONNX Runtime and OpenVINO if they are installed (extra: bench). Weights are random,
in the exact shape of a published checkpoint; the head is fitted so that labels differ and logits are whole units apart.
The engine decodes and resamples telephone audio; the others get samples at 16 kHz.
"""

import argparse
import functools
import platform
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor

from callmood.bench import other_engines
from callmood.bench.synthetic import LONGEST_S, duration_s, lengths_s, speak
from callmood.schemas.common import EMOTIONS
from callmood.worker.engine import bf16, int8
from callmood.worker.engine.batch import Batcher
from callmood.worker.engine.infer import Engine
from callmood.worker.engine.plan import INT8, RECHECK_BELOW, DType, Plan
from callmood.worker.model import audio
from callmood.worker.model.audio import Sound
from callmood.worker.model.checkpoints import HeadKind, own_name
from callmood.worker.model.model import EmotionModel

_BASE: Final[dict[str, Any]] = {"classifier_proj_size": 256, "use_weighted_layer_sum": True, "num_labels": 4}
_LARGE: Final[dict[str, Any]] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
SHAPES: Final[dict[str, dict[str, Any]]] = {"base": _BASE, "large": _BASE | _LARGE}
BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of a matrix product; else int8
PEAK_SIZES: Final = {"cuda": 4096, "cpu": 2048}
"""Rows of the square matrices whose product is taken as the peak."""
_LOADS: Final = (0.5, 0.7, 0.9)


PLANS: Final = (
    Plan(),
    Plan(packed=True),
    Plan(dtype="bf16"),
    Plan(dtype="bf16", packed=True),
    Plan(dtype="bf16", packed=True, recheck_below=RECHECK_BELOW),
    Plan(dtype="int8", packed=True),
    Plan(dtype="int8", packed=True, recheck_below=RECHECK_BELOW),
    Plan(dtype="int8+bf16", packed=True),
    Plan(dtype="int8+bf16", packed=True, recheck_below=RECHECK_BELOW),
)


class Row(NamedTuple):
    """One line of the table; `rate` is audio seconds per second."""

    name: str
    rate: float


def build(shape: str, sounds: Sequence[Sound]) -> tuple[Any, EmotionModel]:
    """The classifier of transformers, and ours with the same weights; `sounds` are what the head is fitted to."""
    torch.manual_seed(0)
    reference = transformers.HubertForSequenceClassification(
        transformers.HubertConfig(**SHAPES[shape], tie_last_hidden_states=True)
    ).eval()
    reference.config.id2label = dict(enumerate(("neu", "hap", "ang", "sad")))
    _fit_head(reference, sounds)
    model = EmotionModel.new(reference.config.to_dict(), head=HeadKind.HF_SUPERB, normalize=False).eval()
    model.load_state_dict({own_name(name, "hubert"): tensor for name, tensor in reference.state_dict().items()})
    return reference, model


@torch.no_grad()
def _fit_head(reference: Any, sounds: Sequence[Sound]) -> None:
    """Logits along the four directions in which these utterances differ most, whole units apart."""
    pooled: list[Tensor] = []
    keep = reference.classifier.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0][0]))
    for sound in sounds:
        reference(audio.prepare([sound])[0])
    keep.remove()
    features = torch.stack(pooled)
    mean = features.mean(dim=0)
    _, spread, directions = torch.linalg.svd(features - mean, full_matrices=False)
    weight = directions[:4] / (spread[:4, None] / len(sounds) ** 0.5) * 2
    reference.classifier.weight.copy_(weight)
    reference.classifier.bias.copy_(-weight @ mean)


def rate(run: Callable[[Sequence[Sound]], object], sets: Sequence[Sequence[Sound]]) -> float:
    """Seconds of audio per second, of the best set. Each is computed once: in service hardly a length comes twice."""
    took_s = [timeit.timeit(functools.partial(run, sounds), number=1) for sounds in sets]
    return max(sum(map(duration_s, sounds)) / one_s for sounds, one_s in zip(sets, took_s, strict=True))


def flop_per_second(shape: str) -> float:
    """Of the model, for a second of audio in an utterance of 4 s."""
    return {"base": 14.2e9, "large": 36.8e9}[shape]


@functools.cache
def matrix_peak(dtype: DType, device: str) -> float:
    """FLOP/s of large matrix products here, the best of several."""
    size = PEAK_SIZES[device]
    best = 0.0
    one = torch.randn(size, size, device=device).to(_TYPES.get(dtype, torch.int8))
    multiply = torch._int_mm if dtype in INT8 else torch.mm  # noqa: SLF001 - torch has no other product of int8
    for _ in range(5):
        began_s = time.perf_counter()
        multiply(one, one)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - began_s))
    return best


def pipeline_rates(reference: Any, sets: Sequence[Sequence[Sound]], device: str) -> Iterator[Row]:
    """The pipeline of transformers at each batch size."""
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    pipe = transformers.pipeline("audio-classification", reference, feature_extractor=extractor, device=device)
    waveforms = _waveforms(sets)

    def classify(sounds: Sequence[Sound], size: int) -> None:
        pipe([waveforms[sound][0] for sound in sounds], batch_size=size)

    for size in BATCH_SIZES:
        classify(sets[0][:2], size)
        yield Row(f"pipeline, batches of {size}", rate(functools.partial(classify, size=size), sets))


def _waveforms(sets: Sequence[Sequence[Sound]]) -> dict[Sound, other_engines.Samples]:
    return {sound: audio.prepare([sound])[0].numpy() for sounds in sets for sound in sounds}


def batches(sounds: Sequence[Sound], batch_seconds: float) -> list[list[int]]:
    """What the worker's batcher makes of utterances that all wait."""
    batcher: Batcher[int] = Batcher(batch_seconds=batch_seconds, max_wait_s=0.0)
    for key, sound in enumerate(sounds):
        batcher.add(key, duration_s(sound), 0.0)
    taken: list[list[int]] = []
    while (batch := batcher.due(0.0)) is not None:
        taken.append(batch)
    return taken


def labels(engine: Engine, sounds: Sequence[Sound], batch_seconds: float) -> list[int]:
    """The most probable class of each utterance, computed in batches."""
    found = [-1] * len(sounds)
    for batch in batches(sounds, batch_seconds):
        for key, prediction in zip(batch, engine.predict([sounds[key] for key in batch]), strict=True):
            assert prediction.probabilities is not None
            found[key] = int(np.argmax(prediction.probabilities))
    return found


def waste(sounds: Sequence[Sound], batch_seconds: float) -> float:
    """Share of padding in the batches; nothing of it is computed where batches are packed."""
    useful = sum(map(duration_s, sounds))
    padded = sum(len(batch) * max(duration_s(sounds[key]) for key in batch) for batch in batches(sounds, batch_seconds))
    return 1 - useful / padded


def latencies_ms(engine: Engine, sounds: Sequence[Sound], audio_rate: float, batch_seconds: float) -> list[float]:
    """From an utterance's arrival to its answer, when `audio_rate` seconds of audio arrive per second, at random.

    Batches are really run, one after another; the time between them is not waited for.
    """
    random, now_s, arrives_s = np.random.default_rng(5), 0.0, 0.0
    gap_s = float(np.mean([duration_s(sound) for sound in sounds])) / audio_rate
    arrivals = [(arrives_s := arrives_s + float(random.exponential(gap_s)), key) for key in range(len(sounds))]
    batcher: Batcher[int] = Batcher(batch_seconds=batch_seconds, max_wait_s=0.02, max_run_s=0.5)
    came_s, took_ms, waiting = dict[int, float](), list[float](), list(reversed(arrivals))
    while waiting or len(batcher):
        while waiting and waiting[-1][0] <= now_s:
            at_s, key = waiting.pop()
            came_s[key] = at_s
            batcher.add(key, duration_s(sounds[key]), at_s)
        batch = batcher.due(now_s)
        if batch is None:
            due_s = batcher.due_s()
            next_s = [at_s for at_s in (due_s, waiting[-1][0] if waiting else None) if at_s is not None]
            now_s = max(min(next_s), np.nextafter(now_s, np.inf))
            continue
        began_s = time.perf_counter()
        engine.predict([sounds[key] for key in batch])
        run_s, longest_s = time.perf_counter() - began_s, max(duration_s(sounds[key]) for key in batch)
        batcher.learn(longest_s, longest_s * len(batch), run_s)
        now_s += run_s
        took_ms += [(now_s - came_s[key]) * 1000 for key in batch]
    return took_ms


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    parser = add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.engine", description=__doc__))
    return run(parser.parse_args(arguments))


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--shape", choices=list(SHAPES), default="base", help="size of HuBERT; default: base")
    parser.add_argument("--utterances", type=int, default=64, help="number of utterances per measurement; default: 64")
    parser.add_argument(
        "--agreement", type=int, default=2000, help="number of utterances whose labels are compared; default: 2000"
    )
    parser.add_argument(
        "--agreement-longest-s", type=float, default=LONGEST_S, help="length to which these are cut, s; default: 15"
    )
    parser.add_argument("--batch-seconds", type=float, default=60.0, help="audio per batch, s; default: 60")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: torch decides")
    return parser


@torch.inference_mode()
def run(options: argparse.Namespace) -> int:
    """The command."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.threads:
        torch.set_num_threads(options.threads)
    cores = f"{platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device == "cuda" else cores
    _say(f"{name}; torch {torch.__version__}, transformers {transformers.__version__}; HuBERT-{options.shape}")
    seeds = count(1)
    sounds, _ = sets = [[speak(s, next(seeds)) for s in lengths_s(options.utterances, draw)] for draw in (1, 3)]
    others = [speak(min(s, options.agreement_longest_s), next(seeds)) for s in lengths_s(options.agreement, 2)]
    fitted = [speak(2.0, next(seeds)) for _ in range(100)]
    with torch.no_grad():
        reference, model = build(options.shape, fitted)
    share = waste(sounds, options.batch_seconds)
    _say(f"{len(sounds)} utterances, {sum(map(duration_s, sounds)):.0f} s; {share:.1%} of padded batches is padding")
    best = max(_printed(pipeline_rates(reference.to(device), sets, device)), key=lambda row: row.rate).rate
    found: dict[Plan, float] = {}
    expected: list[int] = []
    for plan in plans(device):
        engine = _engine(model, plan, sounds)
        fast = rate(functools.partial(labels, engine, batch_seconds=options.batch_seconds), sets)
        found[plan] = fast
        peak = matrix_peak(plan.dtype, device)
        of_peak = fast * flop_per_second(options.shape) / peak
        _say(f"{name_of(plan):36} {fast:8.2f} s/s {fast / best:6.2f} x  {of_peak:4.0%} of {peak / 1e12:.2f} TFLOP/s")
        if plan.packed or device == "cuda":
            expected = _compare(engine, others, expected, options.batch_seconds)
    if device == "cpu":
        for other in other_engines.open_all(reference, fitted, _say):
            _measure_other(other, sets, best, dict(zip(others, expected, strict=True)))
    plan, fast = max(found.items(), key=lambda item: item[1])
    engine = _engine(model, plan, sounds)
    for load in _LOADS:
        took = latencies_ms(engine, sounds, load * fast, options.batch_seconds)
        p50, p99 = np.percentile(took, (50, 99))
        _say(f"{name_of(plan)} at {load:.0%} load: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    return 0


def plans(device: str) -> list[Plan]:
    """Those that are worth measuring there: without the CPU's own products bfloat16 and int8 take minutes."""
    if device == "cuda":
        return [replace(plan, device=device) for plan in PLANS if plan.dtype not in INT8 and not plan.recheck_below]
    left_out = {dtype for dtype in INT8 if not int8.is_available()}
    if not bf16.is_available():
        left_out |= {"bf16", "int8+bf16"}
    if left_out:
        _say(f"left out, because this CPU has no products for it: {', '.join(sorted(left_out))}")
    return [plan for plan in PLANS if plan.dtype not in left_out]


def name_of(plan: Plan) -> str:
    """The plan, in the words of the tables."""
    rechecked = ", rechecked" if plan.recheck_below else ""
    return f"engine, {'packed' if plan.packed else 'padded'}, {plan.dtype}{rechecked}"


def _engine(model: EmotionModel, plan: Plan, sounds: Sequence[Sound]) -> Engine:
    """An engine that has run already."""
    engine = Engine(model, plan)
    engine.predict(sounds[:2])
    return engine


def _compare(engine: Engine, sounds: Sequence[Sound], expected: list[int], batch_seconds: float) -> list[int]:
    """An engine's labels beside those expected; the first engine's are, and are returned."""
    if not sounds:
        return []
    rechecked = engine.rechecked
    found = labels(engine, sounds, batch_seconds)
    if not expected:
        shares = np.bincount(found, minlength=len(EMOTIONS)) / len(found)
        counted = ", ".join(f"{emotion} {share:.0%}" for emotion, share in zip(EMOTIONS, shares, strict=True))
        _say(f"{len(found)} labels: {counted}")
        return found
    again = (engine.rechecked - rechecked) / len(found)
    _say(f"{len(found)} labels, {np.mean(np.equal(found, expected)):.2%} as in fp32; {again:.1%} computed again")
    return expected


def _measure_other(
    other: other_engines.Other, sets: Sequence[Sequence[Sound]], best: float, expected: Mapping[Sound, int]
) -> None:
    """Print another engine's rate, also as a multiple of `best`, and its share of the labels in `expected`.

    It gets samples at 16 kHz, like the pipeline.
    """
    waveforms = _waveforms(sets)

    def classify(sounds: Sequence[Sound]) -> None:
        for sound in sounds:
            other.logits(waveforms[sound])

    classify(sets[0][:2])
    fast = rate(classify, sets)
    _say(f"{other.name:36} {fast:8.2f} s/s {fast / best:6.2f} x")
    if expected:
        found = [int(other.logits(audio.prepare([sound])[0].numpy()).argmax()) for sound in expected]
        _say(f"{len(found)} labels, {np.mean(np.equal(found, list(expected.values()))):.2%} as in fp32")


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        _say(f"{row.name:36} {row.rate:8.2f} s/s")
        yield row


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
