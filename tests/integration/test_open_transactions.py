"""Reading behind a transaction that a producer leaves open, on a real broker."""

import time
from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaProducer

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.commits import TopicPartition
from callmood.worker.run.reading import Reading
from callmood.worker.server_settings import KafkaSettings

pytestmark = pytest.mark.timeout(240)
WAIT_S = 60.0


@pytest.fixture
def source(topic):
    """A partition of a topic of the test."""
    return TopicPartition(topic(partitions=1), 0)


@pytest.fixture
def producer(stack):
    """A producer with transactions, none of them begun."""
    options = {"transactional_id": f"gateway-{uuid4().hex[:8]}", "transaction_timeout_ms": 300_000}
    with closing(KafkaProducer(bootstrap_servers=stack.bootstrap_servers, **options)) as producer:
        producer.init_transactions()
        yield producer


@pytest.fixture
def consumer(stack, source):
    """A reader that owns the partition and reads it from the start."""
    settings = KafkaSettings(
        bootstrap_servers=stack.bootstrap_servers, group_id=f"g-{uuid4().hex[:8]}", audio_topic=source.topic
    )
    with closing(AudioConsumer(settings, "reader")) as consumer:
        deadline_s = time.monotonic() + WAIT_S
        while source not in consumer.take_changes().assigned:
            assert time.monotonic() < deadline_s
            consumer.poll(100)
        consumer.start(source, 0)
        yield consumer


def poll_until(consumer, is_done):
    """Polls until it is done; returns the values read."""
    values = []
    deadline_s = time.monotonic() + WAIT_S
    while not is_done(values):
        assert time.monotonic() < deadline_s
        values += [record.value for records in consumer.poll(50).values() for record in records]
    return values


def test_an_open_transaction_holds_a_partition_and_its_end_frees_it(real_kafka, source, producer, consumer):
    """The broker's stable end tells it from records that nobody reads; aborted records are passed over."""
    reading = Reading(consumer, ask_after_s=10.0)
    producer.begin_transaction()
    producer.send(source.topic, b"open", partition=0).get(timeout=30)
    with closing(KafkaProducer(bootstrap_servers=real_kafka.bootstrap_servers)) as other:
        other.send(source.topic, b"behind", partition=0).get(timeout=30)
    assert poll_until(consumer, lambda _: consumer.lag(source)) == []
    assert (consumer.lag(source), consumer.position(source), consumer.stable_ends([source])) == (2, 0, {source: 0})
    reading.look([source], 0.0, is_paused=False)
    reading.look([source], 10.0, is_paused=False)
    assert (reading.held, reading.has_work, reading.unread) == (1, False, 2)
    producer.abort_transaction()
    assert poll_until(consumer, bool) == [b"behind"]
    reading.look([source], 11.0, is_paused=False)
    assert (reading.held, reading.has_moved) == (0, True)
    assert consumer.stable_ends([source])[source] >= consumer.position(source) > 0


def test_records_that_come_while_reading_is_paused_are_counted(real_kafka, source, consumer):
    """The broker says where the log ends; the client fetches nothing."""
    reading = Reading(consumer)
    consumer.pause()
    with closing(KafkaProducer(bootstrap_servers=real_kafka.bootstrap_servers)) as producer:
        for _ in range(3):
            producer.send(source.topic, b"later", partition=0).get(timeout=30)
    assert consumer.poll(100) == {}
    reading.look([source], 0.0, is_paused=True)
    assert reading.unread == 3
