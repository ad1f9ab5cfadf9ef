"""A log that moves under a running consumer, and records in every codec, on a real broker."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.commits import TopicPartition
from callmood.worker.errors import ConfigurationError
from callmood.worker.server_settings import KafkaSettings

pytestmark = pytest.mark.timeout(240)
WAIT_S = 60.0


@pytest.fixture
def source(topic):
    """A partition of a topic of the test."""
    return TopicPartition(topic(partitions=1), 0)


@pytest.fixture
def admin(stack):
    """Changes topics."""
    with closing(KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)) as admin:
        yield admin


@pytest.fixture
def send(stack, source):
    """`send(count)` appends so many records; options are those of the producer."""

    def append(count, partition=0, **options):
        with closing(KafkaProducer(bootstrap_servers=stack.bootstrap_servers, linger_ms=50, **options)) as producer:
            for number in range(count):
                producer.send(source.topic, value=b"%d" % number, headers=[("n", b"x" * 100)], partition=partition)
            producer.flush()

    return append


def wait(is_done, consumer):
    """Polls until it is done; returns all values that were read."""
    values, deadline_s = [], time.monotonic() + WAIT_S
    while not is_done(values):
        assert time.monotonic() < deadline_s
        values += [record.value for records in consumer.poll(50).values() for record in records]
    return values


@pytest.fixture
def consumer(stack, source):
    """A reader that owns the partition and reads it from the start."""
    group = f"g-{uuid4().hex[:8]}"
    settings = KafkaSettings(bootstrap_servers=stack.bootstrap_servers, group_id=group, audio_topic=source.topic)
    with closing(AudioConsumer(settings, "reader")) as consumer:
        wait(lambda _: source in consumer.take_changes().assigned, consumer)
        consumer.start(source, 0)
        yield consumer


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd", None])
def test_every_codec_is_read(consumer, send, codec):
    """Producers choose the codec; nothing of a batch is skipped."""
    send(500, compression_type=codec)
    assert wait(lambda values: len(values) >= 500, consumer) == [b"%d" % number for number in range(500)]
    assert consumer.take_skipped() == []


def test_deleted_records_are_counted_while_reading(consumer, send, admin, source):
    """Retention overtakes a reader that has paused; each record is counted once, and reading goes on."""
    send(10)
    wait(lambda values: len(values) == 10, consumer)
    consumer.pause()
    send(20)
    admin.delete_records({KafkaPartition(*source): 25})
    consumer.resume([source])
    assert wait(lambda values: len(values) == 5, consumer) == [b"15", b"16", b"17", b"18", b"19"]
    (skipped,) = consumer.take_skipped()
    assert (skipped.first, skipped.next_offset, skipped.is_deleted) == (10, 25, True)
    send(3)
    wait(lambda values: len(values) == 3, consumer)
    assert consumer.take_skipped() == []


def test_a_new_partition_is_found_in_seconds(consumer, send, admin, source):
    """Calls on it do not wait for the client's usual five minutes."""
    began_s = time.monotonic()
    admin.create_partitions({source.topic: 2})
    added = TopicPartition(source.topic, 1)
    wait(lambda _: added in consumer.take_changes().assigned, consumer)
    assert time.monotonic() - began_s < 150
    assert consumer.origin(added).partitions == 2
    send(5, partition=1)
    consumer.start(added, consumer.oldest(added))
    assert len(wait(lambda values: len(values) >= 5, consumer)) == 5


def create_again(admin, name):
    """Once Kafka has deleted the topic."""
    admin.delete_topics([name])
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        except KafkaError:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        else:
            return


def test_a_topic_that_is_created_again_is_refused_while_reading(real_kafka, consumer, send, admin, source):
    """A reader takes nothing of the new topic for the old one, although the new one is longer."""
    assert real_kafka
    send(10)
    origin, read = consumer.origin(source), []
    wait(lambda values: len(values) == 10, consumer)

    def delete_create_and_fill():
        create_again(admin, source.topic)
        send(50)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(delete_create_and_fill)
        with pytest.raises(ConfigurationError, match="created again"):
            wait(read.extend, consumer)
        done.result()
    assert read == []
    assert origin.topic_id
    assert origin.cluster
