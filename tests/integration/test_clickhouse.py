"""History in ClickHouse: the tables of deploy/clickhouse.sql, in ClickHouse itself (chdb)."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from callmood import schemas

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
EXAMPLES = Path(schemas.__file__).parent / "examples"
LENIENT = (
    "input_format_skip_unknown_fields = 1, input_format_null_as_default = 1, "
    "input_format_json_ignore_unknown_keys_in_named_tuple = 1, "
    "input_format_json_defaults_for_missing_elements_in_named_tuple = 1"
)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """`ask(sql)`: the rows of an answer, from a ClickHouse with the tables."""
    session = pytest.importorskip("chdb.session", reason="pip install chdb")
    folder = tmp_path_factory.mktemp("clickhouse")
    with closing(session.Session(str(folder / "data"))) as server:

        def asked(sql):
            answer = server.query(sql, "JSONEachRow")
            return [json.loads(line) for line in str(answer).splitlines()]

        for statement in (ROOT / "deploy" / "clickhouse.sql").read_text(encoding="utf-8").split(";\n"):
            if statement.strip():
                asked(statement)
        asked.folder = folder
        yield asked


def examples(name):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((EXAMPLES / name / "valid").glob("*"))]


def load(ask, table, records):
    """Insert records as JSON lines."""
    path = ask.folder / f"{table}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    columns = ask(f"SELECT name FROM system.columns WHERE database = 'callmood' AND table = '{table}'")
    names = ", ".join(f"`{column['name']}`" for column in columns if column["name"] != "committed_at")
    types = ask(
        f"SELECT arrayStringConcat(groupArray(name || ' ' || type), ', ') AS text FROM system.columns "
        f"WHERE database = 'callmood' AND table = '{table}' AND name != 'committed_at'"
    )[0]["text"].replace("'", "\\'")
    ask(
        f"INSERT INTO callmood.{table} ({names}) SELECT {names} FROM file('{path}', JSONEachRow, '{types}') "
        f"SETTINGS {LENIENT}"
    )


def test_examples_are_rows_also_after_a_second_delivery(ask):
    """Every valid example is one row with its values; a copy replaces it; an erased call is gone."""
    said = [record | {"call_id": f"call-{n}", "number": n} for n, record in enumerate(examples("utterance"), 1)]
    calls = [record | {"call_id": f"call-{n}"} for n, record in enumerate(examples("call"), 1)]
    for _ in range(2):
        load(ask, "utterances", said)
        load(ask, "calls", calls)
    assert ask("SELECT count() AS n FROM callmood.utterances FINAL") == [{"n": len(said)}]
    assert ask("SELECT count() AS n FROM callmood.calls FINAL") == [{"n": len(calls)}]
    for record in calls:
        (row,) = ask(f"SELECT * FROM callmood.calls FINAL WHERE call_id = '{record['call_id']}'")
        for name in ("talk_ms", "hold_ms", "need", "status", "attributes", "spans"):
            assert row[name] == record[name], name
        assert [alert["state"] for alert in row["alerts"]] == [alert["state"] for alert in record["alerts"]]
        assert [sign["text"] for sign in row["signs"]] == [sign["text"] for sign in record["signs"]]
    for record in said:
        (row,) = ask(f"SELECT * FROM callmood.utterances FINAL WHERE call_id = '{record['call_id']}'")
        assert row["spoken_at_ms"] == record["spoken_at_ms"]
        assert row["emotion"]["label"] == (record["emotion"] or {}).get("label")
    ask("DELETE FROM callmood.utterances WHERE call_id = 'call-1'")
    assert ask("SELECT count() AS n FROM callmood.utterances FINAL") == [{"n": len(said) - 1}]


def test_the_trend_counts_each_utterance_once(ask):
    """By hour, queue and model; what is uncertain is counted apart."""
    record = json.loads((EXAMPLES / "utterance/valid/labelled.json").read_text(encoding="utf-8"))
    label = record["emotion"]["label"]
    rows = [record | {"call_id": "trend", "number": n, "attributes": {"queue": "trend"}} for n in range(1, 4)]
    for _ in range(2):
        load(ask, "utterances", rows)
    (row,) = ask("SELECT * FROM callmood.hourly WHERE queue = 'trend'")
    named = {"anger": "angry", "sadness": "sad"}
    assert (row["utterances"], row["uncertain"]) == (3, 0)
    assert row.get(named.get(label), 3) == 3
