"""`callmood erase` where something refuses; tests/integration/test_erase.py erases from real servers."""

import json
from collections import defaultdict
from types import SimpleNamespace

import pytest
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from callmood.__main__ import main
from callmood.worker.commands import erase
from callmood.worker.errors import StoreUnavailable

CALL = "call-1"


class _Broker:
    """Topics of one partition, and the errors of those that refuse records."""

    def __init__(self):
        self.missing: set[str] = set()
        self.refusals: dict[str, Exception] = {}
        self.values: dict[str, list[bytes | None]] = defaultdict(list)

    def consumer(self, **_):
        return _Consumer(self)

    def producer(self, **_):
        return SimpleNamespace(send=self._send, close=lambda: None)

    def _send(self, topic, key, value=None, **_):
        if error := self.refusals.get(topic):
            raise error
        assert key == CALL.encode()
        self.values[topic].append(value)
        sent = SimpleNamespace(topic=topic, partition=0, offset=len(self.values[topic]) - 1)
        return SimpleNamespace(get=lambda **_: sent)


class _Consumer:
    def __init__(self, broker):
        self._broker = broker
        self._unread = []

    def partitions_for_topic(self, topic):
        return None if topic in self._broker.missing else {0}

    def assign(self, partitions):
        self._unread = list(partitions)

    def assignment(self):
        return set(self._unread)

    def seek_to_beginning(self, *_):
        pass

    def end_offsets(self, partitions):
        return {one: len(self._broker.values[one.topic]) for one in partitions}

    def position(self, partition, **_):
        return 0 if partition in self._unread else len(self._broker.values[partition.topic])

    def poll(self, **_):
        polled = {
            one: [
                SimpleNamespace(topic=one.topic, partition=0, key=CALL.encode(), value=value)
                for value in self._broker.values[one.topic]
            ]
            for one in self._unread
        }
        self._unread = []
        return polled

    def close(self):
        pass


@pytest.fixture
def broker(monkeypatch):
    """A broker that has the aggregate of one call that has ended; results are in Kafka."""
    served = _Broker()
    served.values["callmood.calls"].append(b"{}")
    monkeypatch.setattr(erase, "KafkaConsumer", served.consumer)
    monkeypatch.setattr(erase, "KafkaProducer", served.producer)
    monkeypatch.setenv("CALLMOOD_WORKER__OUTPUT", "kafka")
    return served


@pytest.fixture
def redis_has(monkeypatch):
    """`redis_has(lines)`: with output=both, Redis has no state, and its removal yields these lines or raises them."""

    def has(lines):
        def removal(*_):
            for line in lines:
                if isinstance(line, Exception):
                    raise line
                yield line

        monkeypatch.setenv("CALLMOOD_WORKER__OUTPUT", "both")
        monkeypatch.setattr(erase, "connect_redis", lambda _: SimpleNamespace(close=lambda: None))
        monkeypatch.setattr(erase, "_states", lambda *_: [])
        monkeypatch.setattr(erase, "_from_redis", removal)

    return has


def erased(capsys):
    """The exit code, the receipt, and what the error says."""
    code = main(["erase", CALL])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


@pytest.mark.parametrize("topic", ["callmood.erasures", "callmood.calls", "callmood.alerts", "callmood.audio"])
def test_nothing_is_deleted_if_a_topic_is_missing(broker, redis_has, capsys, topic):
    """The error names the topic and `callmood topics`; nothing is removed, and there is no receipt."""
    redis_has([AssertionError("something is removed from Redis")])
    broker.missing.add(topic)
    assert main(["erase", CALL]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"'{topic}' does not exist" in said.err
    assert "create it with `callmood topics`" in said.err
    assert broker.values["callmood.calls"] == [b"{}"]


def test_nothing_is_deleted_if_the_state_in_kafka_is_of_a_live_call(broker, redis_has, capsys, monkeypatch):
    """With output=both, Redis keeps a call whose state in Kafka says that it may go on."""
    redis_has([AssertionError("something is removed from Redis")])
    monkeypatch.setattr(erase, "is_final", lambda state: state != b"live")
    broker.values["callmood.states"].append(b"live")
    assert main(["erase", CALL]) == 2
    said = capsys.readouterr()
    assert (said.out, broker.values["callmood.calls"]) == ("", [b"{}"])
    assert "is live" in said.err


@pytest.mark.parametrize(("error", "code"), [(TopicAuthorizationFailedError("no"), 2), (KafkaTimeoutError("slow"), 75)])
@pytest.mark.parametrize(("topic", "places"), [("callmood.calls", 0), ("callmood.erasures", 6)])
def test_an_interrupted_erasure_is_completed_by_a_second_run(broker, capsys, topic, places, error, code):
    """The first receipt has what was removed and is not complete; the second run does the rest."""
    broker.refusals[topic] = error
    first_code, first, said = erased(capsys)
    assert (first_code, first["complete"], first["announced"]) == (code, False, [])
    assert len(first["places"]) == places
    assert "Kafka" in said
    broker.refusals.clear()
    second_code, second, _ = erased(capsys)
    assert (second_code, second["complete"]) == (0, True)
    assert [one["topic"] for one in second["announced"]] == ["callmood.erasures"]
    assert broker.values["callmood.calls"] == [b"{}", None]


def test_a_failing_redis_leaves_a_receipt_that_is_not_complete(broker, redis_has, capsys):
    """What was removed before the error is in the receipt; Kafka is not touched yet."""
    redis_has([erase.Line("call", 1, 0), StoreUnavailable("Redis does not answer")])
    code, receipt, _ = erased(capsys)
    assert (code, receipt["complete"], len(receipt["places"])) == (75, False, 1)
    assert broker.values["callmood.calls"] == [b"{}"]
