"""What labels from production are worth: model A, its answers to calls, a sample of them, model B; synthetic speech.

Run `python -m callmood.bench.label_loop [FOLDER]`; a quarter of an hour of CPU time, continued where it was stopped.
Model A learns from two voices. Voices that it never heard make calls, which `callmood analyze` cuts and answers with
model A. `callmood-train collect` samples utterances at random or by uncertainty; each gets the label of the utterance
that was spoken then. Model B continues with A's weights on A's utterances and these. To tell what the labels are worth
from what more steps are worth, another model continues for as many steps on A's utterances alone. All are tested on
voices of no training, all by the commands of docs/training.md. A seed decides which voices label, call and test, and
the training. The figures say nothing about real people.
"""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.training import manifest, wav
from callmood.training.__main__ import main as callmood_train
from callmood.training.manifest import Item
from callmood.worker.errors import CallmoodError

RATE_HZ: Final = 8000
_PAUSE_S: Final = 1.5
_WAYS: Final = {"random": 1.0, "uncertain": 0.0}
_FIRST: Final = "model A"
_LONGER: Final = "A continued"
_ALL: Final = "all"


class Heard(NamedTuple):
    """What is spoken when in a call."""

    start_s: float
    end_s: float
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much of everything; `overrides` change the configuration of the demo model."""

    labelled_voices: int = 2
    calling_voices: int = 22
    utterances_per_call: int = 2
    shares: Sequence[float] = (0.2,)
    seeds: Sequence[int] = (1, 2, 3)
    first_steps: int = 600
    steps: int = 800
    overrides: Sequence[str] = (
        "corpus.voices_per_split=48",
        "corpus.languages_per_voice=2",
        "corpus.train_utterances=6",
        "corpus.valid_utterances=1",
        "corpus.test_utterances=4",
        "model.encoder.hidden_size=64",
        "model.encoder.num_hidden_layers=2",
        "model.encoder.intermediate_size=128",
        "model.encoder.conv_dim=[64, 64]",
        "model.encoder.conv_stride=[320, 2]",
        "train.epochs=0",
        "train.evaluate_steps=200",
        "train.balance='classes'",
        "train.warmup_steps=50",
        "calibration.wanted_risk=0.5",
    )


def main() -> None:
    """Run the loop and print the curve."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/label-loop")
    size = Size()
    table = Table("labelled of production", *_WAYS, title="UA on voices of no training, %; mean (each seed)")
    figures = run(folder, size)
    names = [_FIRST, _LONGER, *(f"{share:.0%}" for share in sorted(size.shares))]
    for name in names:
        cells = [figures[way, name] for way in _WAYS]
        table.add_row(name, *(f"{100 * np.mean(c):.1f} ({', '.join(f'{100 * one:.1f}' for one in c)})" for c in cells))
    Console(width=110).print(table)


def run(folder: Path, size: Size) -> dict[tuple[str, str], list[float]]:
    """UA on the test split by way and share of the production utterances that were labelled, one of each seed."""
    settings = [word for override in size.overrides for word in ("--set", override)]
    corpus = folder / "corpus"
    if not (corpus / "manifest.jsonl").exists():
        train_command("synthesize", str(corpus), *settings, "--set", f"train.steps={size.first_steps}")
    items = manifest.absolute(manifest.read(corpus / "manifest.jsonl"), corpus / "manifest.jsonl")
    figures: dict[tuple[str, str], list[float]] = {}
    for seed in size.seeds:
        known, pool = divided(items, size, seed)
        calls = make_calls(pool, folder / f"calls-{seed}", size.utterances_per_call)
        same = [*settings, "--set", f"train.seed={seed}"]
        first = folder / f"a-{seed}"
        ua = train(known, first, [*same, "--set", f"train.steps={size.first_steps}"])
        more = [*same, "--set", f"train.steps={size.steps}", "--encoder", str(first)]
        longer = train(known, folder / f"a-continued-{seed}", more)
        results = analyze(calls, first, folder / f"results-{seed}.jsonl")
        number = len(list(_utterances(results)))
        for way, random_share in _WAYS.items():
            figures.setdefault((way, _FIRST), []).append(ua)
            figures.setdefault((way, _LONGER), []).append(longer)
            for share in size.shares:
                name = way if share < 1 else _ALL  # of all utterances, both ways take the same
                out = folder / f"sampled-{name}-{share}-{seed}"
                sampled = sample(out, results, round(share * number), random_share, calls)
                ua_b = train([*known, *sampled], folder / f"b-{name}-{share}-{seed}", more)
                figures.setdefault((way, f"{share:.0%}"), []).append(ua_b)
        print(seed, {name: round(100 * uas[-1], 1) for name, uas in figures.items()}, flush=True)
    return figures


