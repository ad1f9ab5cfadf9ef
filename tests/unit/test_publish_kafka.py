"""What a takeover reads from the states topic, on clients that are values."""

from contextlib import suppress
from types import SimpleNamespace

import msgpack
import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from structlog.testing import capture_logs

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.adapters.publish_kafka import Clients, KafkaStore
from callmood.worker.commits import CallUpdate, Commit, Origin, TopicPartition
from callmood.worker.errors import ConfigurationError, Fenced, Unsettled
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.stream_time import StreamTime

SOURCE = TopicPartition("callmood.audio", 0)
STATES = KafkaPartition("callmood.states", 0)
OURS = Origin("cluster", "topic", "group", 1)


class _Reader:
    """The states topic; each poll gives some records and takes a tenth of a second."""

    def __init__(self, records, at_once):
        self.records, self.at_once, self.at, self.now_s, self.seeks = records, at_once, 0, 0.0, []
        self.partitions = self.partitions_on_broker = {0}

    def assign(self, _partitions):
        pass

    def seek_to_beginning(self, _partition):
        self.at = 0
        self.seeks.append(0)

    def seek(self, _partition, offset):
        self.at = offset
        self.seeks.append(offset)

    def position(self, _partition, timeout_ms):
        assert timeout_ms
        return self.at

    def poll(self, timeout_ms):
        self.now_s += timeout_ms / 1000
        polled = self.records[self.at : self.at + self.at_once]
        self.at += len(polled)
        return {STATES: [SimpleNamespace(key=key, value=value) for key, value in polled]}

    def partitions_for_topic(self, _topic):
        return self.partitions

    def topics(self):
        self.partitions = self.partitions_on_broker

    def end_offsets(self, partitions, timeout_ms):
        assert timeout_ms
        return dict.fromkeys(partitions, len(self.records))


class _Consumer:
    def __init__(self, committed, origin=OURS):
        self.offset, self.membership, self._origin = committed, ("generation", 1), origin

    def committed(self, _source, timeout_ms):
        assert timeout_ms
        return self.offset

    def origin(self, _source):
        return self._origin


def open_store(records, *, committed=None, origin=OURS, at_once=1000):
    """A store on a states topic with these records."""
    reader, consumer = _Reader(records, at_once), _Consumer(committed, origin)
    clients = Clients(SimpleNamespace(init_transactions=lambda: None), reader, reader)
    return KafkaStore(consumer, clients, KafkaSettings(), lambda: reader.now_s), reader, consumer


def stored(watermark=40, calls=("a", "b")):
    """The state records of a commit."""
    store, _, _ = open_store([])
    commit = Commit(SOURCE, watermark, StreamTime(7, 8), calls=tuple(CallUpdate(call, b"s") for call in calls))
    return [(record["key"], record["value"]) for record in store._records(commit)]


def claimed(store):
    """What a claim gives in the end, and how many tries it took."""
    for tries in range(1, 1000):
        with suppress(Unsettled):
            return store.claim(SOURCE), tries
    raise AssertionError


def test_a_foreign_record_on_the_states_topic_stops_no_takeover():
    """A foreign producer wrote it: its key is no text, and the partition finds that its value is no state."""
    store, _, _ = open_store([*stored(), (b"\xff\xfe", b"junk")])
    restored, _ = claimed(store)
    assert restored.states.keys() == {"a", "b", "\ufffd\ufffd"}


@pytest.mark.parametrize(
    "junk",
    [
        b"x",
        b"\xc1",
        b"{}",
        *map(msgpack.packb, (5, [1], {"time": 5}, {"time": [1], "watermark": "5"}, {"time": [None]})),
    ],
)
def test_a_foreign_position_on_the_states_topic_stops_no_takeover(junk):
    """The group's offset counts; `take_over` finds the clock again in the states."""
    store, _, _ = open_store([*stored(), (b"", junk)], committed=39)
    with capture_logs() as lines:
        restored, _ = claimed(store)
    assert (restored.watermark, restored.time, set(restored.states)) == (39, None, {"a", "b"})
    assert [line["event"] for line in lines] == ["position on the states topic cannot be read"]


@pytest.mark.parametrize(("committed", "watermark"), [(None, 40), (0, 40), (39, 40), (40, 40), (45, 45)])
def test_the_states_know_the_position(committed, watermark):
    """Group offsets that expired, were deleted or set back do not publish a call twice; set forward, they count."""
    store, _, _ = open_store(stored(), committed=committed)
    with capture_logs() as lines:
        restored, _ = claimed(store)
    assert (restored.watermark, restored.time, set(restored.states)) == (watermark, StreamTime(7, 8), {"a", "b"})
    assert len(lines) == (committed is None or committed < 40)


def test_a_partition_that_an_output_topic_lacks_is_waited_for():
    """The log names the topic, the other partitions go on, and so does this one once the topic has it."""
    store, reader, _ = open_store([])
    source = SOURCE._replace(partition=1)
    with capture_logs() as lines, pytest.raises(Unsettled, match="no partition 1") as raised:
        store.claim(source)
    assert [line["partition"] for line in lines] == [1]
    assert raised.value.retry_s >= 1
    reader.partitions_on_broker = {0, 1}
    assert store.claim(source).watermark is None


