"""`callmood-train collect`: results and recordings in, a list to label out."""

import contextlib
import csv
import http.server
import json
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from callmood import schemas
from callmood.schemas import history
from callmood.schemas.common import Role
from callmood.training.__main__ import main
from callmood.training.production import exported, published, sample
from callmood.training.production.collect import Recordings
from callmood.training.production.sample import Candidate, Rules
from callmood.worker.commands import tables
from callmood.worker.errors import ConfigurationError

RATE_HZ = 8000


def samples_of(call: int) -> np.ndarray[Any, Any]:
    """Five seconds of stereo noise."""
    return np.random.default_rng(call).integers(-9000, 9000, size=(5 * RATE_HZ, 2)).astype(np.int16)


def utterance(call: int, number: int) -> dict[str, Any]:
    """An utterance/1 record of a customer."""
    return {
        "schema": "callmood.utterance/1",
        "utterance_id": f"call-{call}:0:0:{number}",
        "call_id": f"call-{call}",
        "stream": "0",
        "channel": 0,
        "role": "customer",
        "start_ms": 250 + 2000 * number,
        "end_ms": 1750 + 2000 * number,
        "kind": "speech",
        "emotion": {"probabilities": {"anger": 0.4, "happiness": 0.3, "neutral": 0.2, "sadness": 0.1}},
        "withheld": None,
        "policy": {"emotion_roles": ["customer"]},
    }


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """Results of six calls of two utterances, and their recordings in FLAC."""
    lines = []
    (tmp_path / "recordings").mkdir()
    for call in range(6):
        soundfile.write(tmp_path / "recordings" / f"call-{call}.flac", samples_of(call), RATE_HZ, subtype="PCM_16")
        lines += [utterance(call, number) for number in range(2)]
        lines.append({"schema": "callmood.call/1", "call_id": f"call-{call}", "attributes": {"customer": f"p{call}"}})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "to-label.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def collect(folder: Path, where: str, *more: str) -> int:
    return main(["collect", str(folder / "results.jsonl"), where, str(folder / "out"), *more])


