"""`callmood-train predict`: the model's answer to every utterance of a list."""

import base64
import csv
import dataclasses
import importlib.util
import json
import os
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import manifest
from callmood.training.__main__ import main
from callmood.training.evaluate import softmax
from callmood.training.loop import data, train
from callmood.training.results import predict
from callmood.worker.model.model import load


def wav(path: Path, seconds: float, *, channels: int = 1, pitch: float = 7) -> None:
    samples = np.sin(np.arange(round(seconds * 8000) * channels) / pitch) * 9000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A manifest of six utterances with splits."""
    items = []
    for number in range(6):
        wav(tmp_path / f"{number}.wav", 1 + number / 10, pitch=5 + number)
        split, label = manifest.SPLITS[number % 3], EMOTIONS[number % 4]
        items.append(manifest.Item(f"u{number}", f"{number}.wav", "own", f"s{number}", "en", label, split, 1.0))
    manifest.write(tmp_path / "manifest.jsonl", items)
    return tmp_path / "manifest.jsonl"


def read(path: Path) -> list[dict]:
    """The rows of a CSV or JSON-lines table, as texts."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_utterance_has_the_probabilities_of_the_loaded_model(listed: Path, tmp_path: Path, capsys):
    """Rows are in the list's order, whole corpus and not only test, with calibrated probabilities and abstention."""
    assert main(["predict", "demo-tiny", str(listed), str(tmp_path / "out.jsonl"), "--batch-size", "4"]) == 0
    model = load("demo-tiny")
    items = manifest.read_any(listed)
    logits, _ = train.predict(model, [data.read_clip(tmp_path, item) for item in items], batch_size=1)
    probabilities = softmax(logits, model.calibration.temperature)
    table = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in table] == [item.id for item in items]
    np.testing.assert_allclose([[row[emotion] for emotion in EMOTIONS] for row in table], probabilities, atol=1e-5)
    for row, item, answer in zip(table, items, probabilities, strict=True):
        assert row["predicted"] == EMOTIONS[answer.argmax()]
        assert row["abstained"] is bool(answer.max() < model.calibration.abstain_below)
        assert (row["label"], row["split"], row["start_s"]) == (item.label, item.split, 0.0)
        assert row["end_s"] == pytest.approx(1 + int(item.id[1:]) / 10)
        assert row["model"] == model.info.digest
        assert row["error"] == ""
    assert json.loads(capsys.readouterr().out)["labelled"] == 6


def test_an_own_list_needs_no_labels_and_can_name_parts_of_recordings(tmp_path: Path, capsys):
    """Parts are cut by channel and time; rows that cannot be heard keep their place, with the reason."""
    wav(tmp_path / "call.wav", 4, channels=2)
    wav(tmp_path / "blip.wav", 0.01)
    (tmp_path / "list.csv").write_text(
        "id,path,start,end,channel\n"
        "cut,call.wav,0.5,1.75,1\nlate,call.wav,9,10,0\nnone,call.wav,0,1,2\nboth,call.wav,0,1,\n"
        "gone,other.wav,,,\nshort,blip.wav,,,\nrest,call.wav,3,,0\n"
    )
    assert main(["predict", "demo-tiny", str(tmp_path / "list.csv"), str(tmp_path / "out.csv")]) == 0
    table = {row["id"]: row for row in read(tmp_path / "out.csv")}
    assert list(table) == ["cut", "late", "none", "both", "gone", "short", "rest"]
    assert (table["cut"]["start_s"], table["cut"]["end_s"]) == ("0.5", "1.75")
    assert (table["rest"]["start_s"], table["rest"]["end_s"]) == ("3.0", "4.0")
    assert {name: row["error"] for name, row in table.items()} == {
        "cut": "",
        "late": "recording ends before the utterance",
        "none": "no channel 2 in a recording of 2; the first one is 0",
        "both": "2 channels: give one speaker's channel alone",
        "gone": "audio missing",
        "short": "short: 0.010 s; the encoder needs 0.045 s",
        "rest": "",
    }
    assert table["late"]["predicted"] == table["late"]["anger"] == ""
    counts = json.loads(capsys.readouterr().out)
    assert (counts["utterances"], counts["answered"], counts["labelled"]) == (7, 2, 0)


def test_the_browser_lists_the_utterances_of_each_cell(listed: Path, tmp_path: Path):
    """The page has a link and a list for each cell of the confusion matrix, no script and no audio."""
    arguments = ["predict", "demo-tiny", str(listed), str(tmp_path / "out.csv"), "--browser", str(tmp_path / "b.html")]
    assert main(arguments) == 0
    page = (tmp_path / "b.html").read_text()
    for row in read(tmp_path / "out.csv"):
        section = page.partition(f'id="{row["label"]}-{row["predicted"]}"')[2].partition("<h2")[0]
        assert f"<td>{row['id']}</td>" in section
    assert page.count("<h2") == 16
    assert not {"<script", "<audio", "http"} & {word for word in ("<script", "<audio", "http") if word in page}


