"""Tables as files: the same rows in every format, and no half file."""

import csv
import json
import sys

import pytest

from callmood.worker.commands.tables import table
from callmood.worker.errors import ConfigurationError

COLUMNS = {"call_id": "text", "number": "integer", "emotion.label": "text", "risk": "decimal", "attributes": "json"}
RECORDS = [
    {"call_id": "+49 30", "number": 1, "emotion": {"label": "anger"}, "risk": 0.5, "attributes": {"queue": 'ä, "b"\n'}},
    {"call_id": "call-2", "number": 2, "emotion": None, "risk": None, "attributes": {}, "more": 1},
]
ROWS = [
    {
        "call_id": "+49 30",
        "number": 1,
        "emotion.label": "anger",
        "risk": 0.5,
        "attributes": '{"queue":"\\u00e4, \\"b\\"\\n"}',
    },
    {"call_id": "call-2", "number": 2, "emotion.label": None, "risk": None, "attributes": "{}"},
]


def write(path, written, records=RECORDS):
    with table(path, written, COLUMNS) as made:
        for record in records:
            made.add(record)


def test_json_lines_are_the_records(tmp_path):
    """They have all fields, also those that are no column."""
    write(tmp_path / "t", "jsonl")
    assert [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()] == RECORDS


def test_csv_has_a_head_and_a_row_for_each_record(tmp_path):
    """Nothing is the empty text."""
    write(tmp_path / "t", "csv")
    with (tmp_path / "t").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in ROWS]


@pytest.mark.parametrize(
    ("call_id", "is_formula"),
    [
        ("=1+1", True), ("+cmd|' /C calc'!A0", True), ("-A1", True), ("@SUM(A1)", True),
        ("\N{FULLWIDTH EQUALS SIGN}1", True), ("+49 30 / 123-4", False), ("-12", False), ("a=1", False), ("", False),
    ],
)  # fmt: skip
def test_a_spreadsheet_computes_nothing(tmp_path, call_id, is_formula):
    """A text that would be a formula begins with an apostrophe; a telephone number does not change."""
    write(tmp_path / "t", "csv", [RECORDS[0] | {"call_id": call_id}])
    with (tmp_path / "t").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["call_id"] == ("'" if is_formula else "") + call_id


def test_parquet_has_the_kinds_of_its_columns(tmp_path):
    """Also without any row, and with more rows than a group has."""
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "t", "parquet")
    assert parquet.read_table(tmp_path / "t").to_pylist() == ROWS
    write(tmp_path / "t", "parquet", [])
    assert [str(kind) for kind in parquet.read_table(tmp_path / "t").schema.types] == [
        "string", "int64", "string", "double", "string",
    ]  # fmt: skip
    write(tmp_path / "t", "parquet", [RECORDS[0] | {"number": number} for number in range(10_001)])
    assert parquet.read_table(tmp_path / "t")["number"].to_pylist() == list(range(10_001))


def test_an_error_leaves_the_old_file(tmp_path):
    """What was written so far is removed."""
    write(tmp_path / "t", "csv")
    before = (tmp_path / "t").read_bytes()
    with pytest.raises(AttributeError):
        write(tmp_path / "t", "csv", [RECORDS[0], []])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("t", before)]


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    """A folder that is not there, and a package that is not installed."""
    with pytest.raises(ConfigurationError, match="No such file"):
        write(tmp_path / "nowhere" / "t", "csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'callmood\[history\]'"):
        write(tmp_path / "t", "parquet")