def check_audio(folder: Path, rows: list[dict[str, str]]) -> None:
    """Each listed file has exactly the samples of its utterance, from the customer's channel."""
    for row in rows:
        call, number = int(row["session"][5:]), int(row["id"][-1])
        first = (250 + 2000 * number) * RATE_HZ // 1000
        heard, rate_hz = soundfile.read(folder / "out" / row["path"], dtype="int16")
        np.testing.assert_array_equal(heard, samples_of(call)[first : first + 1500 * RATE_HZ // 1000, 0])
        assert rate_hz == RATE_HZ


def test_sampled_utterances_are_cut_by_channel_and_time(production: Path, capsys: pytest.CaptureFixture[str]):
    """The list has audio, speaker, call and split of each utterance, and a label to fill in; files reveal no call."""
    where = str(production / "recordings")
    assert collect(production, where, "--number", "8", "--random", "0.25", "--speaker-attribute", "customer") == 0
    rows = listed(production / "out")
    assert {row["label"] for row in rows} == {""}
    assert sorted(row["split"] for row in rows) == [""] * 6 + ["test"] * 2
    assert {row["speaker"] for row in rows if row["split"]}.isdisjoint(
        {row["speaker"] for row in rows if not row["split"]}
    )
    assert all(row["speaker"] == f"p{row['session'][5:]}" and "call" not in row["path"] for row in rows)
    check_audio(production, rows)
    assert stat.S_IMODE((production / "out").stat().st_mode) == 0o700
    assert json.loads(capsys.readouterr().out.rpartition("\n/")[0])["candidates"] == 12


def test_a_list_with_labels_is_not_overwritten(production: Path, capsys: pytest.CaptureFixture[str]):
    """A second run into the same folder replaces a list that nobody has labelled, and refuses one with labels."""
    where = str(production / "recordings")
    assert [collect(production, where, "--number", "2") for _ in range(2)] == [0, 0]
    path = production / "out" / "to-label.csv"
    labelled = path.read_text().replace(".wav,,", ".wav,anger,")
    path.write_text(labelled)
    assert collect(production, where, "--number", "2") == 2
    assert "to-label.csv has labels, and would be overwritten" in capsys.readouterr().err
    assert path.read_text() == labelled


def test_recordings_that_are_missing_are_counted(production: Path, capsys: pytest.CaptureFixture[str]):
    """A call without a recording costs its utterances alone, and erased calls are not even looked for."""
    (production / "recordings" / "call-0.flac").unlink()
    (production / "erased.txt").write_text("call-1\n\n")
    where = str(production / "recordings" / "{call_id}.flac")
    assert (
        collect(production, where, "--number", "12", "--random", "0", "--erased", str(production / "erased.txt")) == 0
    )
    assert {row["session"] for row in listed(production / "out")} == {f"call-{call}" for call in range(2, 6)}
    counts = json.loads(capsys.readouterr().out.rpartition("\n/")[0])
    assert counts["dropped"] == {"audio missing": 2}
    assert counts["refused"] == {"call is erased": 2}


def test_what_lies_beside_recordings_is_not_taken_for_one(production: Path, capsys: pytest.CaptureFixture[str]):
    """Notes, folders and hidden files with the name of a call do not hide its recording."""
    for name in (".call-0.flac", "call-0.json", "call-1.aaa", "call-1.txt"):
        (production / "recordings" / name).write_text("{}")
    (production / "recordings" / "call-2").mkdir()
    assert collect(production, str(production / "recordings"), "--number", "12", "--random", "0") == 0
    assert json.loads(capsys.readouterr().out.rpartition("\n/")[0])["dropped"] == {}


def test_files_of_windows_are_read(production: Path):
    """The mark at the beginning of a file is no part of an erased call's id; results may be in UTF-16."""
    (production / "erased.txt").write_bytes("call-1\r\ncall-2\r\n".encode("utf-8-sig"))
    path = production / "results.jsonl"
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-16"))
    more = ["--number", "12", "--random", "0", "--erased", str(production / "erased.txt")]
    assert collect(production, str(production / "recordings"), *more) == 0
    assert {row["session"] for row in listed(production / "out")} == {f"call-{call}" for call in (0, 3, 4, 5)}


@pytest.mark.parametrize("option", [("--per-queue", "2"), ("--offset-s", "nan"), ("--offset-s", "inf")])
def test_an_option_that_means_nothing_is_refused(production: Path, capsys, option: tuple[str, str]):
    """A limit for queues without their attribute, and an offset that is no time, are errors by name."""
    with contextlib.suppress(SystemExit):  # by the parser
        assert collect(production, str(production / "recordings"), *option) == 2
    assert not (production / "out").exists()
    assert option[0] in capsys.readouterr().err


@pytest.fixture
def server(production: Path) -> Iterator[str]:
    """A web server of the recordings."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(production / "recordings"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_recordings_are_fetched_from_a_url(production: Path, server: str, capsys: pytest.CaptureFixture[str]):
    """A template of a URL is fetched for each utterance; a status that is not 200 is counted."""
    (production / "recordings" / "call-3.flac").unlink()
    assert collect(production, f"{server}/{{call_id}}.flac", "--number", "12", "--random", "0") == 0
    rows = listed(production / "out")
    assert len(rows) == 10
    check_audio(production, rows)
    counts = json.loads(capsys.readouterr().out.rpartition("\n/")[0])
    assert counts["dropped"] == {"recording cannot be fetched: status 404": 2}


def candidate(call_id: str = "c", stream: str = "0", channel: int = 1) -> Candidate:
    return Candidate("u", call_id, stream, channel, 1.0, 2.0, 0.1, "s")


def test_a_channel_with_a_file_of_its_own_is_the_only_one_in_it(tmp_path: Path):
    """With `{channel}` in the template, the file is mono; `--offset-s` moves the times."""
    samples = samples_of(0)[:, 1]
    soundfile.write(tmp_path / "c-1.wav", samples, RATE_HZ, subtype="PCM_16")
    recordings = Recordings(str(tmp_path / "{call_id}-{channel}.wav"), offset_s=0.5)
    heard, rate_hz = recordings.cut(candidate())
    np.testing.assert_array_equal(heard, samples[12000:20000])
    assert rate_hz == RATE_HZ


@pytest.mark.parametrize(("call_id", "stream"), [("../secret", "0"), ("a/b", "0"), ("..", "0"), ("c", "../x")])
def test_a_call_id_cannot_leave_the_folder(tmp_path: Path, call_id: str, stream: str):
    """Ids come from outside: one that is no file name is dropped, not opened."""
    soundfile.write(tmp_path / "secret.wav", samples_of(0), RATE_HZ)
    (tmp_path / "in").mkdir()
    recordings = Recordings(str(tmp_path / "in" / "{call_id}.wav"))
    with pytest.raises(Exception, match="no file name"):
        recordings.cut(candidate(call_id, stream))


@pytest.mark.parametrize(
    ("where", "message"),
    [("nowhere", "no such folder"), ("{queue}/{call_id}.wav", "only"), ("{stream}.wav", "needs {call_id}")],
)
def test_a_wrong_place_is_refused(where: str, message: str):
    """A place that can never have recordings is an error before anything is sampled."""
    with pytest.raises(ConfigurationError, match=message):
        Recordings(where)


@pytest.mark.parametrize(
    ("line", "message"), [("{", "line 1"), ("[]", "not a record"), ('{"a": 1}', "not a record"), ("", "there are none")]
)
def test_results_that_are_none_are_refused(production: Path, capsys, line: str, message: str):
    """A file that is not of results is an error with the line."""
    (production / "results.jsonl").write_text(line + "\n")
    assert collect(production, str(production / "recordings")) == 2
    assert message in capsys.readouterr().err


def test_redis_needs_its_address(production: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The address, which may have a password in it, is in the environment and not on the command line."""
    monkeypatch.delenv("CALLMOOD_REDIS__URL", raising=False)
    assert main(["collect", "redis", str(production / "recordings"), str(production / "out")]) == 2
    assert "set CALLMOOD_REDIS__URL" in capsys.readouterr().err


def test_a_second_model_decides_what_is_chosen(production: Path, capsys: pytest.CaptureFixture[str]):
    """`--second` takes the results of another model; the utterance that it answers otherwise is listed first of all."""
    others = [utterance(call, number) for call in range(5) for number in range(2)]
    others[3]["emotion"] = {"probabilities": {"anger": 0.0, "happiness": 0.0, "neutral": 0.0, "sadness": 1.0}}
    path = production / "other.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in others))
    where = str(production / "recordings")
    assert collect(production, where, "--number", "1", "--random", "0", "--second", str(path)) == 0
    assert [row["id"] for row in listed(production / "out")] == [others[3]["utterance_id"]]
    assert '"without_second": 2' in capsys.readouterr().out


def test_results_may_be_the_parquet_of_an_export(production: Path, capsys: pytest.CaptureFixture[str]):
    """The two tables of `callmood export` give the same utterances as the records; their ids are made of the number."""
    where, more = str(production / "recordings"), ["--number", "6", "--speaker-attribute", "customer"]

    def chosen() -> list[tuple[str, ...]]:
        rows = listed(production / "out")
        sounds = [soundfile.read(production / "out" / row["path"], dtype="int16")[0].tobytes() for row in rows]
        return sorted((r["session"], r["speaker"], r["split"], one) for r, one in zip(rows, sounds, strict=True))

    assert collect(production, where, *more) == 0
    expected, counted = chosen(), capsys.readouterr().out
    records = [json.loads(line) for line in (production / "results.jsonl").read_text().splitlines()]
    for name, columns in (("utterance", history.UTTERANCES), ("call", history.CALLS)):
        with tables.table(production / f"{name}.parquet", "parquet", columns) as table:
            for number, one in enumerate(records):
                if one["schema"] == f"callmood.{name}/1":
                    table.add({"number": number, **one})
    paths = [str(production / f"{name}.parquet") for name in ("utterance", "call")]
    assert main(["collect", *paths, where, str(production / "out"), *more]) == 0
    assert chosen() == expected
    assert capsys.readouterr().out == counted
    assert {row["id"] for row in listed(production / "out")} <= {f"call-{n // 3}:{n}" for n in range(18)}


@pytest.mark.parametrize("name", ["utterance", "call"])
def test_a_row_of_an_export_says_what_its_record_says(name: str):
    """Whether each example of the contract may be labelled, and its probabilities; another row stays as it is."""
    columns = {"utterance": history.UTTERANCES, "call": history.CALLS}[name]
    paths = sorted((Path(schemas.__file__).parent / "examples" / name / "valid").glob("*.json"))
    assert paths
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        row = history.row(record, columns)
        made = exported.record(row)
        assert {key: made[key] for key in ("schema", "call_id")} == {key: record[key] for key in ("schema", "call_id")}
        assert made["attributes"] == record["attributes"]
        rules = Rules(roles=tuple(Role))
        (found, refused), (expected, reasons) = (sample.candidates([one], rules) for one in (made, record))
        assert (len(found), refused.total()) == (len(expected), reasons.total()), path.name
        assert [one.probabilities for one in found] == [one.probabilities for one in expected]
        del row["call_id"]
        assert exported.record(row) is row


def test_results_may_be_parquet(production: Path, capsys: pytest.CaptureFixture[str]):
    """An export of the same records, whose attributes are a struct or a map, gives the same list."""
    where = str(production / "recordings")
    more = ["--number", "6", "--speaker-attribute", "customer"]
    assert collect(production, where, *more) == 0
    expected = listed(production / "out")
    records = [json.loads(line) for line in (production / "results.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(name for one in records for name in one))
    rows = [{name: one.get(name) for name in names} for one in records]
    for kind in (pa.struct([("customer", pa.string())]), pa.map_(pa.string(), pa.string())):
        columns = {name: pa.array([row[name] for row in rows]) for name in names if name != "attributes"}
        is_map = isinstance(kind, pa.MapType)
        given = [list(row["attributes"].items()) if is_map and row["attributes"] else row["attributes"] for row in rows]
        path = production / "results.parquet"
        parquet.write_table(pa.table({**columns, "attributes": pa.array(given, kind)}), path)
        assert main(["collect", str(path), where, str(production / "out"), *more]) == 0
        assert listed(production / "out") == expected
    parquet.write_table(pa.table({"a": [1]}), path)
    assert main(["collect", str(path), where, str(production / "out")]) == 2
    assert "row 1: not a record of callmood" in capsys.readouterr().err


def test_a_call_that_is_erased_while_kafka_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """Calls are read after utterances; of a call, only its id and its attributes are kept."""
    tombstones: list[int] = []

    def record(topic: str, call: int, value: Any) -> SimpleNamespace:
        encoded = None if value is None else json.dumps(value).encode()
        return SimpleNamespace(topic=topic, partition=0, offset=0, key=f"call-{call}".encode(), value=encoded)

    def read(_: Any, topic: str) -> Iterator[SimpleNamespace]:
        if topic.endswith("utterances"):
            yield from (record(topic, call, utterance(call, 0)) for call in range(3))
            tombstones.append(1)  # by `callmood erase`, after the last utterance is read
            return
        for call in range(3):
            whole = {"schema": "callmood.call/1", "call_id": f"call-{call}", "attributes": {"queue": "q"}, "spans": [1]}
            yield record(topic, call, whole)
        yield from (record(topic, call, None) for call in tombstones)

    monkeypatch.setenv("CALLMOOD_KAFKA__UTTERANCE_TOPIC", "own.utterances")
    monkeypatch.setattr(published, "_topic", read)
    found = list(published.records(published.KAFKA, ""))
    assert [one for one in found if "schema" in one] == [utterance(0, 0), utterance(2, 0)]
    assert [one for one in found if "schema" not in one] == [
        {"call_id": f"call-{call}", "attributes": {"queue": "q"}} for call in (0, 2)
    ]
