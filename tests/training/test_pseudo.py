"""`callmood-train predict --pseudo`: a model's answers as an own list to train another model on."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import manifest, wav
from callmood.training.__main__ import main
from callmood.training.corpora import own
from callmood.training.corpora.found import WHOLE
from callmood.training.loop import runs
from callmood.worker.errors import ConfigurationError

PITCHES = (3, 5, 9, 17, 33, 65)


def sound(pitch: float, seconds: float = 1.0) -> np.ndarray:
    return (np.sin(np.arange(round(seconds * 8000)) / pitch) * 9000).astype("<i2")


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """A list without labels: parts of a stereo recording, a file with a speaker, and rows of other splits."""
    left = np.concatenate([sound(pitch) for pitch in PITCHES])
    stereo = np.stack([left, left[::-1]], axis=1)
    wav.write(tmp_path / "calls" / "a.wav", 8000, stereo.tobytes(), channels=2)
    wav.write(tmp_path / "calls" / "b.wav", 8000, sound(7).tobytes())
    rows = ["path,start,end,channel,speaker,split"]
    rows += [f"calls/a.wav,{number},{number + 1},{number % 2},,{'train' * (number % 2)}" for number in range(4)]
    rows += ["calls/b.wav,,,,anna,", "calls/a.wav,4,5,0,,test", "calls/a.wav,5,6,0,,valid", "calls/missing.wav,,,,,"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "list.csv"


def predicted(source: Path, out: Path, *more: str) -> int:
    command = ["predict", "demo-tiny", str(source), str(out / "answers.jsonl"), "--pseudo", str(out / "to" / "new.csv")]
    return main([*command, *more])


def test_answers_become_a_list_for_training_alone(unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`prepare own` reads it: the same audio, the answer as label, probabilities as votes, no other split."""
    assert predicted(unlabelled, tmp_path) == 0
    counts = json.loads(capsys.readouterr().out)["pseudo"]
    assert counts == {"written": 5, "split test": 1, "split valid": 1, "no answer": 1}
    answers = {row["id"]: row for row in map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())}
    listed = list(own.find(tmp_path / "to" / "new.csv"))
    originals = {one.id: one for one in own.read(unlabelled, {"path"})}
    for one in listed:
        answer, original = answers[one.id], originals[one.id]
        assert (one.path.resolve(), one.cut) == (original.path, original.cut)
        assert (one.label, one.split) == (answer["predicted"], "train")
        assert dict(one.votes) == {emotion: answer[emotion] for emotion in EMOTIONS}
        assert one.speaker == (original.speaker or "calls/a.wav")
    assert main(["prepare", "own", str(tmp_path / "to" / "new.csv"), str(tmp_path / "data"), "--name", "pseudo"]) == 0
    items = manifest.read_any(tmp_path / "data" / "manifest.jsonl")
    assert [len(item.shares) for item in items] == [4] * 5


def test_only_answers_above_the_confidence_are_labels(unlabelled: Path, tmp_path: Path, capsys):
    """`--above` leaves out the others and counts them; if none is left, that is an error and nothing is written."""
    assert predicted(unlabelled, tmp_path) == 0
    rows = list(map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines()))
    confidences = sorted(row["confidence"] for row in rows[:5])
    capsys.readouterr()
    assert predicted(unlabelled, tmp_path, "--above", str(confidences[2])) == 0
    assert json.loads(capsys.readouterr().out)["pseudo"]["written"] == 3
    assert all(max(one.votes.values()) >= confidences[2] for one in own.find(tmp_path / "to" / "new.csv"))
    (tmp_path / "to" / "new.csv").unlink()
    assert predicted(unlabelled, tmp_path, "--above", "1") == 2
    assert "no answer can be used as a label: {'confidence below 1': 5" in capsys.readouterr().err
    assert not (tmp_path / "to" / "new.csv").exists()


def test_a_manifest_becomes_a_list_of_its_training_split(unlabelled: Path, tmp_path: Path):
    """Distillation on labelled speech: paths lead to the manifest's audio, and true labels are not written."""
    assert predicted(unlabelled, tmp_path) == 0
    first = tmp_path / "to" / "new.csv"
    assert main(["prepare", "own", str(first), str(tmp_path / "data")]) == 0
    source = tmp_path / "data" / "manifest.jsonl"
    items = manifest.read_any(source)
    manifest.write(source, [dataclasses.replace(item, label=EMOTIONS[0]) for item in items])
    assert predicted(source, tmp_path / "again") == 0
    again = list(own.find(tmp_path / "again" / "to" / "new.csv"))
    assert [(one.id, one.speaker, one.path.resolve()) for one in again] == [
        (item.id, item.speaker, (source.parent / item.path).resolve()) for item in items
    ]
    assert [one.label for one in again] == [one.label for one in own.find(first)]


