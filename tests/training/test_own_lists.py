"""Own lists with the dirt of spreadsheets, scripts and hands: what is read, and what is refused with the reason."""

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callmood.training import manifest
from callmood.training.__main__ import main
from callmood.training.corpora import own
from callmood.training.results import predict
from callmood.worker.errors import ConfigurationError

LABELS = ("anger", "happiness", "neutral", "sadness")
ROWS = [f"{number}.wav,{label},s{number}" for number, label in enumerate(LABELS)]


def recording(path: Path, channels: int = 1, seconds: float = 0.6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.sin(np.arange(round(seconds * 8000)) / 7)[:, None] / 2
    soundfile.write(path, np.repeat(samples, channels, axis=1), 8000)


def listed(folder: Path, text: str, name: str = "list.csv") -> list[own.Found]:
    (folder / name).write_text(text, newline="")
    return list(own.find(folder / name))


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\npath;label;speaker\r\n" + "".join(row.replace(",", ";") + "\r\n" for row in ROWS),
        "\n\npath,label,speaker\n" + "\n".join(ROWS),
        "path,label,speaker\r" + "\r".join(ROWS),
        "path,label,speaker\n" + "\n".join([*ROWS, ",,", " , ,", ""]),
        "path,label,speaker,,\n" + "\n".join(f"{row},," for row in ROWS),
        "path,label,speaker\n" + "\n".join(f"{row},," for row in ROWS),
    ],
    ids=["sep=", "empty lines first", "old Mac", "empty rows last", "empty columns", "empty fields"],
)
def test_what_spreadsheets_add_is_no_row(tmp_path: Path, text: str):
    """A line that names the separator, and empty lines, rows and columns, change nothing."""
    assert [(found.label, found.speaker) for found in listed(tmp_path, text)] == [
        (label, f"s{number}") for number, label in enumerate(LABELS)
    ]


def test_text_of_excel_is_a_table(tmp_path: Path):
    """Excel's "Unicode text" has tabs, UTF-16 and the ending .txt."""
    text = "path\tlabel\tspeaker\r\n" + "".join(row.replace(",", "\t") + "\r\n" for row in ROWS)
    (tmp_path / "list.txt").write_bytes(text.encode("utf-16"))
    assert len(list(own.find(tmp_path / "list.txt"))) == len(ROWS)


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.json", "list"])
def test_json_lines_are_recognised_by_their_content(tmp_path: Path, name: str):
    """Whatever the ending, a file that begins with an object has JSON lines: a list or a manifest."""
    rows = [dict(zip(("path", "label", "speaker"), row.split(","), strict=True)) for row in ROWS]
    assert len(listed(tmp_path, "\n" + "\n".join(map(json.dumps, rows)), name)) == len(ROWS)
    assert not predict.is_manifest(tmp_path / name)
    (tmp_path / name).write_text("\n".join(json.dumps({**row, "corpus": "own"}) for row in rows))
    assert predict.is_manifest(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "Path,Label,speaker\n0.wav,anger,a\n", "row 1: no label, path; the row has Path, Label, speaker"),
        ("list.csv", "path,label,speaker,,\n0.wav,anger,a,x,\n", "row 1: unknown column 4 without a name"),
        ("list.csv", "path,label,speaker,votes.anger,votes.Anger\n0.wav,anger,a,2,1\n", "two columns have votes for"),
        (
            "list.jsonl",
            '{"path": "0.wav", "label": "sad", "speaker": "a", "split": "test", "split": "train"}',
            "'split'",
        ),
        ("list.jsonl", '{"path": "0.wav", "votes": {"sad": 1}, "votes.sad": 2}', "'votes.sad' is there twice"),
        ("list.json", '[\n{"path": "0.wav"}]', "JSON lines have one object a line"),
        ("list.jsonl", '{"path": ' + "[" * 100_000, "row 1: maximum recursion depth"),
        ("list.csv", f"path,label,speaker,channel\n0.wav,sad,a,{'9' * 5000}\n", "row 1: channel is '999"),
        ("list.xlsx", "PK", "save the list as CSV or as JSON lines"),
    ],
)
def test_the_reason_names_what_to_change(tmp_path: Path, name: str, text: str, message: str):
    """Columns with other names, values given twice, and files that are no lists are refused with the reason."""
    with pytest.raises(ConfigurationError, match=message):
        listed(tmp_path, text, name)


@pytest.mark.parametrize("other", ["sub/../a.wav", "link/a.wav", "linked.wav", "a.wav,0"])
def test_one_file_by_two_paths_has_one_speaker(tmp_path: Path, other: str):
    """Another spelling, a link, and the number of the only channel do not make other audio of a file."""
    recording(tmp_path / "a.wav")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    os.link(tmp_path / "a.wav", tmp_path / "linked.wav")
    path, _, channel = other.partition(",")
    with pytest.raises(ConfigurationError, match=r"row 2: .* is of speaker x in row 1"):
        listed(tmp_path, f"path,label,speaker,channel\na.wav,sad,x,\n{path},sad,y,{channel}\n")


