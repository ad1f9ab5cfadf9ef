"""The `callmood-train` command."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from callmood.training.__main__ import main
from callmood.worker.model.model import load


@pytest.mark.slow
@pytest.mark.usefixtures("espeak")
def test_the_command_of_the_card_rebuilds_a_bundle(
    tmp_path: Path, tiny_overrides: Sequence[str], capsys: pytest.CaptureFixture[str]
):
    """`callmood-train demo-tiny` goes from nothing to a bundle that loads; here with a tiny corpus and few steps."""
    out = tmp_path / "bundle"
    assert main(["demo-tiny", "--work", str(tmp_path / "work"), "--out", str(out), *tiny_overrides]) == 0
    assert load(out).info.id == "demo-tiny-synthetic"
    printed = json.loads(capsys.readouterr().out)
    report = json.loads((out / "report.json").read_text())
    assert printed["test"] == report["test"]
    assert report["test"]["utterances"] == 4
    assert "espeak-ng" in report["training"]["tools"]
    assert report["training"]["command"].startswith("callmood-train demo-tiny --set corpus.voices_per_split=1")
    assert not [file for file in out.iterdir() if str(tmp_path).encode() in file.read_bytes()]


@pytest.mark.slow
@pytest.mark.usefixtures("espeak")
def test_synthesize_and_train_are_the_two_halves(
    tmp_path: Path, tiny_overrides: Sequence[str], capsys: pytest.CaptureFixture[str]
):
    """A corpus on disk and a configuration give a bundle; the manifest's path is what `synthesize` prints."""
    assert main(["synthesize", str(tmp_path / "corpus"), *tiny_overrides]) == 0
    manifest = capsys.readouterr().out.strip()
    arguments = ["train", "training/configs/demo_tiny.toml", manifest, str(tmp_path / "bundle"), *tiny_overrides]
    assert main(arguments) == 0
    assert load(tmp_path / "bundle").info.id == "demo-tiny-synthetic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.toml", "manifest.jsonl", "out"], "no file none.toml"),
        (["synthesize", "out", "--set", "corpus.sed=1"], "no such key"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    """A mistake gives one line on standard error and exit code 2, and nothing is written."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