def test_rows_are_written_as_they_were_understood(unlabelled: Path, tmp_path: Path):
    """Empty cells of pandas (NaN), a speaker that is a number, and spaces around a path, in a list of JSON lines."""
    source = tmp_path / "list.jsonl"
    rows = [
        {"path": " calls/b.wav", "start": float("nan"), "end": float("nan"), "speaker": float("nan")},
        {"path": "calls/a.wav", "start": 1, "end": 2, "channel": 1.0, "speaker": 0},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predicted(source, tmp_path) == 0
    first, second = own.find(tmp_path / "to" / "new.csv")
    assert first.path.resolve() == unlabelled.parent / "calls" / "b.wav"
    assert (first.speaker, first.cut) == ("calls/b.wav", WHOLE)
    assert (second.speaker, second.cut) == ("0", (1.0, 2.0, 1))


def test_audio_of_a_test_does_not_train_a_student_under_another_name(unlabelled: Path, tmp_path: Path, capsys):
    """The same samples in another file, of another corpus and another speaker, are refused; other audio is not."""
    calls = unlabelled.parent / "calls"
    for name, pitch in (("copy", 7), ("other", 8), ("train", 9), ("valid", 10)):
        wav.write(calls / f"{name}.wav", 8000, sound(pitch).tobytes())

    def item(name: str, corpus: str, split: str) -> manifest.Item:
        return manifest.Item(name, str(calls / f"{name}.wav"), corpus, name, "", EMOTIONS[0], split, 1.0)

    labelled = [item("train", "own", "train"), item("valid", "own", "valid"), item("b", "own", "test")]
    runs.refuse_shared_audio([*labelled, item("other", "pseudo", "train")], runs.Clips())
    with pytest.raises(ConfigurationError, match="valid of pseudo is in train, and the same audio, valid of own, in v"):
        runs.refuse_shared_audio([*labelled, item("valid", "pseudo", "train")], runs.Clips())
    lists = [tmp_path / "labelled.jsonl", tmp_path / "pseudo.jsonl"]
    for path, items in zip(lists, (labelled, [item("copy", "pseudo", "train")]), strict=True):
        manifest.write(path, items)
    assert main(["train", "PF-hbt-base", str(lists[0]), str(tmp_path / "student"), "--add", str(lists[1])]) == 2
    assert "copy of pseudo is in train, and the same audio, b of own, in test" in capsys.readouterr().err


def test_a_recording_that_is_a_link_keeps_its_name(unlabelled: Path, tmp_path: Path):
    """Tools that keep large files elsewhere link to them by checksums, which say neither kind nor place."""
    (tmp_path / "store").mkdir()
    (unlabelled.parent / "calls" / "b.wav").rename(tmp_path / "store" / "5f3a")
    (unlabelled.parent / "calls" / "b.wav").symlink_to(tmp_path / "store" / "5f3a")
    (tmp_path / "list.csv").write_text("path\ncalls/b.wav\n")
    assert predicted(tmp_path / "list.csv", tmp_path) == 0
    (one,) = own.find(tmp_path / "to" / "new.csv")
    assert one.path.name == "b.wav"


@pytest.mark.parametrize("silence", [0, 8])
def test_a_copy_in_the_same_list_is_refused_and_silence_is_not(unlabelled: Path, silence: int):
    """One list may hold a recording twice, under two speakers; equal digital silence (8 in A-law) is no leak."""
    calls, quiet = unlabelled.parent / "calls", np.full(8000, silence)
    for name, samples in (("copy", sound(7)), ("quiet", quiet), ("quiet-2", quiet)):
        wav.write(calls / f"{name}.wav", 8000, samples.astype("<i2").tobytes())

    def item(name: str, split: str) -> manifest.Item:
        return manifest.Item(name, str(calls / f"{name}.wav"), "own", name, "", EMOTIONS[0], split, 1.0)

    runs.refuse_shared_audio([item("quiet", "train"), item("quiet-2", "test")], runs.Clips())
    with pytest.raises(ConfigurationError, match="copy of own is in train, and the same audio, b of own, in valid"):
        runs.refuse_shared_audio([item("copy", "train"), item("b", "valid")], runs.Clips())
