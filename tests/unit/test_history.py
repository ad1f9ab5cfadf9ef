"""The columns of history, against the tables of ClickHouse and the examples of the contract."""

import json
import re
from pathlib import Path

import pytest

from callmood import schemas
from callmood.schemas.history import CALLS, UTTERANCES, row
from callmood.worker.server_settings import KafkaSettings

ROOT = Path(__file__).parents[2]
SQL = (ROOT / "deploy" / "clickhouse.sql").read_text(encoding="utf-8")
KINDS = {
    "DateTime": "time",
    "String": "text",
    "Bool": "boolean",
    "Float": "decimal",
    "UInt": "integer",
    "Int": "integer",
}


def parts(text):
    """What is between the commas that are in no brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


def columns_of(table):
    """Columns of a table, those of a tuple with dots, and what kind they are."""
    body = re.search(rf"CREATE TABLE IF NOT EXISTS callmood\.received_{table}\n\((.*?)\n\)\nENGINE", SQL, re.DOTALL)[1]
    columns = {}

    def add(prefix, column):
        name, _, kind = column.partition(" ")
        if kind.startswith("Tuple("):
            for part in parts(kind[len("Tuple(") : -1]):
                add(f"{prefix}{name}.", part)
        elif kind.startswith(("Map(", "Array(")):
            columns[prefix + name] = "json"
        else:
            columns[prefix + name] = next(ours for theirs, ours in KINDS.items() if theirs in kind)

    for column in parts(body):
        add("", column)
    del columns["committed_at"]
    return columns


@pytest.mark.parametrize(("table", "columns"), [("calls", CALLS), ("utterances", UTTERANCES)])
def test_the_columns_are_those_of_clickhouse(table, columns):
    """The same names, kinds and order, but for when the row was written."""
    assert list(columns.items()) == list(columns_of(table).items())


@pytest.mark.parametrize(("name", "columns"), [("call", CALLS), ("utterance", UTTERANCES)])
def test_each_example_is_a_row(name, columns):
    """Each value is of its column's kind, and what is null or missing is None."""
    types = {"text": str, "json": str, "integer": int, "decimal": (int, float), "boolean": bool}
    examples = sorted((Path(schemas.__file__).parent / "examples" / name / "valid").glob("*.json"))
    assert examples
    for path in examples:
        record = json.loads(path.read_text(encoding="utf-8"))
        made = row(record, columns)
        assert list(made) == list(columns)
        for column, value in made.items():
            assert value is None or isinstance(value, types[columns[column]]), (path.name, column)
        assert made["call_id"] == record["call_id"]
        assert json.loads(made["attributes"]) == record["attributes"]


def test_the_sink_for_connect_copies_our_topics_into_these_tables():
    """It reads committed records, drops tombstones, and is as lenient as the tables need."""
    config = json.loads((ROOT / "deploy/clickhouse-connect.json").read_text(encoding="utf-8"))["config"]
    kafka = KafkaSettings()
    tables = dict(pair.split("=") for pair in config["topic2TableMap"].split(","))
    assert tables == {
        kafka.call_topic: "received_calls",
        kafka.utterance_topic: "received_utterances",
        kafka.erasure_topic: "received_erasures",
    }
    assert config["topics"].split(",") == list(tables)
    assert all(f"CREATE TABLE IF NOT EXISTS {config['database']}.{table}\n" in SQL for table in tables.values())
    assert config["consumer.override.isolation.level"] == "read_committed"
    assert config["predicates.isErased.type"].endswith(".RecordIsTombstone")
    for setting in config["clickhouseSettings"].split(","):
        name, value = setting.split("=")
        assert f"{name} = {value}" in SQL
