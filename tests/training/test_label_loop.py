"""From own recordings to a first model, to its answers, to a sample with labels, to a second model."""

import csv
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import documented
import pytest

from callmood.bench import label_loop
from callmood.schemas.common import EMOTIONS
from callmood.training import manifest
from callmood.training.__main__ import main as callmood_train
from callmood.worker.model.model import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("espeak")]


@pytest.fixture
def spoken(tmp_path: Path, tiny_overrides: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """A folder with recordings of six calls, and a list of utterances of six others; what is spoken in all of them."""
    more = ("--set", "corpus.voices_per_split=12", "--set", "corpus.train_utterances=1")
    assert callmood_train(["synthesize", str(tmp_path / "corpus"), *tiny_overrides, *more]) == 0
    path = tmp_path / "corpus" / "manifest.jsonl"
    pool = [item for item in manifest.absolute(manifest.read(path), path) if item.split == "train"]
    calls = label_loop.make_calls(pool, tmp_path / "recordings", utterances=4)
    (tmp_path / "labelled").mkdir()
    rows = ["path,label,speaker,start,end,channel"]
    for number, (name, heard) in enumerate(list(calls.items())[:6]):
        Path(name).rename(tmp_path / "labelled" / Path(name).name)
        rows += [f"labelled/{Path(name).name},{one.label},s{number},{one.start_s},{one.end_s},0" for one in heard]
    (tmp_path / "calls.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return {Path(name).stem: heard for name, heard in calls.items()}


def annotate(folder: Path, spoken: dict[str, list], results: Path) -> None:
    """Two annotators: one hears the truth, the other one mistakes one utterance in four of training."""
    times = {one["utterance_id"]: one for one in map(json.loads, results.read_text().splitlines()) if "role" in one}
    with (folder / "to-label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("first.csv", "second.csv"):
        for number, row in enumerate(rows):
            one = times[row["id"]]
            row["label"] = label_loop.spoken_then(spoken[row["session"]], one["start_ms"] / 1000, one["end_ms"] / 1000)
            if name == "second.csv" and number % 4 == 0 and not row["split"]:
                row["label"] = EMOTIONS[(EMOTIONS.index(row["label"]) + 1) % 4]
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.timeout(400)
def test_the_commands_of_the_document_lead_to_a_second_model(
    tmp_path: Path, spoken, tiny_overrides: Sequence[str], monkeypatch: pytest.MonkeyPatch
):
    """docs/training.md, "From production to a better model": each command runs, and votes are soft labels."""
    section = documented.sections("docs/training.md")["From production to a better model"]
    settings = shlex.join(["demo_tiny", *tiny_overrides])
    first, second = (block.replace("PF-hbt-large", settings) for block in documented.blocks(section))
    documented.run(first.replace("--number 200", "--number 14"), monkeypatch)
    annotate(tmp_path / "sample", spoken, tmp_path / "results.jsonl")
    documented.run(second, monkeypatch)
    items = manifest.read(tmp_path / "data-b" / "manifest.jsonl")
    assert any(max(item.shares) == 0.5 for item in items if item.split != "test")
    trained = json.loads((tmp_path / "model-b" / "report.json").read_text())["data"]["train"]["utterances"]
    assert trained > json.loads((tmp_path / "model-a" / "report.json").read_text())["data"]["train"]["utterances"]
    assert load(tmp_path / "model-b").info.digest != load(tmp_path / "model-a").info.digest
    assert os.environ["CALLMOOD_MODEL__PATH"] == "model-a"
    assert json.loads((tmp_path / "report-b" / "summary.json").read_text())["pooled"]["utterances"] >= 3
