"""What pre-training on speech without labels is worth where one utterance in ten has a label; synthetic speech.

Run `python -m callmood.bench.pretraining [FOLDER]`; about ten minutes of CPU time, continued where it was stopped.
An encoder with random weights learns clusters of MFCCs on all training voices, without their labels. Then two models
are trained on a tenth of the labels, with the same steps and seeds: one from that encoder, one from random weights.
Both are tested on voices of no training. The figures say nothing about real people.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.bench import label_loop
from callmood.training import manifest
from callmood.training.manifest import Item

WAYS: Final = ("random weights", "pre-trained")


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much of everything; overrides change the configuration of the demo model."""

    one_in: int = 10
    seeds: Sequence[int] = (1, 2)
    overrides: Sequence[str] = (
        *(word for word in label_loop.Size().overrides if not word.startswith("train.")),
        "corpus.voices_per_split=24",
    )
    training: Sequence[str] = (
        "train.epochs=0",
        "train.steps=300",
        "train.evaluate_steps=50",
        "train.warmup_steps=50",
    )
    pretraining: Sequence[str] = (
        "train.epochs=0",
        "train.steps=1000",
        "train.evaluate_steps=250",
        "train.warmup_steps=50",
        "train.crop_s=0",
        "train.speeds=[1.0]",
        "train.schedule='constant'",
        "train.train='encoder'",
        "train.encoder_lr=0.002",
        "train.head_lr=0.002",
        "pretrain.clusters=50",
        "pretrain.cluster_hours=0.1",
        "pretrain.mask_prob=0.4",
        "pretrain.mask_length=3",
    )


def main() -> None:
    """Pre-train, train both ways, and print the table."""
    figures = run(Path(sys.argv[1] if len(sys.argv) > 1 else "build/pretraining"), Size())
    table = Table("start", "mean", "each seed", title="UA on voices of no training, %")
    for way in WAYS:
        table.add_row(way, f"{100 * np.mean(figures[way]):.1f}", ", ".join(f"{100 * one:.1f}" for one in figures[way]))
    Console(width=110).print(table)


def run(folder: Path, size: Size) -> dict[str, list[float]]:
    """UA on the test split by way, one of each seed."""
    shared = [word for override in size.overrides for word in ("--set", override)]
    path = folder / "corpus" / "manifest.jsonl"
    if not path.exists():
        label_loop.train_command("synthesize", str(path.parent), *shared)
    items = manifest.absolute(manifest.read(path), path)
    encoder = folder / "encoder"
    if not encoder.exists():
        settings = [*shared, *(word for override in size.pretraining for word in ("--set", override))]
        label_loop.train_command("pretrain", "demo_tiny", str(path), str(encoder), *settings, "--resume")
    settings = [*shared, *(word for override in size.training for word in ("--set", override))]
    figures: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in size.seeds:
        for way, start in zip(WAYS, ([], ["--encoder", str(encoder)]), strict=True):
            out = folder / f"{way.replace(' ', '-')}-{seed}"
            more = ["--set", f"train.seed={seed}", *start]
            figures[way].append(label_loop.train(labelled(items, size.one_in), out, [*settings, *more]))
            print(f"{way}, seed {seed}: UA {figures[way][-1]:.1%}", flush=True)
    return figures


def labelled(items: Sequence[Item], one_in: int) -> list[Item]:
    """All items but of training: there, each `one_in`th group of the four emotions of a sentence."""
    training = [item for item in items if item.split == "train"]
    some = [item for number, item in enumerate(training) if number // 4 % one_in == 0]
    return [*some, *(item for item in items if item.split != "train")]


if __name__ == "__main__":
    main()
