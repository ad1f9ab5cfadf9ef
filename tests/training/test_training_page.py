"""The commands of docs/training.md, section by section; longer sections have a file of their own."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import documented
import iemocap_tree
import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import manifest, protocols, wav
from callmood.worker.model.model import load

PAGE = documented.sections("docs/training.md")
FEW = ("train.epochs=0", "train.steps=2", "train.evaluate_steps=1")
OTHERS = ("frustrated", "calm", "other")
# Each section with commands, and the file that runs all of them.
RUN_BY = {
    "Try it without a corpus": "test_tutorial.py",
    "Your own calls": "test_training_page.py",
    "Natural speech": "test_training_page.py",
    "Speech without labels": "test_pretraining.py",
    "From production to a better model": "test_label_loop.py",
    "The rows of the paper": "test_training_page.py",
    "Long runs": "test_training_page.py",
}


def small(script: str, encoder: Path) -> str:
    """The script with a few steps of a small encoder."""
    settings = shlex.join(word for value in FEW for word in ("--set", value))
    lines = [f"{line} --encoder {encoder} {settings}" if "PF-hbt" in line else line for line in script.splitlines()]
    return "\n".join(lines)


def own_list(path: Path, labels: tuple[str, ...], seed: int = 1) -> None:
    """Write utterances of six speakers, each with all labels, and their list."""
    rng = np.random.default_rng(seed)
    rows = ["path,label,speaker"]
    for number in range(6 * len(labels)):
        speaker, kind = divmod(number, len(labels))
        sound = np.sin(np.arange(6400) * (kind + 1) / 9) + rng.normal(scale=0.1, size=6400)
        wav.write(path.parent / "wav" / f"{number}.wav", 8000, (sound * 8000).astype("<i2").tobytes())
        rows.append(f"wav/{number}.wav,{labels[kind]},caller-{speaker}")
    path.write_text("\n".join(rows) + "\n")


def test_every_section_with_commands_is_run():
    """A new section with a script needs a test: each is named here with the file that runs it."""
    assert {title for title, text in PAGE.items() if documented.blocks(text)} == RUN_BY.keys()
    for title, name in RUN_BY.items():
        assert title in (Path(__file__).parent / name).read_text()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_own_calls_become_a_bundle(
    encoder_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Section "Your own calls": from a list to a bundle, a report, folds of speakers, a mapped list, and answers."""
    section = PAGE["Your own calls"]
    encoder = encoder_folder("hbt-large")
    monkeypatch.chdir(tmp_path)
    own_list(Path("calls.csv"), EMOTIONS)
    whole, mapped = documented.blocks(section)
    documented.run(small(whole, encoder), monkeypatch)
    assert load(Path("model")).info.id == "PF-hbt-large"
    assert json.loads(Path("report/summary.json").read_text())["pooled"]["utterances"] >= 4
    documented.run(small(documented.inline(section, "row PF-hbt-large"), encoder), monkeypatch)
    summary = json.loads(Path("runs/PF-hbt-large/speaker_folds/summary.json").read_text())
    assert summary["pooled"]["utterances"] == 24
    documented.run(documented.inline(section, "predict model").replace(" LIST ", " calls.csv "), monkeypatch)
    assert "000001-0" in Path("answers.html").read_text()
    assert Path("answers.parquet").stat().st_size > 0
    own_list(Path("calls.csv"), (*EMOTIONS, *OTHERS))
    documented.run(mapped, monkeypatch)
    items = manifest.read(Path("data/manifest.jsonl"))
    assert len(items) == 6 * (len(EMOTIONS) + 2)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_student_learns_from_a_teacher(
    encoder_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Section "Natural speech": votes and dimensions for a teacher, whose answers to other speech train a student."""
    monkeypatch.chdir(tmp_path)
    own_list(Path("calls.csv"), EMOTIONS)
    header, *rows = Path("calls.csv").read_text().splitlines()
    extra = ["2,1,0.5"] * len(rows)
    listed = [f"{row},{more}" for row, more in zip(rows, extra, strict=True)]
    Path("calls.csv").write_text("\n".join([f"{header},votes.anger,votes.neutral,arousal", *listed]) + "\n")
    documented.callmood_train(["prepare", "own", "calls.csv", "data"])
    own_list(Path("other/calls.csv"), EMOTIONS, seed=2)
    Path("unlabelled.csv").write_text("path\n" + "".join(f"other/{row.split(',')[0]}\n" for row in rows[:8]))
    (script,) = documented.blocks(PAGE["Natural speech"])
    # two steps of training are not enough for a confidence of 0.8
    documented.run(small(script, encoder_folder("hbt-large")).replace("--above 0.8", "--above 0.2"), monkeypatch)
    report = json.loads(Path("student/report.json").read_text())
    labelled = json.loads(Path("teacher/report.json").read_text())["data"]["train"]["utterances"]
    assert report["data"]["train"]["utterances"] == labelled + 8
    assert report["data"]["corpora"] == ["own", "pseudo"]
    assert load(Path("student")).info.id == "PF-hbt-base"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_row_of_the_paper_is_run(
    encoder_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Section "The rows of the paper": the list of rows, and the first fold of both protocols of one row."""
    folds = protocols.folds
    monkeypatch.setattr(protocols, "folds", lambda *given: folds(*given)[:1])
    monkeypatch.chdir(tmp_path)
    iemocap_tree.write(Path("IEMOCAP_full_release"), iemocap_tree.small(1))
    (script,) = documented.blocks(PAGE["The rows of the paper"])
    script = script.replace("IEMOCAP_full_release", "IEMOCAP_full_release --partial")
    documented.run(small(script, encoder_folder("hbt-large")), monkeypatch)
    for protocol in ("sd_random", "loso_speaker"):
        assert len(json.loads(Path(f"runs/PF-hbt-large/{protocol}/summary.json").read_text())["folds"]) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_row_runs_under_torchs_launcher(encoder_folder: Callable[..., Path], tmp_path: Path):
    """Section "Long runs": `torchrun` starts the row in several processes, which write one summary."""
    (script,) = documented.blocks(PAGE["Long runs"])
    own_list(tmp_path / "calls.csv", EMOTIONS)
    documented.callmood_train(["prepare", "own", str(tmp_path / "calls.csv"), str(tmp_path / "data")])
    script = script.replace("--nproc-per-node=4", "--nproc-per-node=2")
    script = script.replace("IEMOCAP_full_release", "data/manifest.jsonl --protocol given")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", small(script, encoder_folder("hbt-large"))],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "runs/PF-hbt-large/given/summary.json").read_text())["folds"]) == 1
    assert done.stdout.count("PF-hbt-large, given: WA") == 1
