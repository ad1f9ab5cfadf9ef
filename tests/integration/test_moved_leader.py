"""A partition gets another leader while nobody asks: the next question reaches that one, on real brokers."""

from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from callmood.worker.adapters.kafka_client import connection
from callmood.worker.server_settings import KafkaSettings

pytestmark = pytest.mark.timeout(240)

PARTITION = TopicPartition("moved", 0)
PREFERRED = 0


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
