"""Fine-tuning throughput: the plain recipe against the options that make it faster, in one run.

Run `python -m callmood.bench.fine_tuning [--shape large] [--hours 7] [--steps 20]`. Random weights of the real size,
and utterances with IEMOCAP's distribution of lengths (lognormal, mean 4.6 s, at most 34 s). Each way trains a few steps
through the training package's own loop; from them follow audio seconds per second, the seconds of an epoch of `--hours`
and the share of the peak of bfloat16 matrix products, which is measured beside. Every ratio is within the run.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from callmood.bench import engine
from callmood.training import config
from callmood.training.loop import data, train
from callmood.training.loop.data import Clip
from callmood.training.loop.loop import Loop
from callmood.training.loop.place import Place
from callmood.training.networks import encoders
from callmood.training.options import TrainConfig
from callmood.worker.model.checkpoints import HeadKind
from callmood.worker.model.model import EmotionModel

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    **engine.SHAPES,
}
MEAN_S, SPREAD, LONGEST_S, SHORTEST_S = 4.6, 0.65, 34.0, 0.6
RATE_HZ = 16_000
# Per 20 ms frame: two operations for each weight forward, four backward (two for what is frozen below: none).
FORWARD, BACKWARD = 2, 4


def lengths_s(count: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths in seconds with IEMOCAP's mean."""
    drawn = rng.lognormal(np.log(MEAN_S) - SPREAD**2 / 2, SPREAD, count)
    return np.clip(drawn, SHORTEST_S, LONGEST_S)


def corpus(count: int) -> list[Clip]:
    """Noise of those lengths, with all four labels."""
    rng = np.random.default_rng(1)
    return [
        Clip(RATE_HZ, (rng.normal(size=round(length * RATE_HZ)) * 1000).astype("<i2").tobytes(), i % 4)
        for i, length in enumerate(lengths_s(count, rng))
    ]


def ways(batch_size: int) -> dict[str, TrainConfig]:
    """The recipe, and what is changed about it, one thing after another."""
    plain = TrainConfig(1, 1, 4, "encoder", 1e-5, 1e-4, bucket_batches=1)
    bucketed = dataclasses.replace(plain, bucket_batches=16)
    bf16 = dataclasses.replace(bucketed, precision="bf16")
    larger = dataclasses.replace(bf16, batch_size=batch_size)
    return {
        "plain: batches of 4, fp32": plain,
        "and by length": bucketed,
        "and bf16": bf16,
        f"and batches of {batch_size}": larger,
        "and checkpointed": dataclasses.replace(larger, gradient_checkpointing=True),
    }


def matrix_peak(device: torch.device, size: int, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a square matrix product."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        wait(device)
        started_s = time.perf_counter()
        for _ in range(4):
            left @ right
        wait(device)
        best = min(best, (time.perf_counter() - started_s) / 4)
    return 2 * size**3 / best


def work(model: EmotionModel, seconds: float) -> float:
    """Operations of training on so much audio.

    Matrix products of transformer and projection, both ways; the convolutions forward alone, for they are frozen.
    Attention's own products are left out: below 5 % at 5 s.
    """
    encoder = model.encoder
    transformer = sum(
        p.numel() for n, p in encoder.named_parameters() if p.dim() > 1 and not n.startswith("feature_ex")
    )
    convolutions = 0.0
    rate = float(RATE_HZ)
    for layer, stride in zip(encoder.feature_extractor.conv_layers, encoder.config.conv_stride, strict=True):
        rate /= stride
        convolutions += layer.conv.weight.numel() * rate * FORWARD
    return seconds * float(transformer * (FORWARD + BACKWARD) * rate + convolutions)


def measure(settings: TrainConfig, clips: Sequence[Clip], options: argparse.Namespace) -> tuple[float, float]:
    """Audio seconds per second of training, and the share of padding in its batches."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    model = EmotionModel.new({"model_type": "hubert", **SHAPES[options.shape]}, head=HeadKind.MEAN_LINEAR)
    if settings.gradient_checkpointing:
        encoders.checkpoint_activations(model)
    plan = data.Plan(clips, settings, data.Share())
    task = train.Emotions(model.to(device), dataclasses.replace(BASE, train=settings), clips, clips[:4])
    loop = Loop(model, task, settings, Place(device=device))
    steps = max(options.warm_up, 1) + max(1, round(options.steps * 4 / settings.batch_size))
    task.to_train()
    useful_s, padded_s, started_s = 0.0, 0.0, 0.0
    for number, batch in enumerate(data.training_batches(clips, settings, plan.from_step(0, steps))):
        if number == max(options.warm_up, 1):
            wait(device)
            started_s = time.perf_counter()
            useful_s, padded_s = 0.0, 0.0
        loop.step([batch])
        useful_s += float(batch.lengths.sum()) / RATE_HZ
        padded_s += batch.waveforms.numel() / RATE_HZ
    wait(device)
    return useful_s / (time.perf_counter() - started_s), 1 - useful_s / padded_s


BASE = config.load(config.find("PF-hbt-large"))


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="large")
    parser.add_argument("--hours", type=float, default=7.0, help="of an epoch")
    parser.add_argument("--steps", type=int, default=20, help="of 4 utterances, or as many utterances in larger ones")
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--utterances", type=int, default=512)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matrix_peak(device, 8192 if device.type == "cuda" else 2048, torch.bfloat16)
    clips = corpus(options.utterances)
    model = EmotionModel.new({"model_type": "hubert", **SHAPES[options.shape]})
    per_second = work(model, 1.0)
    table = Table("way", "audio s/s", "ratio", "padding", "epoch, s", "share of bf16 peak")
    plain = 0.0
    for name, settings in ways(options.batch_size).items():
        speed, padding = measure(settings, clips, options)
        plain = plain or speed
        epoch = f"{options.hours * 3600 / speed:.0f}"
        share = f"{speed * per_second / peak:.0%}"
        table.add_row(name, f"{speed:.2f}", f"{speed / plain:.2f}", f"{padding:.1%}", epoch, share)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"HuBERT-{options.shape}, {where}, torch {torch.__version__}; bf16 peak {peak / 1e12:.2f} TFLOP/s")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
