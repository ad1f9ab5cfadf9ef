"""Topics and keys that a benchmark makes, and removes at its end."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from callmood.bench import temporary
from callmood.worker.settings import KafkaSettings, RedisSettings, Settings


@pytest.fixture
def servers(monkeypatch):
    """A Kafka and a Redis that note what they are asked for."""
    admin, client = Mock(), Mock(scan_iter=Mock(return_value=[b"one", b"two"]))
    monkeypatch.setattr(temporary, "connect_redis", lambda _: client)
    monkeypatch.setattr(temporary, "KafkaAdminClient", lambda **_: admin)
    return SimpleNamespace(admin=admin, redis=client)


def test_topics_and_keys_are_removed_after_an_error(servers):
    """Both topics, all keys of the prefix, and the connection to Redis."""
    configured = Settings(kafka=KafkaSettings(), redis=RedisSettings())
    with pytest.raises(RuntimeError), temporary.place("one", configured, 3, {"retention.ms": "-1"}) as place:
        raise RuntimeError
    kafka, name = place.configured.kafka, place.configured.redis.prefix
    assert name.startswith("bench-one-")
    assert kafka.audio_topic == kafka.group_id == name
    made = {"num_partitions": 3, "replication_factor": -1, "configs": {"retention.ms": "-1"}}
    topics = [name, kafka.dead_letter_topic]
    assert servers.admin.create_topics.call_args.args[0] == dict.fromkeys(topics, made)
    assert servers.admin.delete_topics.call_args.args[0] == topics
    assert name in servers.redis.scan_iter.call_args.args[0]
    assert [call.args for call in servers.redis.unlink.call_args_list] == [(b"one",), (b"two",)]
    servers.redis.close.assert_called_once()
