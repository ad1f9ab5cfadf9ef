"""Topics and keys that a benchmark makes, and removes at its end."""

import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from kafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from callmood.bench import temporary
from callmood.worker.settings import Settings


@pytest.fixture
def servers(monkeypatch):
    """A Kafka and a Redis that note what they are asked for."""
    admin, client = Mock(), Mock(scan_iter=Mock(return_value=[b"one", b"two"]))
    monkeypatch.setattr(temporary, "connect_redis", lambda _: client)
    monkeypatch.setattr(temporary, "KafkaAdminClient", lambda **_: admin)
    return SimpleNamespace(admin=admin, redis=client)


def test_topics_and_keys_are_removed_after_an_error(servers):
    """Both topics, all keys of the prefix, and the connection to Redis."""
    with pytest.raises(RuntimeError), temporary.place("one", Settings(), 3, {"retention.ms": "-1"}) as place:
        raise RuntimeError
    kafka, name = place.configured.kafka, place.configured.redis.prefix
    assert name.startswith("bench-one-")
    assert kafka.audio_topic == kafka.group_id == name
    made = {"num_partitions": 3, "replication_factor": -1, "configs": {"retention.ms": "-1"}}
    topics = [name, kafka.dead_letter_topic]
    assert servers.admin.create_topics.call_args.args[0] == dict.fromkeys(topics, made)
    assert [call.args for call in servers.admin.delete_topics.call_args_list] == [([topic],) for topic in topics]
    assert name in servers.redis.scan_iter.call_args.args[0]
    assert [call.args for call in servers.redis.unlink.call_args_list] == [(b"one",), (b"two",)]
    servers.redis.close.assert_called_once()


def test_what_was_made_before_an_error_is_removed_as_well(servers):
    """One topic was made, the other not: that the second does not exist is no error."""
    servers.admin.create_topics.side_effect = KafkaTimeoutError
    servers.admin.delete_topics.side_effect = [None, UnknownTopicOrPartitionError]
    with pytest.raises(KafkaTimeoutError), temporary.place("one", Settings(), 1):
        pass
    assert servers.admin.delete_topics.call_count == 2
    assert servers.redis.unlink.called


def test_sigterm_ends_a_benchmark_and_a_second_one_does_not_stop_its_cleaning():
    """The process exits as it would without a handler, and what is left to do is done."""
    program = (
        "import os, signal\n"
        "from callmood.bench.temporary import end_on_sigterm\n"
        "end_on_sigterm()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "finally:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('removed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "removed\n")
