"""A reader that is behind, on a real broker: no partition waits longer than the others."""

import gc
import time
from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.commits import TopicPartition
from callmood.worker.server_settings import KafkaSettings

pytestmark = pytest.mark.timeout(240)
PARTITIONS, RECORDS, READ = 3, 1_200, 1_000
AUDIO = bytes(16_000)
POLLS = 20
FETCH = 300
"""Records in the 4 MB that a fetch brings of each partition, at most."""


def test_a_backlog_is_read_evenly_from_all_partitions(stack, topic):
    """When 1,000 records of one partition are read, no other is more than a fetch behind.

    Polls bring fewer records than a fetch, so a fetch ends inside a poll, as in service.
    """
    name = topic(partitions=PARTITIONS)
    with closing(
        KafkaProducer(bootstrap_servers=stack.bootstrap_servers, linger_ms=50, batch_size=1 << 18)
    ) as producer:
        for number in range(PARTITIONS * RECORDS):
            producer.send(name, value=AUDIO, partition=number % PARTITIONS)
    settings = KafkaSettings(
        bootstrap_servers=stack.bootstrap_servers, audio_topic=name, group_id=uuid4().hex, max_poll_records=100
    )
    read = dict.fromkeys((TopicPartition(name, number) for number in range(PARTITIONS)), 0)
    consumer, deadline_s = AudioConsumer(settings, "reader"), time.monotonic() + 60
    try:
        while len(consumer.take_changes().assigned) < PARTITIONS:
            consumer.poll(50)
            assert time.monotonic() < deadline_s
        for source in read:
            consumer.start(source, 0)
        while max(read.values()) < READ:
            assert time.monotonic() < deadline_s
            for source, records in consumer.poll(50).items():
                read[source] += len(records)
    finally:
        consumer.close()
    assert max(read.values()) - min(read.values()) <= FETCH, read


def test_polls_that_time_out_hold_no_frames(stack, topic):
    """The error of each would keep its callers, with the records of their turn, until the garbage collector looks."""
    name = topic(partitions=1)
    settings = KafkaSettings(bootstrap_servers=stack.bootstrap_servers, audio_topic=name, group_id=uuid4().hex)
    consumer, deadline_s = AudioConsumer(settings, "reader"), time.monotonic() + 60
    try:
        while not consumer.take_changes().assigned:
            consumer.poll(50)
            assert time.monotonic() < deadline_s
        consumer.start(TopicPartition(name, 0), 0)
        consumer.poll(500)
        gc.collect()
        gc.disable()
        for _ in range(POLLS):
            consumer.poll(50)
        errors = [one for one in gc.get_objects() if type(one) is KafkaTimeoutError]  # isinstance reads attributes
        assert sum(error.__traceback__ is not None for error in errors) < POLLS // 2  # a slow join has its own
    finally:
        gc.enable()
        consumer.close()
