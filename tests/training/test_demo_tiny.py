"""The bundled demo model."""

import json
import re
from pathlib import Path

import pytest
import soundfile
import torch

from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Role
from callmood.training.results import export
from callmood.training.synthetic import calls
from callmood.worker.model import audio
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.model.model import load

CALLS = Path(__file__).parents[2] / "examples" / "calls"


@pytest.fixture(scope="module")
def report() -> dict:
    """Its report."""
    return json.loads((DEMO_FOLDER / export.REPORT).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def card() -> str:
    """Its model card."""
    return (DEMO_FOLDER / export.CARD).read_text(encoding="utf-8")


def test_it_loads_and_is_small(report: dict):
    """The bundle loads under its own name, matches its digest, and keeps to 3 million parameters and 8 MB."""
    model = load("demo-tiny")
    assert model.info.id == "demo-tiny-synthetic"
    assert model.info.digest == report["model"]["digest"]
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    assert sum(file.stat().st_size for file in DEMO_FOLDER.iterdir()) <= 8_000_000


def test_the_card_says_that_it_is_not_for_real_use(card: str):
    """Synthetic speech, not for real use, and the command that rebuilds it: in words."""
    for words in ("Not for real use", "synthetic speech", "never heard a person", "callmood-train demo-tiny"):
        assert words in card


def test_the_confusion_matrix_of_the_card_is_that_of_the_report(card: str, report: dict):
    """The table in the card holds the counts of `report.json`, and its accuracies follow from them."""
    rows = dict(re.findall(r"^\| (\w+) \| ([\d |]+) \|$", card, re.MULTILINE))
    shown = [[int(count) for count in rows[emotion].split(" | ")] for emotion in EMOTIONS]
    assert shown == report["test"]["confusion"]
    right = sum(shown[i][i] for i in range(len(EMOTIONS)))
    total = sum(map(sum, shown))
    assert total == report["test"]["utterances"]
    assert f"| {right / total:.1%} |" in card


def test_the_card_is_the_one_that_the_report_makes(card: str, report: dict):
    """Nobody edits the card by hand: it is rendered from the report."""
    assert card == export.card(report)


def test_it_was_judged_on_held_out_voices_and_is_better_than_chance(report: dict):
    """At least eight held-out voices, unweighted accuracy over 80 %, and probabilities that can be read as such."""
    assert report["data"]["test"]["speakers"] >= 8
    assert report["test"]["ua"] > 0.8
    assert report["valid"]["nll"] < report["valid"]["nll_uncalibrated"]
    assert report["test"]["ece"] < 0.15
    assert 0.5 < report["test"]["coverage"] <= 1


def test_its_labels_are_the_four_emotions(report: dict):
    """The order of the report's classes is the order of every probability vector in this project."""
    assert [Emotion(label) for label in report["test"]["labels"]] == list(EMOTIONS)


def test_it_hears_what_is_acted_in_the_example_calls():
    """Of the customers' turns in the example calls, at least three in four get the emotion they were acted in."""
    model = load("demo-tiny")
    wanted, heard = [], []
    for path in sorted(CALLS.glob("*.flac")):
        samples, rate_hz = soundfile.read(path, dtype="int16")
        for turn in json.loads(path.with_suffix(".json").read_text(encoding="utf-8")):
            if turn["role"] == Role.CUSTOMER:
                start, end = (turn[key] * rate_hz // 1000 for key in ("start_ms", "end_ms"))
                spoken = samples[start:end, calls.CHANNELS.index(Role.CUSTOMER)]
                with torch.inference_mode():
                    logits = model(*audio.prepare([(Encoding.S16LE, rate_hz, spoken.tobytes())]))
                wanted.append(turn["emotion"])
                heard.append(EMOTIONS[int(logits.argmax())])
    assert len(wanted) == 17
    right = [a for a, b in zip(wanted, heard, strict=True) if a == b]
    assert len(right) >= 13, list(zip(wanted, heard, strict=True))
    assert set(right) == set(EMOTIONS)
