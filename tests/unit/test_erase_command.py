"""`callmood erase` where Kafka cannot take the erasure; tests/integration/test_erase.py erases from real servers."""

import json

import pytest
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from callmood.__main__ import main
from callmood.worker.commands import erase


class _Consumer:
    """A broker with empty topics."""

    def __init__(self, **_):
        pass

    def partitions_for_topic(self, topic):
        return None if topic in self.missing else {0}

    def end_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    def position(self, _):
        return 0

    def assign(self, _):
        pass

    def seek_to_beginning(self, *_):
        pass

    def close(self):
        pass


class _Producer:
    """A producer that is refused."""

    def __init__(self, **_):
        pass

    def send(self, *_, **__):
        raise self.error

    def close(self):
        pass


@pytest.fixture
def broker(monkeypatch):
    """`broker(missing, error)` sets the topics that do not exist, and the error of every record that is sent."""
    monkeypatch.setattr(erase, "KafkaConsumer", _Consumer)
    monkeypatch.setattr(erase, "KafkaProducer", _Producer)

    def is_like(missing, error):
        monkeypatch.setattr(_Consumer, "missing", missing, raising=False)
        monkeypatch.setattr(_Producer, "error", error, raising=False)

    return is_like


def test_nothing_is_deleted_if_the_topic_of_erasures_is_missing(broker, monkeypatch, capsys):
    """The error names the topic and `callmood topics`; Redis is not even connected."""
    monkeypatch.setenv("CALLMOOD_WORKER__OUTPUT", "both")
    monkeypatch.setattr(erase, "connect_redis", lambda _: pytest.fail("Redis was connected"))
    broker({"callmood.erasures"}, None)
    assert main(["erase", "call-1"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "'callmood.erasures' does not exist" in said.err
    assert "create it with `callmood topics`" in said.err


@pytest.mark.parametrize(("error", "code"), [(TopicAuthorizationFailedError("no"), 2), (KafkaTimeoutError("slow"), 75)])
def test_the_receipt_is_printed_if_the_erasure_cannot_be_written(broker, monkeypatch, capsys, error, code):
    """It announces nothing, and the command ends with the exit code of the error."""
    monkeypatch.setenv("CALLMOOD_WORKER__OUTPUT", "kafka")
    broker((), error)
    assert main(["erase", "call-1"]) == code
    said = capsys.readouterr()
    receipt = json.loads(said.out)
    assert (receipt["call_id"], receipt["announced"]) == ("call-1", [])
    assert receipt["places"][0] == {"where": "kafka: callmood.calls", "found": 0, "left": 0}
    assert "Kafka" in said.err