def divided(items: Sequence[Item], size: Size, seed: int) -> tuple[list[Item], list[Item]]:
    """Draw voices: utterances that model A knows, with those for validation and the test, and those of the callers."""
    voices = sorted({item.speaker for item in items if item.split == "train"})
    order = [voices[i] for i in np.random.default_rng(seed).permutation(len(voices))]
    labelled = set(order[: size.labelled_voices])
    calling = set(order[size.labelled_voices : size.labelled_voices + size.calling_voices])
    known = [
        item if item.split != "train" or item.speaker in labelled else dataclasses.replace(item, split="test")
        for item in items
        if item.split != "train" or item.speaker not in calling
    ]
    return known, [item for item in items if item.split == "train" and item.speaker in calling]


def make_calls(pool: Sequence[Item], folder: Path, utterances: int) -> dict[str, list[Heard]]:
    """Stereo recordings: on the left, so many utterances of a voice at most, with pauses; what is spoken, by file."""
    spoken: dict[str, list[Heard]] = {}
    voices = [list(items) for _, items in itertools.groupby(pool, key=lambda item: (item.speaker, item.language))]
    calls = [items[start : start + utterances] for items in voices for start in range(0, len(items), utterances)]
    for number, items in enumerate(calls):
        parts = [np.zeros(round(_PAUSE_S * RATE_HZ), np.int16)]
        heard = spoken.setdefault(f"call-{number:03d}", [])
        for item in items:
            samples = np.frombuffer(wav.read(Path(item.path))[1], "<i2")
            start_s = sum(part.size for part in parts) / RATE_HZ
            heard.append(Heard(start_s, start_s + samples.size / RATE_HZ, str(item.label)))
            parts += [samples, parts[0]]
        left = np.concatenate(parts)
        stereo = np.stack([left, np.zeros_like(left)], axis=1)
        folder.mkdir(parents=True, exist_ok=True)
        wav.write(folder / f"call-{number:03d}.wav", RATE_HZ, stereo.tobytes(), channels=2)
    return {str(folder / f"{name}.wav"): heard for name, heard in spoken.items()}


def analyze(calls: Iterable[str], model: Path, out: Path) -> Path:
    """The answers of a model to the calls, as `callmood analyze` prints them."""
    if out.exists():
        return out
    command = [sys.executable, "-m", "callmood", "analyze", *calls]
    environment = {**os.environ, "CALLMOOD_MODEL__PATH": str(model)}
    part = out.with_suffix(".part")
    with part.open("w") as file:
        subprocess.run(command, env=environment, stdout=file, check=True)
    return part.rename(out)


def sample(
    out: Path, results: Path, number: int, random_share: float, calls: Mapping[str, Sequence[Heard]]
) -> list[Item]:
    """Utterances of production to train on: collected, labelled by what was spoken, prepared."""
    where = str(Path(next(iter(calls))).parent)
    given = ("--number", str(number), "--random", str(random_share))
    if not (out / "to-label.csv").exists():
        train_command("collect", str(results), where, str(out), *given)
    times = {one["utterance_id"]: one for one in _utterances(results)}
    with (out / "to-label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        spoken = calls[f"{where}/{row['session']}.wav"]
        one = times[row["id"]]
        row["label"] = spoken_then(spoken, one["start_ms"] / 1000, one["end_ms"] / 1000)
        row["split"] = "train"
    with (out / "labelled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    train_command("prepare", "own", str(out / "labelled.csv"), str(out / "data"))
    path = out / "data" / "manifest.jsonl"
    return manifest.absolute(manifest.read_any(path), path)


def spoken_then(spoken: Sequence[Heard], start_s: float, end_s: float) -> str:
    """The label of what is spoken for most of this time."""
    return max(spoken, key=lambda heard: min(heard.end_s, end_s) - max(heard.start_s, start_s)).label


def train(items: Sequence[Item], out: Path, settings: Sequence[str]) -> float:
    """Train a bundle on these; returns its UA on the test split."""
    if not (out / "report.json").exists():
        path = out.with_name(f"{out.name}.jsonl")
        manifest.write(path, items)
        train_command("train", "demo_tiny", str(path), str(out), *settings, "--resume")
    return float(json.loads((out / "report.json").read_text())["test"]["ua"])


def _utterances(results: Path) -> Iterable[dict[str, Any]]:
    records = (json.loads(line) for line in results.read_text().splitlines())
    return (one for one in records if one["schema"] == "callmood.utterance/1" and one["emotion"])


def train_command(*arguments: str) -> None:
    """Run `callmood-train`, without what it prints on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = callmood_train(arguments)
    if code:
        raise CallmoodError(f"callmood-train {arguments[0]} ended with {code}")


if __name__ == "__main__":
    main()
