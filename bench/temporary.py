"""Topics and keys that a benchmark makes, and removes at its end."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple
from uuid import uuid4

from kafka import KafkaAdminClient
from kafka.errors import UnknownTopicOrPartitionError

from callmood.schemas.keys import Keys
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.adapters.redis_client import connect_redis
from callmood.worker.server_settings import RedisSettings
from callmood.worker.settings import Settings


class Place(NamedTuple):
    """Settings with a topic, a group and a prefix that nothing else uses, and a connection to Redis."""

    configured: Settings
    redis: Any


@contextmanager
def place(name: str, configured: Settings, partitions: int, topic: Mapping[str, str] | None = None) -> Iterator[Place]:
    """Make the topics; at the end, remove them and all keys of the prefix, also after an error.

    Args:
        name: begins the names of topics, group and keys.
        configured: what else the settings are.
        partitions: of the audio topic and of the topic of dead-letter records.
        topic: settings of both topics.
    """
    name = f"bench-{name}-{uuid4().hex[:8]}"
    topics = (name, f"{name}-dead")
    wanted = {"num_partitions": partitions, "replication_factor": -1, "configs": dict(topic or {})}
    kafka = configured.kafka.model_copy(update={"audio_topic": name, "group_id": name, "dead_letter_topic": topics[1]})
    redis = configured.redis.model_copy(update={"prefix": name})
    with removed_after(redis) as client, closing(KafkaAdminClient(**connection(kafka))) as admin:
        try:
            admin.create_topics(dict.fromkeys(topics, wanted), wait_for_metadata=True)
            yield Place(configured.model_copy(update={"kafka": kafka, "redis": redis}), client)
        finally:
            for made in topics:
                with suppress(UnknownTopicOrPartitionError):  # it was not made
                    admin.delete_topics([made])


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as an error does, so that what it has made is removed; a second is ignored."""
    signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


@contextmanager
def removed_after(wanted: RedisSettings) -> Iterator[Any]:
    """A connection; then all keys of the prefix are removed, also after an error."""
    with closing(connect_redis(wanted)) as client:
        try:
            yield client
        finally:
            for key in list(client.scan_iter(Keys(wanted.prefix).named("*"), count=1_000)):
                client.unlink(key)
