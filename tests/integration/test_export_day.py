"""A day of calls from a real Redis and a real Kafka as files."""

import csv
import json
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaProducer
from publisher import Publisher

from callmood import schemas
from callmood.__main__ import main
from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys

EXAMPLES = Path(schemas.__file__).parent / "examples"
DAY, DAY_MS = "2026-01-01", 1_767_225_600_000
HOUR_MS = 3_600_000


@pytest.fixture
def export(tmp_path, capsys):
    """`export(source, *more)`: the ids in the two files, and what was said."""

    def run(source, *more, day=DAY):
        code = main(["export", "--day", day, "--source", source, "--folder", str(tmp_path), *more])
        said = capsys.readouterr()
        assert code == 0, said.err
        found = {}
        for name in ("calls", "utterances"):
            with (tmp_path / f"{name}-{day}.csv").open(newline="") as file:
                found[name] = [row["call_id"] for row in csv.DictReader(file)]
        return found, said

    return run


def test_calls_of_redis_that_have_ended_are_exported(redis_url, redis_prefix, redis_client, monkeypatch, export):
    """Each with its utterances; a live call waits for its end, and an erased one is not there."""
    monkeypatch.setenv("CALLMOOD_REDIS__URL", redis_url)
    monkeypatch.setenv("CALLMOOD_REDIS__PREFIX", redis_prefix)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for name in ("over", "erased", "live"):
            worker.say(name, Emotion.ANGER)
            worker.say(name, end=name != "live")
    keys = Keys(redis_prefix)
    redis_client.delete(keys.call("erased"), keys.utterances_of("erased"))
    found, said = export("redis", day="2025-06-15")  # the publisher's day
    assert found == {"calls": ["over"], "utterances": ["over", "over"]}
    assert "utterances-2025-06-15.csv: 2 utterances" in said.out
    assert export("redis", day="2025-06-14")[0] == {"calls": [], "utterances": []}


@pytest.fixture
def topics(real_kafka, monkeypatch):
    """`write(topic, records)`: puts (call id, value, time) on a topic of outputs that is this test's own."""
    names = {kind: f"test-{uuid4().hex[:12]}-{kind}" for kind in ("call", "utterance")}
    monkeypatch.setenv("CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", real_kafka.bootstrap_servers)
    for kind, name in names.items():
        real_kafka.create_topic(name, 2)
        monkeypatch.setenv(f"CALLMOOD_KAFKA__{kind.upper()}_TOPIC", name)

    def write(kind, records):
        with closing(KafkaProducer(bootstrap_servers=real_kafka.bootstrap_servers)) as producer:
            for call_id, value, at_ms in records:
                packed = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
                producer.send(names[kind], key=call_id.encode(), value=packed, timestamp_ms=at_ms).get(30)

    yield write
    for name in names.values():
        real_kafka.delete_topic(name)


def test_calls_of_a_day_are_exported_from_kafka(topics, export):
    """The newest aggregate of each counts; what is erased, live, of another day or foreign is left out."""
    over = json.loads((EXAMPLES / "call/valid/completed.json").read_text())
    said = json.loads((EXAMPLES / "utterance/valid/labelled.json").read_text())

    def call(call_id, start_ms, **more):
        return call_id, over | {"call_id": call_id, "started_at_ms": start_ms} | more, start_ms + HOUR_MS

    noon_ms = DAY_MS + 12 * HOUR_MS
    late_ms = DAY_MS + 24 * HOUR_MS - 1
    topics("call", [
        call("yesterday", DAY_MS - 1), call("first", DAY_MS), call("noon", noon_ms, status="live"),
        call("erased", noon_ms), call("noon", noon_ms, version=99), call("live", noon_ms, status="live"),
        call("last", late_ms), call("tomorrow", late_ms + 1), ("erased", None, noon_ms + 2 * HOUR_MS),
        ("foreign", b"not ours", noon_ms),
    ])  # fmt: skip
    names = ("yesterday", "first", "noon", "erased", "live", "last", "tomorrow")
    said |= {"spoken_at_ms": late_ms}  # not before its call
    topics("utterance", [(name, said | {"call_id": name, "number": n}, noon_ms) for name in names for n in (1, 2)])
    found, told = export("kafka")
    assert sorted(found["calls"]) == ["first", "last", "noon"]
    assert sorted(found["utterances"]) == ["first", "first", "last", "last", "noon", "noon"]
    assert "1 records were left out" in told.err


def test_an_export_without_topics_says_so(real_kafka, monkeypatch, tmp_path, capsys):
    """One line, and no file."""
    monkeypatch.setenv("CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", real_kafka.bootstrap_servers)
    monkeypatch.setenv("CALLMOOD_KAFKA__CALL_TOPIC", "nowhere")
    assert main(["export", "--day", DAY, "--source", "kafka", "--folder", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
