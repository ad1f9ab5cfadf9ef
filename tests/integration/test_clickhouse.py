"""History in ClickHouse: the tables of deploy/clickhouse.sql, in ClickHouse itself (chdb)."""

import json
import re
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, KafkaProducer

from callmood import schemas

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
EXAMPLES = Path(schemas.__file__).parent / "examples"
LENIENT = (
    "input_format_skip_unknown_fields = 1, input_format_null_as_default = 1, "
    "input_format_json_ignore_unknown_keys_in_named_tuple = 1, "
    "input_format_json_defaults_for_missing_elements_in_named_tuple = 1"
)


def create(asked):
    """Run deploy/clickhouse.sql."""
    for statement in (ROOT / "deploy" / "clickhouse.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            asked(statement)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """`ask(sql)`: the rows of an answer, from a ClickHouse with the tables."""
    session = pytest.importorskip("chdb.session", reason="pip install chdb")
    folder = tmp_path_factory.mktemp("clickhouse")
    with closing(session.Session(str(folder / "data"))) as server:

        def asked(sql):
            answer = server.query(sql, "JSONEachRow")
            return [json.loads(line) for line in str(answer).splitlines()]

        create(asked)
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


def test_a_column_of_a_later_version_is_added(ask):
    """After ALTER TABLE, the file is run again: rows stay, and the view has the column; so has a field in a tuple."""
    (record, *_) = examples("call")
    load(ask, "received_calls", [record | {"call_id": "before"}])
    ask("ALTER TABLE callmood.received_calls ADD COLUMN IF NOT EXISTS later_ms UInt64")
    columns = "system.columns WHERE database = 'callmood' AND table = 'received_utterances'"
    (model,) = ask(f"SELECT type FROM {columns} AND name = 'model'")
    wider = f"{model['type'][:-1]}, later String)"
    ask(f"ALTER TABLE callmood.received_utterances MODIFY COLUMN model {wider}")
    create(ask)
    load(ask, "received_calls", [record | {"call_id": "after", "later_ms": 7}])
    rows = ask("SELECT call_id, later_ms FROM callmood.calls WHERE call_id IN ('before', 'after') ORDER BY later_ms")
    assert [(row["call_id"], int(row["later_ms"])) for row in rows] == [("before", 0), ("after", 7)]
    ask("SELECT model.later FROM callmood.utterances")
    ask("ALTER TABLE callmood.received_calls DELETE WHERE call_id IN ('before', 'after') SETTINGS mutations_sync = 2")


def test_examples_are_rows_also_after_a_second_delivery(ask):
    """Every valid example is one row with its values; a copy replaces it."""
    said = [record | {"call_id": f"call-{n}", "number": n} for n, record in enumerate(examples("utterance"), 1)]
    calls = [record | {"call_id": f"call-{n}"} for n, record in enumerate(examples("call"), 1)]
    for _ in range(2):
        load(ask, "received_utterances", said)
        load(ask, "received_calls", calls)
    assert ask("SELECT count() AS n FROM callmood.utterances") == [{"n": len(said)}]
    assert ask("SELECT count() AS n FROM callmood.calls") == [{"n": len(calls)}]
    for record in calls:
        (row,) = ask(f"SELECT * FROM callmood.calls WHERE call_id = '{record['call_id']}'")
        for name in ("talk_ms", "hold_ms", "need", "status", "attributes", "spans"):
            assert row[name] == record[name], name
        assert [alert["state"] for alert in row["alerts"]] == [alert["state"] for alert in record["alerts"]]
        assert [sign["text"] for sign in row["signs"]] == [sign["text"] for sign in record["signs"]]
    for record in said:
        (row,) = ask(f"SELECT * FROM callmood.utterances WHERE call_id = '{record['call_id']}'")
        assert row["spoken_at_ms"] == record["spoken_at_ms"]
        assert row["emotion"]["label"] == (record["emotion"] or {}).get("label")


def test_an_erased_call_is_gone_also_after_a_second_delivery(ask):
    """It is in no view from its erasure on, its rows are deleted, and it does not come back; the other call stays."""
    name = "erased Ä/1"
    both = [(examples("utterance")[0], "received_utterances"), (examples("call")[0], "received_calls")]
    erasure = {"schema": "callmood.erasure/1", "erasure_id": f"{name}:erasure", "call_id": name, "erased_at_ms": 1}

    def deliver(call_ids):
        for record, table in both:
            load(ask, table, [record | {"call_id": call_id} for call_id in call_ids])

    def rows(table):
        return ask(f"SELECT count() AS n FROM callmood.{table} WHERE call_id = '{name}'")[0]["n"]

    deliver([name, "stays"])
    assert (rows("utterances"), rows("calls")) == (1, 1)
    for time_ms in (1, 2):
        load(ask, "received_erasures", [erasure | {"erased_at_ms": time_ms}])
        assert (rows("utterances"), rows("calls")) == (0, 0)
    assert ask("SELECT count() AS n FROM callmood.received_erasures FINAL") == [{"n": 1}]
    deliver([name])
    assert (rows("utterances"), rows("calls")) == (0, 0)
    page = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    statements = re.findall(r"^ALTER TABLE .*?;$", page, re.MULTILINE | re.DOTALL)
    assert len(statements) == 2
    for statement in statements:
        ask(statement)
    assert (rows("received_utterances"), rows("received_calls")) == (0, 0)
    deliver([name])
    assert (rows("utterances"), rows("calls")) == (0, 0)
    for view in ("utterances", "calls"):
        assert ask(f"SELECT count() AS n FROM callmood.{view} WHERE call_id = 'stays'") == [{"n": 1}]


DAY_MS, HOUR_MS = 1_767_225_600_000, 3_600_000
TABLES = {"call": "received_calls", "utterance": "received_utterances", "erasure": "received_erasures"}


@pytest.fixture
def topics(real_kafka):
    """Topics of this test's own, by the kind of their records."""
    names = {kind: f"test-{uuid4().hex[:12]}-{kind}" for kind in TABLES}
    for name in names.values():
        real_kafka.create_topic(name, 2)
    return names


def test_a_day_in_kafka_becomes_rows_once(ask, real_kafka, topics):
    """Also if the loader dies before it commits its offsets, and reads all again; an erased call has no row."""
    said, (over, *_) = examples("utterance")[0], [one for one in examples("call") if one["status"] == "completed"]
    calls = {f"day-{n:03}": DAY_MS + n * HOUR_MS // 10 for n in range(240)}
    with closing(KafkaProducer(bootstrap_servers=real_kafka.bootstrap_servers)) as producer:

        def send(kind, call_id, record):
            value = json.dumps({**record, "call_id": call_id, "attributes": {"queue": "day"}}).encode()
            producer.send(topics[kind], key=call_id.encode(), value=value)

        for call_id, at_ms in calls.items():
            for version in (1, 2):
                send("call", call_id, over | {"version": version, "started_at_ms": at_ms})
            for number in range(1, 4):
                send("utterance", call_id, said | {"number": number, "spoken_at_ms": at_ms + number})
        send("erasure", "day-007", {"erasure_id": "day-007:erasure", "erased_at_ms": 1})
        producer.send(topics["call"], key=b"day-007", value=None)
        producer.flush()

    for _ in range(2):
        with closing(
            KafkaConsumer(
                *topics.values(),
                bootstrap_servers=real_kafka.bootstrap_servers,
                group_id=topics["call"],
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                isolation_level="read_committed",
                consumer_timeout_ms=5_000,
            )
        ) as consumer:
            read = [(message.topic, json.loads(message.value)) for message in consumer if message.value]
        assert len(read) == 5 * len(calls) + 1
        for kind, table in TABLES.items():
            load(ask, table, [record for topic, record in read if topic == topics[kind]])
    of_the_day = "WHERE attributes['queue'] = 'day'"
    assert ask(f"SELECT count() AS n, min(version) AS oldest FROM callmood.calls {of_the_day}") == [
        {"n": 239, "oldest": 2}
    ]
    assert ask(f"SELECT count() AS n FROM callmood.utterances {of_the_day}") == [{"n": 3 * 239}]
    hours = ask("SELECT hour, utterances FROM callmood.hourly WHERE queue = 'day' ORDER BY hour")
    assert [row["utterances"] for row in hours] == [27, *[30] * 23]


def test_the_panels_of_the_dashboard_have_rows(ask):
    """Every query of the Grafana dashboard runs, and finds the call of the queue and time that are chosen."""
    (call,) = [record for record in examples("call") if record["alerts"] and record["status"] != "live"][:1]
    call |= {"call_id": "shown", "started_at_ms": 1_750_000_000_000, "attributes": {"queue": "it's", "agent": "Kim"}}
    call |= {"need": "high", "signs": [{"name": "run", "role": "customer", "value": 4, "text": "anger 4x"}]}
    record = json.loads((EXAMPLES / "utterance/valid/labelled.json").read_text(encoding="utf-8"))
    record |= {"call_id": "shown", "spoken_at_ms": 1_750_000_001_000, "attributes": call["attributes"]}
    load(ask, "received_calls", [call, call | {"call_id": "other queue", "attributes": {"queue": "sales"}}])
    load(ask, "received_utterances", [record])
    dashboard = json.loads((ROOT / "helm/callmood/files/history.json").read_text(encoding="utf-8"))
    macros = {
        "$__fromTime": "toDateTime(1749990000)",
        "$__toTime": "toDateTime(1750010000)",
        "${queue:singlequote}": "'it\\'s'",
    }
    found = {}
    for panel in dashboard["panels"]:
        sql = panel["targets"][0]["rawSql"]
        for macro, value in macros.items():
            sql = sql.replace(macro, value)
        assert "$" not in sql
        found[panel["title"]] = ask(sql)
    assert all(found.values()), [title for title, rows in found.items() if not rows]
    (calls,) = found["Calls that have ended, by hour"]
    assert (calls["queue"], calls["calls"]) == ("it's", 1)
    assert found["Share of calls that needed a person"][0]["share"] == 1
    (needed,) = found["Calls that needed a person most"]
    assert (needed["call_id"], needed["why"], needed["agent"]) == ("shown", "anger 4x", "Kim")
    (choice,) = [one["query"] for one in dashboard["templating"]["list"] if one["name"] == "queue"]
    assert "it's" in [queue for row in ask(choice) for queue in row.values()]


def test_the_trend_counts_each_utterance_once(ask):
    """By hour, queue and model; what is uncertain is counted apart."""
    record = json.loads((EXAMPLES / "utterance/valid/labelled.json").read_text(encoding="utf-8"))
    label = record["emotion"]["label"]
    rows = [record | {"call_id": "trend", "number": n, "attributes": {"queue": "trend"}} for n in range(1, 4)]
    for _ in range(2):
        load(ask, "received_utterances", rows)
    (row,) = ask("SELECT * FROM callmood.hourly WHERE queue = 'trend'")
    named = {"anger": "angry", "sadness": "sad"}
    assert (row["utterances"], row["uncertain"]) == (3, 0)
    assert row.get(named.get(label), 3) == 3