def test_a_partition_without_anything_is_new():
    """Nobody has committed there."""
    restored, _ = claimed(open_store([])[0])
    assert (restored.watermark, restored.time, restored.states) == (None, None, {})


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (OURS._replace(topic_id="new"), "is the topic of another cluster, or was deleted and created again"),
        (OURS._replace(cluster="other"), "another Kafka cluster"),
        (OURS._replace(group="canary"), "consumer group 'group'"),
    ],
)
def test_a_position_of_somebody_else_is_refused(origin, words):
    """A topic that was created again, another cluster and another group have positions of their own."""
    with pytest.raises(ConfigurationError, match=words):
        claimed(open_store(stored(), committed=40, origin=origin)[0])


def test_ids_that_are_not_known_are_not_compared():
    """Brokers before 2.8 give topics no id."""
    assert claimed(open_store(stored(), committed=40, origin=Origin("", "", "group"))[0])[0].watermark == 40


def test_many_states_are_read_slice_by_slice():
    """However long it takes, the loop has its turn twice a second, and reading goes on where it was."""
    many = [(b"%d" % n, b"s") for n in range(400)] + stored()
    store, reader, _ = open_store(many, committed=40, at_once=10)
    restored, tries = claimed(store)
    assert len(restored.states) == 402
    assert tries == pytest.approx(8, abs=2)
    assert reader.seeks == sorted(set(reader.seeks))


def test_a_new_generation_reads_again_from_the_start():
    """In between another owner may have committed."""
    store, reader, consumer = open_store([(b"%d" % n, b"s") for n in range(400)] + stored(), at_once=10)
    with pytest.raises(Unsettled):
        store.claim(SOURCE)
    consumer.membership, consumer.offset = ("generation", 2), 50
    assert claimed(store)[0].watermark == 50
    assert reader.seeks.count(0) == 2


def test_an_open_transaction_on_the_states_does_not_hold_the_loop():
    """The states before it are read, other partitions have their turn, and later the rest is read."""
    records = stored()
    store, reader, _ = open_store(records[:1])
    store._ends = SimpleNamespace(
        end_offsets=lambda partitions, timeout_ms: dict.fromkeys(partitions, 3) if timeout_ms else {},
        partitions_for_topic=lambda _topic: {0},
    )
    with pytest.raises(Unsettled, match="open") as raised:
        store.claim(SOURCE)
    assert raised.value.retry_s > 0
    assert reader.now_s < 0.5
    reader.records += records[1:]
    assert store.claim(SOURCE).states.keys() == {"a", "b"}
    assert reader.seeks == [0, 1]


def test_states_that_do_not_come_give_way():
    """A broker that is slow to answer holds up one partition, not the others."""
    store, reader, _ = open_store(stored(), at_once=0)
    with pytest.raises(Unsettled, match="the states topic sends no records") as raised:
        store.claim(SOURCE)
    assert raised.value.retry_s > 0
    assert reader.now_s == pytest.approx(2, abs=0.3)


def test_nothing_is_committed_while_the_group_is_joined_again():
    """The broker may have a generation that this process does not know yet, and would refuse the offsets."""
    store, _, consumer = open_store([])
    assert store.can_commit
    consumer.membership = None
    assert not store.can_commit


def test_the_clock_record_is_no_call():
    """Its key is empty, which no call id is."""
    assert [key for key, _ in stored()] == [b"a", b"b", b""]
    assert msgpack.unpackb(stored()[-1][1])["watermark"] == 40


@pytest.mark.parametrize("error", [MessageSizeTooLargeError, RecordListTooLargeError])
def test_a_topic_that_takes_no_record_of_a_state_s_size_is_named(monkeypatch, error):
    """A restart would meet the same state again: it stops with what to set."""

    def refuse(*_):
        raise error("1500000 bytes")

    monkeypatch.setattr(kafka_workarounds, "transact", refuse)
    store, _, _ = open_store([])
    with pytest.raises(ConfigurationError, match=r"max\.message\.bytes=4194304"):
        store.commit([Commit(SOURCE, 1, StreamTime())])


def test_nothing_is_sent_without_a_membership(monkeypatch):
    """Brokers accept the offsets of a producer that names no member, also if another worker owns the partition."""
    sent = []
    monkeypatch.setattr(kafka_workarounds, "transact", lambda *transaction: sent.append(transaction))
    store, _, consumer = open_store([])
    store.commit([Commit(SOURCE, 1, StreamTime())])
    consumer.membership = None
    with pytest.raises(Fenced, match="not a stable member"):
        store.commit([Commit(SOURCE, 2, StreamTime())])
    assert [offsets[KafkaPartition(*SOURCE)].offset for _, _, offsets, _ in sent] == [1]


def test_a_claim_reads_the_states_each_time():
    """A takeover that fails after it is tried again in the same generation."""
    store, _, _ = open_store(stored())
    assert claimed(store)[0] == claimed(store)[0]


def test_the_offset_is_read_before_the_end_of_the_states(monkeypatch):
    """So the states are never older than the offset, whatever is committed in between."""
    store, reader, consumer = open_store(stored())
    asked = []
    for owner, name in ((consumer, "committed"), (reader, "end_offsets")):
        ask = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, ask=ask, **named: (asked.append(ask.__name__), ask(*args, **named))[1]
        )
    claimed(store)
    assert asked[:2] == ["committed", "end_offsets"]
