"""Manifests: what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from callmood.schemas.common import Emotion
from callmood.training import manifest
from callmood.training.results import predict
from callmood.worker.errors import ConfigurationError


def item(name: str, split: str, speaker: str | None = None, corpus: str = "corpus") -> manifest.Item:
    """An item of a speaker of its own."""
    return manifest.Item(name, f"{name}.wav", corpus, speaker or name, "en", Emotion.ANGER, split, 1.0)


ITEMS = [item("a", "train"), item("b", "valid"), item("c", "test")]


def test_a_written_manifest_reads_back(tmp_path: Path):
    """Writing and reading a manifest changes nothing."""
    manifest.write(tmp_path / "manifest.jsonl", ITEMS)
    assert manifest.read(tmp_path / "manifest.jsonl") == ITEMS


@pytest.mark.parametrize("splits", [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_a_speaker_in_two_splits_is_refused(tmp_path: Path, splits: tuple[str, str]):
    """A speaker in two splits is an error that names the speaker and both splits, however the manifest is read."""
    leak = [item(f"leak-{split}", split, speaker="kim") for split in splits]
    manifest.write(tmp_path / "manifest.jsonl", [*ITEMS, *leak])
    with pytest.raises(ConfigurationError, match=f"kim .* {splits[0]} .* {splits[1]}"):
        manifest.read(tmp_path / "manifest.jsonl")


def test_equal_names_in_two_corpora_are_two_speakers():
    """Speaker `01` of one corpus is not speaker `01` of another."""
    manifest.refuse_shared_speakers([item("a", "train", "01", "one"), item("b", "test", "01", "two")])


def test_a_missing_split_is_refused(tmp_path: Path):
    """A manifest without a test split cannot be trained on."""
    manifest.write(tmp_path / "manifest.jsonl", ITEMS[:2])
    with pytest.raises(ConfigurationError, match="no items for test"):
        manifest.read(tmp_path / "manifest.jsonl")


def test_a_missing_manifest_is_refused(tmp_path: Path):
    """No manifest is an error of the configuration."""
    with pytest.raises(ConfigurationError, match="no manifest"):
        manifest.read(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize(
    "change",
    [{"label": "boredom"}, {"split": "dev"}, {"colour": "red"}],
    ids=["unknown label", "unknown split", "unknown field"],
)
def test_a_line_that_is_no_item_is_refused_by_its_number(tmp_path: Path, change: dict[str, str]):
    """A wrong line is named by its number."""
    path = tmp_path / "manifest.jsonl"
    manifest.write(path, ITEMS)
    with path.open("a") as file:
        file.write(json.dumps({**dataclasses.asdict(ITEMS[0]), **change}) + "\n")
    with pytest.raises(ConfigurationError, match="line 4"):
        manifest.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker": 7}, "speaker is 7: use a text"),
        ({"session": None}, "session is None: use a text"),
        ({"path": None}, "path is None"),
        ({"seconds": "1"}, "seconds is '1': use seconds"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"start": -1}, "start is -1"),
        ({"start": True}, "start is True"),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_name(tmp_path: Path, change: dict[str, object], message: str):
    """A manifest that a script has changed is refused by line and field, and not in the middle of a command."""
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({**dataclasses.asdict(ITEMS[0]), **change}))
    with pytest.raises(ConfigurationError, match=f"line 1: {message}"):
        manifest.read_any(path)


@pytest.mark.parametrize("text", ["path,label,speaker\na.wav,sad,x\n", '{"path": "a.wav", "label": "sadness"}\n'])
def test_an_own_list_is_no_manifest(tmp_path: Path, text: str):
    """A list that was not prepared is refused with the name of the command that is missing."""
    (tmp_path / "calls.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=r"calls\.csv, line 1: .*`callmood-train prepare`"):
        manifest.read(tmp_path / "calls.csv")


def test_a_manifest_that_an_editor_saved_with_a_mark_is_read(tmp_path: Path):
    """A byte-order mark is no part of the first line."""
    path = tmp_path / "manifest.jsonl"
    manifest.write(path, ITEMS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert manifest.read(path) == ITEMS
    assert predict.is_manifest(path)


def test_manifests_are_joined_with_their_own_folders(tmp_path: Path):
    """Several manifests are one corpus: paths stay right, ids are unique, and a speaker is in one split of all."""
    one = manifest.Item("a", "a.wav", "own", "s1", "en", Emotion.ANGER, "train", 1.0)
    first, second = tmp_path / "1" / "m.jsonl", tmp_path / "2" / "m.jsonl"
    manifest.write(first, [one, dataclasses.replace(one, id="b", speaker="s2", split="valid")])
    manifest.write(second, [dataclasses.replace(one, id="c", speaker="s3", split="test")])
    assert [item.path for item in manifest.joined([first, second])] == [
        str(tmp_path / "1" / "a.wav"),
        str(tmp_path / "1" / "a.wav"),
        str(tmp_path / "2" / "a.wav"),
    ]
    for changes, message in (
        ({"id": "a"}, "have the id a"),
        ({"speaker": "s1"}, "speaker s1 of own is in train and in"),
    ):
        manifest.write(second, [dataclasses.replace(one, **{"id": "c", "speaker": "s3", "split": "test", **changes})])
        with pytest.raises(ConfigurationError, match=message):
            manifest.joined([first, second])


@pytest.mark.parametrize("field", ['"votes": {"anger": %s}', '"seconds": %s'])
def test_a_number_beyond_all_numbers_is_an_error_with_the_line(tmp_path: Path, field: str):
    """JSON has integers of any length, which no float holds."""
    item = manifest.Item("a", "a.wav", "own", "s", "", Emotion.ANGER, "train", 1.0)
    manifest.write(tmp_path / "manifest.jsonl", [item])
    line = json.loads((tmp_path / "manifest.jsonl").read_text()) | json.loads("{" + field % ("1" + "0" * 400) + "}")
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ConfigurationError, match="line 1: int too large"):
        manifest.read_any(tmp_path / "manifest.jsonl")
