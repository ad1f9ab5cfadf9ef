"""Labels that are other words: what `prepare --map` makes of them, and what it refuses."""

import json
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from callmood.schemas.common import Emotion
from callmood.training import config, manifest
from callmood.training.__main__ import main
from callmood.training.corpora import CORPORA
from callmood.training.corpora.labels import Labels
from callmood.training.loop import runs
from callmood.training.loop.data import Share
from callmood.training.wav import write
from callmood.worker.errors import ConfigurationError

ROWS = """path,label,speaker,votes.anger,votes.frustrated
0.wav,anger,a,2,1
1.wav,Frustrated ,b,1,2
2.wav,frustrated,c,0,3
3.wav,"calm, kind",d,0,0
4.wav,Other,e,0,0
5.wav,sad,f,0,0
"""


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A list of six speakers with labels of other words, in several spellings."""
    for number in range(6):
        write(tmp_path / f"{number}.wav", 8000, np.full(4000, number, np.int16).tobytes())
    (tmp_path / "list.csv").write_text(ROWS)
    return tmp_path / "list.csv"


def prepare(source: Path, *more: str, corpus: str = "own") -> int:
    return main(["prepare", corpus, str(source), str(source.parent / "data"), *more])


def test_a_map_gives_other_words_their_emotion(words: Path, capsys: pytest.CaptureFixture[str]):
    """Labels and votes are mapped whatever their case; a label without an emotion is dropped and counted."""
    maps = ["--map", "FRUSTRATED=anger", "--map", " calm, kind = Neutral", "--map", "other="]
    assert prepare(words, *maps) == 0
    items = manifest.read(words.parent / "data" / "manifest.jsonl")
    assert Counter(item.label for item in items) == {Emotion.ANGER: 3, Emotion.NEUTRAL: 1, Emotion.SADNESS: 1}
    assert [item.votes.get("anger") for item in items[:3]] == [3, 3, 3]
    report = json.loads((words.parent / "data" / "prepared.json").read_text())
    assert report["dropped"] == {"label other": {"utterances": 1, "examples": ["000005-4"]}}
    assert report["map"] == {"frustrated": "anger", "calm, kind": "neutral", "other": None}
    assert capsys.readouterr().err == ""


def test_labels_without_a_meaning_are_refused_with_the_options_to_write(words: Path, capsys):
    """Nothing is guessed and no audio is written: the error has each label, its count, and options that work."""
    assert prepare(words) == 2
    message = capsys.readouterr().err
    assert "frustrated (2), calm, kind (1), other (1)" in message
    assert not (words.parent / "data").exists()
    options = shlex.split(message.partition("Add ")[2].partition(" and write")[0])
    assert options == ["--map", "frustrated=", "--map", "calm, kind=", "--map", "other="]
    (words.parent / "list.csv").write_text(ROWS + "0.wav,happy,a,,\n1.wav,neutral,b,,\n2.wav,neutral,c,,\n")
    assert prepare(words, *options) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["frustrated"], "use LABEL=EMOTION"),
        (["=anger"], "use LABEL=EMOTION"),
        (["frustrated=rage"], "unknown emotion 'rage'"),
        (["anger=frustrated"], "unknown emotion 'frustrated'"),
        (["frustrated=anger", "Frustrated="], "'frustrated' has two meanings"),
        (["frustrated=anger", "calm, kind=", "other=", "bored="], "--map bored: no utterance has this label"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(words: Path, capsys, given: list[str], message: str):
    """A text of another form, an unknown emotion, two meanings of a label, and a label that never occurs."""
    assert prepare(words, *(word for text in given for word in ("--map", text))) == 2
    assert message in capsys.readouterr().err


def test_a_corpus_is_mapped_by_its_own_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Labels of a released corpus are exact; others than the four are dropped unless a map says what they mean."""
    for code in ("01", "02", "05"):
        name = f"03-01-{code}-01-01-01-02.wav"
        write(tmp_path / "ravdess" / "Actor_02" / name, 48_000, np.ones(24_000, np.int16).tobytes())
    kept = {}
    for maps in ([], ["--map", "02=neutral"], ["--map", "05="]):
        assert prepare(tmp_path / "ravdess", *maps, corpus="ravdess") == 0
        kept[tuple(maps)] = [item.label for item in manifest.read_any(tmp_path / "data" / "manifest.jsonl")]
    assert list(kept.values()) == [["neutral", "anger"], ["neutral", "neutral", "anger"], ["neutral"]]
    assert prepare(tmp_path / "ravdess", "--map", "calm=neutral", corpus="ravdess") == 2
    assert "labels are 01 (1), 02 (1), 05 (1)" in capsys.readouterr().err


def test_a_map_may_name_labels_that_only_votes_have():
    """MSP-Podcast's votes name other emotions by words that no consensus label is."""
    labels = Labels(CORPORA["msp-podcast"], ["frustrated=anger"])
    assert labels.votes({"A": 1, "frustrated": 2, "contempt": 1, "N": 1}) == {"anger": 3, "neutral": 1}
    with pytest.raises(ConfigurationError, match="no utterance has this label; labels are none"):
        labels.refuse_unknown([], Path())


def test_a_manifest_is_mapped_when_it_is_prepared(words: Path, capsys: pytest.CaptureFixture[str]):
    """`row --map` on a manifest would do nothing, so it is refused."""
    given = ["row", "PF-hbt-base", "--data", str(words), "--protocol", "given", "--map", "other="]
    assert main(given) == 2
    assert "`prepare --map`" in capsys.readouterr().err


def test_a_run_of_another_map_is_another_run(words: Path):
    """Labels are part of what `--resume` compares."""
    prints = set()
    for meaning in ("anger", "sadness", ""):
        assert prepare(words, "--map", f"frustrated={meaning}", "--map", "calm, kind=neutral", "--map", "other=") == 0
        path = words.parent / "data" / "manifest.jsonl"
        items = manifest.absolute(manifest.read(path), path)
        prints.add(runs.fingerprint(config.load(config.find("demo_tiny")), items, Share(), runs.Clips()))
    assert len(prints) == 3
