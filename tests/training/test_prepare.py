"""Your own calls to a manifest, as `callmood-train prepare own` does it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callmood.schemas.common import Emotion
from callmood.training import manifest
from callmood.training.__main__ import main
from callmood.training.corpora import CORPORA, prepare
from callmood.worker.errors import ConfigurationError


def recording(path: Path, rate_hz: int = 8000, channels: int = 1, seconds: float = 0.6, **kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.sin(np.arange(round(seconds * rate_hz)) / 7)[:, None] / 2
    soundfile.write(path, np.repeat(samples, channels, axis=1), rate_hz, **kind)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Twelve utterances of six speakers in a list as a spreadsheet writes it."""
    lines = ["\ufeffpath,label,speaker,gender,votes.anger,votes.frustration"]
    for number in range(12):
        recording(tmp_path / "wav" / f"{number}.wav")
        label = ["anger", "Happy", "neutral", "SAD"][number % 4]
        lines.append(f"wav/{number}.wav,{label},caller-{number // 2},F,{number},1")
    (tmp_path / "calls.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "calls.csv"


def test_a_list_of_own_calls_becomes_a_manifest_with_splits(calls: Path, tmp_path: Path, capsys):
    """`prepare own` maps labels in any case, deals speakers out, and leaves 8 kHz files where they are."""
    assert main(["prepare", "own", str(calls), str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    items = manifest.read(tmp_path / "data" / "manifest.jsonl")
    assert {item.label for item in items} == set(Emotion)
    assert {item.split for item in items} == set(manifest.SPLITS)
    assert (tmp_path / "data" / items[0].path).resolve() == tmp_path / "wav" / "0.wav"
    assert not (tmp_path / "data" / "audio").exists()
    assert items[3].votes == {"anger": 3.0}
    assert '"utterances": 12' in printed
    assert printed.endswith(f"{tmp_path / 'data' / 'manifest.jsonl'}\n")


def test_splits_that_are_given_are_kept(tmp_path: Path):
    """A JSON-lines list with splits keeps them; votes are a table there."""
    for name in ("a", "b", "c"):
        recording(tmp_path / f"{name}.wav")
    rows = [
        {
            "id": name,
            "path": f"{name}.wav",
            "label": "neutral",
            "speaker": name,
            "split": split,
            "votes": {"neutral": 3},
        }
        for name, split in zip("abc", manifest.SPLITS, strict=True)
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["prepare", "own", str(tmp_path / "list.jsonl"), str(tmp_path / "data")]) == 0
    items = manifest.read(tmp_path / "data" / "manifest.jsonl")
    assert [(item.id, item.split, item.votes) for item in items] == [
        (name, split, {"neutral": 3}) for name, split in zip("abc", manifest.SPLITS, strict=True)
    ]


@pytest.mark.parametrize(
    ("file", "options", "seconds"),
    [
        ("a.flac", {}, 0.6),
        ("a.ogg", {}, 0.6),
        ("a.wav", {"subtype": "PCM_24"}, 0.6),
        ("a.wav", {"subtype": "ULAW"}, 0.6),
        ("a.wav", {"rate_hz": 11_025}, 0.6),
    ],
)
def test_other_audio_is_converted(tmp_path: Path, file: str, options: dict, seconds: float):
    """FLAC, Ogg, 24-bit, mu-law and odd rates become mono 16-bit WAV beside the manifest, of the same length."""
    recording(tmp_path / file, **options)
    row = {"id": "one", "path": file, "label": "neutral", "speaker": "s", "split": "train"}
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n")
    path = prepare.prepare(CORPORA["own"], tmp_path / "list.jsonl", tmp_path / "data", prepare.Options())
    [item] = manifest.read_any(path)
    info = soundfile.info(path.parent / item.path)
    assert (info.channels, info.subtype, info.samplerate in (8000, 16_000)) == (1, "PCM_16", True)
    assert info.duration == pytest.approx(seconds, abs=0.01)
    assert item.seconds == pytest.approx(info.duration)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("stereo.wav", "2 channels: give one speaker's channel alone"),
        ("short.wav", "shorter than 0.1 s"),
        ("broken.wav", "audio cannot be read"),
        ("none.wav", "audio missing"),
        ("bored.wav", "label bored"),
    ],
)
def test_what_cannot_be_used_is_dropped_by_reason(tmp_path: Path, file: str, reason: str):
    """Two parties in one file, next to nothing, a broken file, no file, another label: told, not guessed at."""
    recording(tmp_path / "good.wav")
    recording(tmp_path / "stereo.wav", channels=2)
    recording(tmp_path / "short.wav", seconds=0.05)
    recording(tmp_path / "bored.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    label = "bored" if file == "bored.wav" else "sad"
    (tmp_path / "list.csv").write_text(f"path,label,speaker\ngood.wav,sad,s\n{file},{label},s\n")
    prepare.prepare(CORPORA["own"], tmp_path / "list.csv", tmp_path / "data", prepare.Options())
    report = json.loads((tmp_path / "data" / prepare.REPORT).read_text())
    assert report["dropped"] == {reason: {"utterances": 1, "examples": [f"000002-{file.removesuffix('.wav')}"]}}
    assert report["utterances"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.wav,sad\n", "row 1: no speaker"),
        ("path,label,speaker,emotoin\na.wav,sad,s,x\n", "row 1: unknown emotoin"),
        ("path,label,speaker,votes.anger\na.wav,sad,s,many\n", "row 1: votes are numbers"),
        ("path,label,speaker\n", "no utterance can be used; there is none"),
        ("path,label,speaker\nnone.wav,sad,s\n", "1 dropped: audio missing"),
        ("id,path,label,speaker\nx,a.wav,sad,s\nx,a.wav,sad,s\n", "utterance x is there twice"),
        ("path,label,speaker\na.wav,sad,s\na.wav,sad,t\n", "2 speakers cannot be dealt out"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, message: str, capsys):
    """Missing and unknown columns, doubles, and lists that leave nothing to train on are errors with the row."""
    recording(tmp_path / "a.wav")
    (tmp_path / "list.csv").write_text(text)
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 2
    assert message in capsys.readouterr().err


def test_votes_for_no_emotion_are_refused_in_a_manifest(tmp_path: Path):
    """A manifest whose votes name something else was not made by `prepare`."""
    item = manifest.Item("a", "a.wav", "own", "s", "", Emotion.ANGER, "train", 1.0, votes={"boredom": 1})
    manifest.write(tmp_path / "manifest.jsonl", [item])
    with pytest.raises(ConfigurationError, match="line 1: votes for boredom"):
        manifest.read_any(tmp_path / "manifest.jsonl")
