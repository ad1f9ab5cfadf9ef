"""Any record that Kafka can hold becomes a dead-letter record on a real broker, and `redrive` reads all of them."""

from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition

from callmood.__main__ import main
from callmood.schemas.dead_letter import DeadLetterHeaders
from callmood.worker.adapters.dead_letters import DeadLetterTopic
from callmood.worker.commits import DeadLetter
from callmood.worker.errors import Reason
from callmood.worker.records import Position, Record
from callmood.worker.server_settings import KafkaSettings

pytestmark = pytest.mark.timeout(180)

BIG = b"\xff" * (1 << 20)
ODD = {
    "plain": (b"call", b"\x00\x01", [("schema", b"x")]),
    "null header": (b"call", b"audio", [("baggage", None)]),
    "no key": (None, b"audio", []),
    "no key and no value": (None, None, []),
    "a tombstone": (b"call", None, []),
    "large value": (b"call", BIG, []),
    "large value without a key": (None, BIG, []),
    "value above the producer's limit": (b"call", BIG * 65, []),
    "large key": (BIG[:-100], b"", []),
    "large header": (b"call", b"audio", [("schema", b"x"), ("big", BIG)]),
    "a binary header of the worker's name": (b"call", b"audio", [("dead_letter.reason", b"\xff\xfe")]),
    "an odd name": (b"call", b"audio", [("x-\\xff", b"1")]),
}


@pytest.fixture
def topics(stack, monkeypatch):
    """The settings, with topics of this test's own."""
    name = f"test-{uuid4().hex[:12]}"
    values = {
        "bootstrap_servers": stack.bootstrap_servers,
        "audio_topic": name,
        "dead_letter_topic": f"{name}-dead",
        "group_id": name,
    }
    for topic in (name, f"{name}-dead"):
        stack.create_topic(topic, 1)
    for key, value in values.items():
        monkeypatch.setenv(f"CALLMOOD_KAFKA__{key.upper()}", value)
    yield KafkaSettings(**values)
    for topic in (name, f"{name}-dead"):
        stack.delete_topic(topic)


def everything_on(settings, topic):
    """All records of a topic, as key, value and headers."""
    source = KafkaPartition(topic, 0)
    with closing(KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, consumer_timeout_ms=3_000)) as consumer:
        consumer.assign([source])
        consumer.seek_to_beginning(source)
        return [(record.key, record.value, list(record.headers)) for record in consumer]


def test_every_record_can_be_sent_and_redriven(topics, capsys):
    """What does not fit is left out and said to be; what is whole comes back as it was, and the rest is counted."""
    refused = [
        DeadLetter(
            Record(Position(topics.audio_topic, 0, offset), key, value, tuple(headers), 1_000), Reason.EMPTY, name
        )
        for offset, (name, (key, value, headers)) in enumerate(ODD.items())
    ]
    with closing(DeadLetterTopic(topics, "1.0")) as topic:
        topic.send(refused)
    stored = {
        added.detail: (added, key, value)
        for key, value, headers in everything_on(topics, topics.dead_letter_topic)
        if (added := DeadLetterHeaders.from_kafka(headers))
    }
    assert stored.keys() == ODD.keys()
    assert {name: added.incomplete for name, (added, _, _) in stored.items() if not added.is_whole} == {
        "no key and no value": "value",
        "large value": "value",
        "large value without a key": "value",
        "value above the producer's limit": "value",
        "large key": "value,key",
        "large header": "value,headers",
    }
    assert stored["value above the producer's limit"][0].value_bytes == str(65 << 20)
    assert stored["large header"][0].headers_bytes == str(len("schema") + 1 + len("big") + (1 << 20))

    assert main(["redrive", "--send"]) == 0
    assert "not sent: incomplete" in capsys.readouterr().out
    assert everything_on(topics, topics.audio_topic) == [
        (b"call", b"\x00\x01", [("schema", b"x")]),
        (b"call", b"audio", [("baggage", b"")]),
        (None, b"audio", []),
        (b"call", b"audio", [("dead_letter.reason", b"\xff\xfe")]),
        (b"call", b"audio", [("x-\\xff", b"1")]),
    ]
    assert main(["redrive", "--send"]) == 0
    assert "no dead-letter records" in capsys.readouterr().out


def test_records_of_another_reason_stay(topics, capsys):
    """Sending back one reason leaves the others listed, and the next run sends them."""
    reasons = [Reason.EMPTY, Reason.NO_SCHEMA, Reason.EMPTY]
    with closing(DeadLetterTopic(topics, "1.0")) as topic:
        topic.send(
            [
                DeadLetter(Record(Position(topics.audio_topic, 0, n), b"call", bytes([n]), (), 1_000), reason, "")
                for n, reason in enumerate(reasons)
            ]
        )
    assert main(["redrive", "--send", "--reason", "empty"]) == 0
    assert [value for _, value, _ in everything_on(topics, topics.audio_topic)] == [b"\x00", b"\x02"]
    assert main(["redrive"]) == 0
    assert "no_schema" in capsys.readouterr().out
    assert main(["redrive", "--send"]) == 0
    assert [value for _, value, _ in everything_on(topics, topics.audio_topic)] == [b"\x00", b"\x02", b"\x01", b"\x02"]
