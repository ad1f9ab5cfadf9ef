"""For `callmood check`: whether stored positions are of this cluster, this topic and this consumer group."""

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Final

import msgpack
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition

from callmood.schemas.keys import Keys
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.adapters.kafka_workarounds import cluster_id, topic_id
from callmood.worker.adapters.publish_kafka import CLOCK_KEY
from callmood.worker.adapters.redis_client import connect_redis, redis_errors
from callmood.worker.adapters.store import not_ours
from callmood.worker.commits import Origin, TopicPartition
from callmood.worker.errors import ConfigurationError, StoreUnavailable
from callmood.worker.settings import Settings

_NEWEST: Final = 500
"""Records at the end of a states partition that are read: each commit writes the position."""
_READ_MS: Final = 3_000


def refuse_foreign_positions(configured: Settings, consumer: KafkaConsumer) -> None:
    """Compare what is stored with the ids of the topic as it is now. Nothing stored, or no answer, is no difference.

    Raises:
        ConfigurationError: a position is another cluster's, another topic's or another group's.
    """
    kafka = configured.kafka
    count = len(consumer.partitions_for_topic(kafka.audio_topic) or ())
    ours = Origin(cluster_id(consumer), topic_id(consumer, kafka.audio_topic), kafka.group_id, count)
    in_redis = configured.worker.output == "redis"
    apart = "another CALLMOOD_REDIS__PREFIX" if in_redis else "other output topics and CALLMOOD_KAFKA__STATE_TOPIC"
    for source, stored in _in_redis(configured, count) if in_redis else _in_kafka(configured, count):
        for field, known in ours._asdict().items():
            found = stored.get(field)
            if found and known and found != known:
                raise not_ours(source, field, found, apart)


def _in_redis(configured: Settings, count: int) -> Iterator[tuple[TopicPartition, Mapping[str, str]]]:
    keys, topic = Keys(configured.redis.prefix), configured.kafka.audio_topic
    fields = ("cluster", "topic_id", "group")
    with suppress(StoreUnavailable, ConfigurationError):  # the check of Redis names what is wrong with Redis
        client = connect_redis(configured.redis)
        with closing(client), redis_errors():
            found = [client.hmget(keys.position(topic, number), fields) for number in range(count)]
        for number, values in enumerate(found):
            texts = (value.decode() if value else "" for value in values)
            yield TopicPartition(topic, number), dict(zip(fields, texts, strict=True))


def _in_kafka(configured: Settings, count: int) -> Iterator[tuple[TopicPartition, Mapping[str, str]]]:
    kafka = configured.kafka
    options = connection(kafka) | {"enable_auto_commit": False, "isolation_level": "read_committed"}
    with closing(KafkaConsumer(**options)) as reader:
        for number in range(count):
            partition = KafkaPartition(kafka.state_topic, number)
            reader.assign([partition])
            end = reader.end_offsets([partition])[partition]
            begin = max(reader.beginning_offsets([partition])[partition], end - _NEWEST)
            reader.seek(partition, begin)
            polled = reader.poll(timeout_ms=_READ_MS, max_records=_NEWEST).get(partition, []) if begin < end else []
            clocks = [record.value for record in polled if record.key == CLOCK_KEY and record.value]
            if clocks:
                yield TopicPartition(kafka.audio_topic, number), msgpack.unpackb(clocks[-1])["origin"]
