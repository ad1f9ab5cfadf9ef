"""`callmood erase` where something refuses; tests/integration/test_erase.py erases from real servers."""

import json
from collections import defaultdict
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from callmood.__main__ import main
from callmood.worker.adapters.redis_entries import entries_of
from callmood.worker.commands import erase
from callmood.worker.errors import StoreUnavailable
from callmood.worker.partition.ended import Ended
from callmood.worker.server_settings import KafkaSettings

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
    """With output=both, Redis keeps a call whose state in Kafka says that it can continue."""
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


@pytest.mark.parametrize("left", [0, 2])
def test_the_exit_code_and_the_receipt_say_what_is_left(monkeypatch, capsys, left):
    """The erasure is announced with the time in ms."""
    announced = []
    monkeypatch.setattr(erase, "find", lambda *_: None)
    monkeypatch.setattr(erase, "remove", lambda *_: iter([erase.Line("a", 3, 0), erase.Line("b", 2, left)]))
    monkeypatch.setattr(erase, "announce", lambda *_, at_ms: announced.append(at_ms) or [])
    assert main(["erase", CALL]) == (1 if left else 0)
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["left_to_retention"] == left
    assert datetime.fromtimestamp(announced[0] // 1000, UTC).isoformat() == receipt["erased_at"]


def test_a_call_is_live_if_one_of_its_states_is():
    """A call id may be in several partitions; a state that a record continues is not final."""
    over, open_ = (Ended(7, 0, is_paused=False, state=state).pack() for state in (b"", b"state"))
    erase._refuse_live(CALL, [])
    erase._refuse_live(CALL, [over, over])
    for states in ([open_], [over, open_], [open_, over]):
        with pytest.raises(erase.CallIsLiveError, match=f"call {CALL} is live or can continue"):
            erase._refuse_live(CALL, states)


@pytest.mark.parametrize(
    ("values", "found"), [([b"1", None], (1, None)), ([None, b"2", b"3"], (2, b"3")), ([None], (0, None))]
)
def test_tombstones_are_no_records_of_a_call(broker, values, found):
    """They are not counted, and the newest of them says that nothing is left."""
    broker.values["callmood.calls"][:] = values
    topics = erase._Topics(["callmood.calls"], [], [], [])
    assert erase._records(KafkaSettings(), topics, CALL) == {TopicPartition("callmood.calls", 0): found}


class _Stream:
    """A client of a Redis with one stream, of two calls in turn."""

    def __init__(self, encode):
        self.ids = [f"{number}-0" for number in range(1, 2_501)]
        self.entries = [
            (encode(id_), {encode("call_id"): encode(f"call-{number % 2}")}) for number, id_ in enumerate(self.ids)
        ]
        self.asked = []

    def xrange(self, _, start, end, count):
        """The entries from one on, or from the one after it."""
        self.asked.append((start, end))
        first = 0 if start == "-" else self.ids.index(start.removeprefix("(")) + start.startswith("(")
        return self.entries[first : first + count]


@pytest.mark.parametrize("encode", [str, str.encode])
def test_entries_of_a_call_are_found_on_every_page(encode):
    """Each once, with a client of bytes or of text."""
    stream = _Stream(encode)
    assert list(entries_of(stream, "stream", [CALL])) == [entry_id for entry_id, _ in stream.entries[1::2]]
    assert stream.asked == [("-", "+"), ("(1000-0", "+"), ("(2000-0", "+"), ("(2500-0", "+")]
