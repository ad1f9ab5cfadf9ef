"""A partition gets another leader while nobody asks: the next question reaches that one, on real brokers."""

from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from callmood.worker.adapters.kafka_client import connection
from callmood.worker.server_settings import KafkaSettings
from deploy.local.apache import ApacheKafka
from deploy.local.nursery import Nursery

pytestmark = pytest.mark.timeout(240)

PARTITION = TopicPartition("moved", 0)
PREFERRED = 0


@pytest.fixture
def brokers(real_kafka):
    """Three nodes of this test's own."""
    assert real_kafka
    with Nursery() as nursery:
        brokers = ApacheKafka(nursery, size=3)
        brokers.wait_ready()
        yield brokers


def test_offsets_are_asked_of_the_new_leader(brokers, wait_until):
    """Without new metadata, the former leader would be asked for five minutes."""
    settings = KafkaSettings(bootstrap_servers=brokers.bootstrap_servers)
    with (
        closing(KafkaAdminClient(**connection(settings))) as admin,
        closing(KafkaConsumer(**connection(settings))) as one,
    ):
        admin.create_topics({PARTITION.topic: {"assignments": {0: [1, 2, 3]}}})
        admin.wait_for_topics([PARTITION.topic])
        assert one.end_offsets([PARTITION], timeout_ms=10_000) == {PARTITION: 0}
        admin.alter_partition_reassignments({PARTITION: [2, 3, 1]})

        def has_moved():
            admin.elect_leaders(PREFERRED, {PARTITION.topic: [0]})
            (topic,) = admin.describe_topics([PARTITION.topic])
            return topic["partitions"][0]["leader_id"] == 2

        assert wait_until(has_moved, 30)
        assert one.end_offsets([PARTITION], timeout_ms=10_000) == {PARTITION: 0}