def test_the_browser_has_the_audio_of_wrong_answers_if_asked(listed: Path, tmp_path: Path):
    """With `--audio`, the page plays each wrong answer, and no right one; the sound is the utterance's."""
    page = tmp_path / "b.html"
    arguments = ["predict", "demo-tiny", str(listed), str(tmp_path / "out.csv"), "--browser", str(page)]
    assert main([*arguments, "--audio"]) == 0
    wrong = [row["id"] for row in read(tmp_path / "out.csv") if row["label"] != row["predicted"]]
    players = re.findall(r'<p>(\w+) <audio controls src="data:audio/wav;base64,([^"]+)"></audio></p>', page.read_text())
    assert 0 < len(wrong) < 6
    assert sorted(name for name, _ in players) == sorted(wrong)
    for name, sound in players:
        assert base64.b64decode(sound) == (tmp_path / f"{name[1:]}.wav").read_bytes()


@pytest.mark.parametrize(
    ("option", "message"), [(["--audio"], "--audio needs --browser"), (["--above", "0.5"], "--above needs --pseudo")]
)
def test_an_option_without_the_one_it_belongs_to_is_refused(listed: Path, tmp_path: Path, capsys, option, message):
    """An option that would do nothing is an error before the model is loaded."""
    assert main(["predict", "no-model", str(listed), str(tmp_path / "out.csv"), *option]) == 2
    assert message in capsys.readouterr().err


def test_a_page_without_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A confusion needs labels; the table has been written by then."""
    wav(tmp_path / "a.wav", 1)
    (tmp_path / "list.csv").write_text("path\na.wav\n")
    arguments = ["predict", "demo-tiny", str(tmp_path / "list.csv"), str(tmp_path / "out.csv")]
    assert main([*arguments, "--browser", str(tmp_path / "b.html")]) == 2
    assert "needs utterances with labels" in capsys.readouterr().err
    assert len(read(tmp_path / "out.csv")) == 1


def test_parquet_has_the_types_of_the_columns(listed: Path, tmp_path: Path):
    """A Parquet file has numbers and booleans, also where all values of a column are empty."""
    if importlib.util.find_spec("pyarrow") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no pyarrow: make setup installs it")
    from pyarrow import parquet  # noqa: PLC0415 - skipped without it

    assert main(["predict", "demo-tiny", str(listed), str(tmp_path / "out.parquet")]) == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    assert tuple(table.column_names) == predict.COLUMNS
    assert table["id"].to_pylist() == [f"u{number}" for number in range(6)]
    assert {str(table.schema.field(name).type) for name in ("confidence", "start_s", "anger")} == {"double"}
    assert str(table.schema.field("abstained").type) == "bool"


def test_a_wrong_ending_is_refused_before_the_model_runs(listed: Path, tmp_path: Path, capsys):
    """An ending that is not known costs no time."""
    assert main(["predict", "nowhere", str(listed), str(tmp_path / "out.xlsx")]) == 2
    assert "unknown ending '.xlsx': use .csv, .jsonl, .parquet" in capsys.readouterr().err


def test_a_confidence_at_the_threshold_is_no_abstention():
    """As in the worker; a label that the model abstains from is still right or wrong in the counts."""
    model = load("demo-tiny")
    one = predict.Heard("a", "own", "", "", "neutral", 2.0, data.Clip(8000, bytes(16_000), 0))
    table = []
    for threshold in (0.65, 0.66):
        model.calibration = dataclasses.replace(model.calibration, abstain_below=threshold)
        table.append(predict._row(one, model, (0.1, 0.2, 0.65, 0.05)))
    assert [(row.predicted, row.confidence, row.abstained) for row in table] == [
        ("neutral", 0.65, False),
        ("neutral", 0.65, True),
    ]
    assert (table[0].start_s, table[0].end_s) == (2.0, 3.0)
    found = predict.counted(table)
    assert (found["answered"], found["abstained"], found["labelled"], found["right"]) == (2, 1, 2, 2)


def test_a_model_that_answers_with_nan_is_refused(monkeypatch: pytest.MonkeyPatch):
    """As in `evaluate`: no table is made of answers that are no numbers."""
    model = load("demo-tiny")
    monkeypatch.setattr(predict, "predict", lambda *_, **__: (np.full((1, 4), np.nan), np.zeros(1)))
    clip = data.Clip(8000, bytes(16000), 0)
    one = predict.Heard("a", "own", "", "", "", 0.0, clip)
    with pytest.raises(predict.ConfigurationError, match="not finite"):
        list(predict.rows(model, [one], batch_size=1))


def test_the_list_is_not_overwritten(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A table, a page or pseudo-labels at the list's path, or two of them at one path, are refused before computing."""
    before, table = listed.read_bytes(), str(tmp_path / "out.jsonl")
    for written in ([str(listed)], [table, "--pseudo", str(listed)], [table, "--browser", str(listed)]):
        assert main(["predict", "demo-tiny", str(listed), *written]) == 2
        assert "this command reads it, so it cannot write it" in capsys.readouterr().err
    assert main(["predict", "demo-tiny", str(listed), table, "--pseudo", table]) == 2
    assert "give each its own path" in capsys.readouterr().err
    assert listed.read_bytes() == before
