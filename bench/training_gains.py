"""What partial fine-tuning, a fitted temperature and telephone augmentation are worth, on synthetic speech.

Run `python -m callmood.bench.training_gains [FOLDER]`; about half an hour on two cores.
First an encoder learns to distinguish four groups of languages, on the training voices alone: it knows speech, and
nothing of emotions. Three runs of the training package start from it, with the same clips, seeds and passes: frozen
under SUPERB's head, partially fine-tuned, and partially fine-tuned with the telephone chain. They are tested on voices
and sentences that no run was trained on, clean and over lines of falling quality. The figures say nothing about real
people.
"""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callmood.schemas.common import EMOTIONS
from callmood.training import config, manifest
from callmood.training.loop import runs
from callmood.training.manifest import Item
from callmood.training.networks import encoders
from callmood.training.protocols import Fold
from callmood.training.results import row
from callmood.training.synthetic import synthesize
from callmood.worker.model.model import EmotionModel

CORPUS = [
    "corpus.voices_per_split=40",
    "corpus.languages_per_voice=3",
    "corpus.train_utterances=4",
    "corpus.valid_utterances=2",
    "corpus.test_utterances=4",
]
GROUPS = (("en", "en-us", "en-gb-scotland"), ("de",), ("fr", "it"), ("es",))
EPOCHS = 20


def main() -> None:
    """Make the corpus, the encoder and the runs, and print the tables."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/training-gains")
    demo = config.load(config.CONFIGS / "demo_tiny.toml", CORPUS)
    assert demo.corpus is not None
    path = folder / "corpus" / "manifest.jsonl"
    if not path.exists():
        synthesize.synthesize(path.parent, demo.corpus)
    items = manifest.absolute(manifest.read(path), path)
    encoder = pretrain(demo, items, folder)
    rows = {name: run(name, settings, items, folder) for name, settings in ways(demo, encoder).items()}
    show(rows)


def pretrain(demo: config.Config, items: list[Item], folder: Path) -> Path:
    """An encoder that distinguishes groups of languages, as a folder like those of the hub."""
    out = folder / "encoder"
    if out.exists():
        return out
    groups = {language: EMOTIONS[index] for index, languages in enumerate(GROUPS) for language in languages}
    items_of_languages = [dataclasses.replace(item, label=groups[item.language]) for item in items]
    settings = dataclasses.replace(demo, train=dataclasses.replace(demo.train, epochs=EPOCHS))
    model, epochs = runs.run(
        settings, Fold("languages", items_of_languages, 1), runs.Clips(), folder / "pretraining", runs.Options()
    )
    print(f"encoder: error in distinguishing languages {min(epoch.valid_error for epoch in epochs):.1%}")
    assert isinstance(model, EmotionModel)
    encoders.save(model, out)
    return out


def ways(demo: config.Config, encoder: Path) -> dict[str, config.Config]:
    """The three runs: the same but for what their names say."""
    model = dataclasses.replace(
        demo.model, pretrained=str(encoder), filter_bank=False, encoder={"layerdrop": 0.0, "apply_spec_augment": False}
    )
    superb = dataclasses.replace(
        model, head="hf_superb", encoder={**model.encoder, "use_weighted_layer_sum": True, "classifier_proj_size": 64}
    )
    train = dataclasses.replace(demo.train, epochs=EPOCHS, train="encoder")
    tuned = dataclasses.replace(demo, model=model, train=train)
    return {
        "frozen": dataclasses.replace(tuned, model=superb, train=dataclasses.replace(train, train="head")),
        "partially fine-tuned": tuned,
        "and telephone": dataclasses.replace(tuned, augment=dataclasses.replace(demo.augment, probability=0.6)),
    }


def run(name: str, settings: config.Config, items: list[Item], folder: Path) -> dict[str, Any]:
    """One run's summary."""
    options = runs.Options(resume=True, robustness=True)
    summary = row.run_row(settings, items, "given", folder / name.replace(" ", "-"), options)
    assert summary is not None
    return summary


def show(rows: dict[str, dict[str, Any]]) -> None:
    """Two tables: accuracy by line, and calibration."""
    lines = list(next(iter(rows.values()))["robustness"])
    table = Table("UA on held-out voices, %", *rows)
    for line in lines:
        table.add_row(line, *(f"{100 * summary['robustness'][line]['ua']:.1f}" for summary in rows.values()))
    calibration = Table("ECE", "as trained", "with the fitted temperature")
    for name, summary in rows.items():
        (fold,) = summary["folds"]
        calibration.add_row(name, f"{fold['ece_uncalibrated']:.4f}", f"{fold['ece']:.4f}")
    for shown in (table, calibration):
        Console(width=110).print(shown)


if __name__ == "__main__":
    main()
