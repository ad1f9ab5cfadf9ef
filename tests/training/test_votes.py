"""`callmood-train votes`: what several annotators labelled, as one list."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callmood.training import manifest
from callmood.training.__main__ import main
from callmood.training.production import votes
from callmood.worker.errors import ConfigurationError


def write(path: Path, labels: dict[str, str], splits: str = "test") -> Path:
    """A list as one annotator returns it."""
    path.parent.mkdir(exist_ok=True)
    lines = [f"{name},audio/{name}.wav,{label},s-{name},{splits}" for name, label in labels.items()]
    path.write_text("id,path,label,speaker,split\n" + "".join(line + "\n" for line in lines))
    return path


def test_majorities_and_votes_of_three_annotators(tmp_path: Path):
    """The majority's label and all votes are kept, names of an emotion are one; an empty label is no vote."""
    first = write(tmp_path / "a.csv", {"1": "anger", "2": "happy", "3": "", "4": "Sad"})
    second = write(tmp_path / "b.csv", {"1": "anger", "2": "frustrated", "3": "", "4": ""})
    third = write(tmp_path / "c.csv", {"1": "neutral", "2": "HAPPINESS", "3": "", "4": ""})
    counts = votes.join([first, second, third], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {name: row["label"] for name, row in rows.items()} == {"1": "anger", "2": "happiness", "4": "sadness"}
    assert (rows["1"]["votes.anger"], rows["1"]["votes.neutral"]) == ("2", "1")
    assert (rows["2"]["votes.happiness"], rows["2"]["votes.frustrated"]) == ("2", "1")
    assert counts == {"utterances": 4, "labelled": 3, "unanimous": 1, "ties": 0, "left_out": 0, "kappa": None}


@pytest.mark.parametrize(("split", "kept"), [("test", 1), ("valid", 1), ("train", 2), ("", 2)])
def test_a_tie_trains_and_is_not_judged(tmp_path: Path, split: str, kept: int):
    """Where two annotators disagree, training has half a vote for each; figures are not computed on it."""
    first = write(tmp_path / "a.csv", {"1": "anger", "2": "sadness"}, split)
    second = write(tmp_path / "b.csv", {"1": "neutral", "2": "sadness"}, split)
    counts = votes.join([first, second], tmp_path / "out.csv")
    assert (counts["labelled"], counts["unanimous"], counts["ties"], counts["left_out"]) == (2, 1, 1, 2 - kept)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert len(rows) == kept
    if kept == 2:
        assert (rows["1"]["label"], rows["1"]["votes.anger"], rows["1"]["votes.neutral"]) == ("anger", "1", "1")


def test_cohens_kappa_of_a_known_table(tmp_path: Path):
    """20 and 15 agreed of 50, with 5 and 10 disagreements: kappa is 0.4 (Cohen's formula by hand)."""
    pairs = [("anger", "anger")] * 20 + [("anger", "neutral")] * 5
    pairs += [("neutral", "anger")] * 10 + [("neutral", "neutral")] * 15
    lists = [write(tmp_path / f"{k}.csv", {str(i): pair[k] for i, pair in enumerate(pairs)}, "train") for k in range(2)]
    assert votes.join(lists, tmp_path / "out.csv")["kappa"] == 0.4


def test_the_joined_list_is_one_for_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Paths are still right in another folder, and the votes of two annotators are soft labels of the manifest."""
    (tmp_path / "audio").mkdir()
    emotions = ("anger", "happiness", "neutral", "sadness")
    for name in "1234":
        soundfile.write(tmp_path / "audio" / f"{name}.wav", np.sin(np.arange(8000) / 5) / 2, 8000, subtype="PCM_16")
    first = write(tmp_path / "a.csv", dict(zip("1234", emotions, strict=True)), "")
    second = write(tmp_path / "b.csv", dict(zip("1234", ("neutral", *emotions[1:]), strict=True)), "")
    (tmp_path / "joined").mkdir()
    assert main(["votes", str(first), str(second), str(tmp_path / "joined" / "list.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 4
    assert main(["prepare", "own", str(tmp_path / "joined" / "list.csv"), str(tmp_path / "data")]) == 0
    items = {item.id: item for item in manifest.read(tmp_path / "data" / "manifest.jsonl")}
    assert items["1"].shares == (0.5, 0.0, 0.5, 0.0)
    assert items["2"].shares == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("second", "message"),
    [({"9": "anger"}, "9 is not in"), ({"1": "angr"}, "row 1: unknown"), ({}, "no manifest")],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, capsys, second: dict[str, str], message: str):
    """Another list's utterance and a misspelt emotion are errors with the file."""
    first = write(tmp_path / "a.csv", {"1": "anger"})
    other = write(tmp_path / "b.csv", second) if second else tmp_path / "none.csv"
    assert main(["votes", str(first), str(other), str(tmp_path / "out.csv")]) == 2
    assert (message if second else "none.csv") in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_an_annotators_list_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Without OUT, the last annotator's list would be written; a joined list is written again."""
    lists = [write(tmp_path / f"{name}.csv", {"1": "anger"}, "") for name in "ab"]
    assert main(["votes", *map(str, lists)]) == 2
    assert "b.csv exists and is not a joined list" in capsys.readouterr().err
    assert "votes." not in lists[1].read_text()
    for _ in range(2):
        assert main(["votes", *map(str, lists), str(tmp_path / "out.csv")]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",test\n", ",\n", "split of 1 is '', and 'test' in"),
        ("s-1", "s-2", "speaker of 1 is 's-2', and 's-1' in"),
        ("1,audio", "1,audio/1.wav,sad,s-1,test\n1,audio", "row 2: 1 is in an earlier row, too"),
        ("id,path", "number,path", "row 1: no id"),
    ],
)
def test_marks_that_differ_between_annotators_are_refused(tmp_path: Path, capsys, old: str, new: str, message: str):
    """A split, a speaker or a row that one annotator changed is not overwritten by the other's in silence."""
    first, second = (write(tmp_path / f"{name}.csv", {"1": "anger"}) for name in "ab")
    second.write_text(second.read_text().replace(old, new, 1))
    assert main(["votes", str(first), str(second), str(tmp_path / "out.csv")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("other", ["b.csv", "b.jsonl", "b.txt"])
@pytest.mark.parametrize("order", [1, -1])
def test_marks_that_one_list_lacks_are_those_of_the_other(tmp_path: Path, other: str, order: int):
    """An annotator may return id, path and label only: speaker, split and session are in the other list."""
    first = write(tmp_path / "a.csv", {"1": "anger", "2": "sadness"})
    rows = [{"id": name, "path": f"audio/{name}.wav", "label": "anger"} for name in "12"]
    text = "\n".join(map(json.dumps, rows)) if "csv" not in other else "id,path,label\n1,x,anger\n2,x,anger\n"
    (tmp_path / other).write_text(text)
    counts = votes.join([first, tmp_path / other][::order], tmp_path / "out.csv")
    assert (counts["unanimous"], counts["left_out"]) == (1, 1)
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["speaker"], row["split"], row["votes.anger"]) == ("s-1", "test", "2")


@pytest.mark.parametrize("order", [1, -1])
def test_the_part_of_a_recording_is_that_of_either_list(tmp_path: Path, order: int):
    """Times and the channel survive a list without them; the same time may be written in two ways."""
    (tmp_path / "a.csv").write_text("id,path,label\n1,x.wav,anger\n")
    (tmp_path / "b.csv").write_text("id,path,label,start,end,channel\n1,x.wav,anger,0.50,2,1\n")
    (tmp_path / "c.csv").write_text("id,path,label,start,end,channel\n1,x.wav,anger,0.5,2.0,1\n")
    votes.join([tmp_path / f"{name}.csv" for name in "abc"][::order], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["start"]), float(row["end"]), row["channel"]) == (0.5, 2.0, "1")
    (tmp_path / "c.csv").write_text("id,path,label,start,end,channel\n1,x.wav,anger,0.6,2.0,1\n")
    with pytest.raises(ConfigurationError, match=r"start of 1 is '0\.\d'"):
        votes.join([tmp_path / "b.csv", tmp_path / "c.csv"], tmp_path / "out.csv")


def test_a_joined_list_is_no_annotators_list(tmp_path: Path):
    """The votes in it would be replaced by one vote for its label."""
    lists = [write(tmp_path / f"{name}.csv", {"1": "anger"}) for name in "abc"]
    votes.join(lists[:2], tmp_path / "joined.csv")
    with pytest.raises(ConfigurationError, match="row 1: has votes already"):
        votes.join([tmp_path / "joined.csv", lists[2]], tmp_path / "out.csv")


def test_a_tie_is_not_judged_whatever_its_split_is_called(tmp_path: Path):
    """`Test` and `dev` are the splits `test` and `valid` in the joined list, too."""
    lists = [write(tmp_path / f"{label}.csv", {"1": label, "2": "sadness"}, "Dev") for label in ("anger", "neutral")]
    assert votes.join(lists, tmp_path / "out.csv")["left_out"] == 1
    assert "2,audio/2.wav,sadness,s-2,valid" in (tmp_path / "out.csv").read_text()