def test_two_channels_have_two_speakers(tmp_path: Path):
    """Utterances at the same time on two channels are not the same audio."""
    recording(tmp_path / "a.wav", channels=2)
    assert len(listed(tmp_path, "path,label,speaker,channel\na.wav,sad,x,0\na.wav,sad,y,1\n")) == 2


def test_a_long_recording_of_many_speakers_takes_seconds(tmp_path: Path):
    """The time to read a list grows with its rows, not with their square: 20,000 parts of one recording."""
    recording(tmp_path / "a.wav")
    rows = [f"a.wav,sad,s{number % 5000},{number},{number + 1.1}" for number in range(20_000)]
    started_s = time.process_time()
    assert len(listed(tmp_path, "path,label,speaker,start,end\n" + "\n".join(rows))) == 20_000
    assert time.process_time() - started_s < 20


def fake_ffmpeg(folder: Path, channels: int) -> None:
    """A program that answers as `ffmpeg … -f au -` does: `channels` of one second at 16 kHz, each of its own pitch."""
    samples = np.stack([np.sin(np.arange(16_000) / (5 + number)) / 2 for number in range(channels)], axis=1)
    written = io.BytesIO()
    soundfile.write(written, samples, 16_000, subtype="PCM_16", format="AU", endian="BIG")
    header = bytearray(written.getvalue())
    header[8:12] = b"\xff" * 4  # a pipe cannot be sought: ffmpeg does not write the size
    (folder / "bin").mkdir()
    (folder / "answer.au").write_bytes(header)
    (folder / "bin" / "ffmpeg").write_text(f"#!/bin/sh\n/bin/cat {folder}/answer.au\n")
    (folder / "bin" / "ffmpeg").chmod(0o755)


def test_both_speakers_of_a_film_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two channels of a file that ffmpeg reads need a number, as those of a WAV file; each number is its channel."""
    fake_ffmpeg(tmp_path, channels=2)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "a.m4a").write_bytes(b"as ffmpeg reads it")
    rows = ["a.m4a,sad,x,0", "a.m4a,sad,y,1", "a.m4a,sad,z,2", "b.m4a,sad,w,"]
    (tmp_path / "b.m4a").write_bytes(b"another one")
    (tmp_path / "list.csv").write_text("path,label,speaker,channel\n" + "\n".join([*rows, "0.wav,sad,v,"]))
    recording(tmp_path / "0.wav")
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 0
    dropped = json.loads((tmp_path / "data" / "prepared.json").read_text())["dropped"]
    assert set(dropped) == {
        "2 channels: give one speaker's channel alone",
        "no channel 2 in a recording of 2; the first one is 0",
    }
    for item in manifest.read_any(tmp_path / "data" / "manifest.jsonl")[:2]:
        heard, _ = soundfile.read(tmp_path / "data" / item.path)
        pitch = 5 + "xy".index(item.speaker)
        np.testing.assert_allclose(heard, np.sin(np.arange(16_000) / pitch) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("own", "--partial"), "--partial and --speakers-of-2021 are for iemocap, not for own"),
        (("ravdess", "--speakers-of-2021"), "are for iemocap, not for ravdess"),
        (("emodb", "--seed", "3"), "--seed needs --split"),
    ],
)
def test_an_option_without_an_effect_is_refused(tmp_path: Path, capsys, options: tuple[str, ...], message: str):
    """An option that a corpus does not read is an error, and not ignored."""
    corpus, *more = options
    assert main(["prepare", corpus, str(tmp_path / "list.csv"), str(tmp_path / "data"), *more]) == 2
    assert message in capsys.readouterr().err


def test_no_recording_and_no_list_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An output folder in which converted audio or the manifest would replace what is read is refused."""
    recording(tmp_path / "audio" / "call.wav", channels=2)
    before = (tmp_path / "audio" / "call.wav").read_bytes()
    (tmp_path / "calls.csv").write_text("id,path,label,speaker,channel\ncall,audio/call.wav,anger,a,0\n")
    assert main(["prepare", "own", str(tmp_path / "calls.csv"), str(tmp_path)]) == 2
    assert "call.wav is a recording, and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "audio" / "call.wav").read_bytes() == before
    row = {"path": "audio/call.wav", "label": "anger", "speaker": "a", "channel": 0}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    assert main(["prepare", "own", str(tmp_path / "manifest.jsonl"), str(tmp_path)]) == 2
    assert "this command reads it, so it cannot write it" in capsys.readouterr().err
    assert json.loads((tmp_path / "manifest.jsonl").read_text()) == row


def test_a_command_does_not_write_into_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The bundle that is evaluated, the encoder to start from and the folder of a run are not the output folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    one, data = str(folder), str(tmp_path / "manifest.jsonl")
    for command in (
        ["evaluate", one, data, one],
        ["export", one, one],
        ["train", "demo_tiny", data, one, "--encoder", one],
        ["pretrain", "calls-hbt-large", data, one, "--encoder", one],
    ):
        assert main(command) == 2
        assert "this command reads it, so it cannot write it" in capsys.readouterr().err
    assert main(["train", "demo_tiny", data, one, "--work", one]) == 2
    assert "the run needs a folder of its own" in capsys.readouterr().err
    assert (folder / "config.json").read_text() == "{}"
