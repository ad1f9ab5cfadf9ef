"""The consumer detects deleted records, and a topic that was created again."""

import uuid
from types import SimpleNamespace

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaTimeoutError
from structlog.testing import capture_logs

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.adapters.consume import AudioConsumer, _assignor
from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.commits import TopicPartition
from callmood.worker.errors import ConfigurationError, Fenced, Unsettled
from callmood.worker.records import Position
from callmood.worker.server_settings import KafkaSettings

SOURCE = TopicPartition("audio", 0)
PARTITION = KafkaPartition(*SOURCE)


class _Subscription:
    """Where the client keeps positions; a reset forgets one."""

    def __init__(self):
        self.assignment = {PARTITION: SimpleNamespace(position=SimpleNamespace(offset=110))}

    def request_offset_reset(self, partition, strategy=None):
        assert strategy is None
        self.assignment[partition].position = None


class _Client:
    """The client's consumer, as far as it is asked."""

    beginning_offsets = end_offsets = staticmethod(lambda partitions, **_: dict.fromkeys(partitions, 1))

    def __init__(self):
        self._subscription = _Subscription()
        self._cluster = SimpleNamespace(
            cluster_id="c", topic_id=lambda _: self.id, leader_for_partition=lambda _: self.leader
        )
        self.id, self.leader = uuid.UUID(int=1), 1

    def assignment(self):
        return set(self._subscription.assignment)


@pytest.fixture
def client():
    """The client's side."""
    return _Client()


@pytest.fixture
def consumer(client):
    """Ours, around it."""
    consumer = AudioConsumer.__new__(AudioConsumer)
    consumer._consumer, consumer._skipped, consumer._gone, consumer._empty_ms = client, [], frozenset(), 0
    consumer._resets = kafka_workarounds.note_resets(client)
    consumer._topic_ids = {"audio": kafka_workarounds.topic_id(client, "audio")}
    return consumer


def records(*offsets):
    """Polled records at these offsets."""
    return {PARTITION: [SimpleNamespace(position=Position(*SOURCE, offset)) for offset in offsets]}


@pytest.mark.parametrize("polled", [records(1_400, 1_401), records(108, 109, 1_400)])
def test_a_reset_counts_what_was_deleted_up_to_the_first_record_behind_it(client, consumer, polled):
    """Records that were fetched before it may come in the same poll."""
    client._subscription.request_offset_reset(PARTITION)
    client._subscription.assignment[PARTITION].position = SimpleNamespace(offset=1_402)
    consumer._note_deleted(polled)
    consumer._note_deleted(records(1_402))
    assert consumer.take_skipped() == [Skipped(SOURCE, 110, 1_400, "deleted by retention", is_deleted=True)]
    assert consumer.take_skipped() == []


def test_a_reset_without_records_counts_up_to_the_new_position(client, consumer):
    """All that there was is deleted; where the position is not known yet, the next poll tells."""
    client._subscription.request_offset_reset(PARTITION)
    consumer._note_deleted({})
    assert consumer.take_skipped() == []
    client._subscription.assignment[PARTITION].position = SimpleNamespace(offset=150)
    consumer._note_deleted({})
    assert [one.next_offset for one in consumer.take_skipped()] == [150]


def test_a_reset_behind_another_one_counts_from_the_last_record_between_them(client, consumer):
    """Retention overtakes reading twice, and the records between are read."""
    partition = client._subscription.assignment[PARTITION]
    client._subscription.request_offset_reset(PARTITION)
    partition.position = SimpleNamespace(offset=152)
    client._subscription.request_offset_reset(PARTITION)
    consumer._note_deleted(records(150, 151))
    assert consumer.position(SOURCE) == 152
    partition.position = SimpleNamespace(offset=160)
    consumer._note_deleted({})
    skipped = consumer.take_skipped()
    assert [(one.first, one.next_offset) for one in skipped] == [(110, 150), (152, 160)]
    assert consumer.position(SOURCE) == 160


def test_a_reset_of_a_partition_that_has_no_position_is_a_start(client, consumer):
    """A partition that was just assigned has read nothing yet."""
    client._subscription.assignment[PARTITION].position = None
    client._subscription.request_offset_reset(PARTITION)
    consumer._note_deleted(records(5))
    assert consumer.take_skipped() == []


def test_a_partition_that_is_gone_is_not_asked_about(client, consumer):
    """Its next owner counts from the stored position."""
    client._subscription.request_offset_reset(PARTITION)
    del client._subscription.assignment[PARTITION]
    consumer._note_deleted({})
    assert consumer._resets == {}


ASKED = pytest.mark.parametrize("ask", [lambda one: one.oldest(SOURCE), lambda one: one.start(SOURCE, 0)])


@ASKED
def test_a_partition_without_a_leader_is_taken_over_later(client, consumer, ask):
    """No broker is asked, so that many of them hold nothing up."""
    client.leader = -1
    with pytest.raises(Unsettled, match=r"audio/0 has no leader") as caught:
        ask(consumer)
    assert caught.value.retry_s == 5
    assert consumer.stable_ends([SOURCE]) == {}


@ASKED
def test_a_partition_whose_leader_does_not_answer_is_taken_over_later(client, consumer, ask):
    """Its broker has just died: the others do not wait for long."""

    def silent(_partitions, timeout_ms):
        raise KafkaTimeoutError(f"no answer in {timeout_ms} ms")

    client.beginning_offsets = client.end_offsets = silent
    with pytest.raises(Unsettled, match=r"no broker answers for audio/0") as caught:
        ask(consumer)
    assert "in 2000 ms" in str(caught.value.__cause__)
    assert caught.value.retry_s == 5


def test_a_position_that_is_reset_stays_until_it_is_known(client, consumer):
    """And nobody waits for it."""
    assert consumer.position(SOURCE) == 110
    client._subscription.request_offset_reset(PARTITION)
    assert consumer.position(SOURCE) == 110
    client._subscription.assignment[PARTITION].position = SimpleNamespace(offset=150)
    assert consumer.position(SOURCE) == 150


def test_another_id_under_the_same_name_is_another_topic(client, consumer):
    """It is refused; an id that is not known for a moment is nothing."""
    consumer._refuse_new_topics()
    client.id = None
    consumer._refuse_new_topics()
    client.id = uuid.UUID(int=0)
    consumer._refuse_new_topics()
    client.id = uuid.UUID(int=2)
    with pytest.raises(ConfigurationError, match="'audio' is now the topic of another cluster, or was deleted"):
        consumer._refuse_new_topics()


def test_a_topic_that_was_deleted_is_reported_once(client, consumer):
    """When its partitions are gone, too: an id that is not known for a moment is nothing."""
    client.id = None
    with capture_logs() as lines:
        consumer._refuse_new_topics()
        assert lines == []
        client._subscription.assignment.clear()
        consumer._refuse_new_topics()
        consumer._refuse_new_topics()
    assert [(line["log_level"], line["topic"]) for line in lines] == [("error", "audio")]


def test_an_id_that_is_learnt_later_is_kept(consumer):
    """The first answer of the broker may lack it."""
    consumer._topic_ids = {"audio": ""}
    consumer._refuse_new_topics()
    assert consumer._topic_ids == {"audio": uuid.UUID(int=1).hex}


def test_an_origin_names_cluster_topic_group_and_partitions(client, consumer):
    """A stored position of it can be told from that of any other."""
    consumer._group_id = "g"
    client.partitions_for_topic = lambda _: {0, 1}
    assert consumer.origin(SOURCE) == ("c", uuid.UUID(int=1).hex, "g", 2)


def test_the_membership_is_of_the_last_poll_also_if_the_topic_is_refused(consumer, client, monkeypatch):
    """The drain that follows commits nothing with a generation of before."""
    monkeypatch.setattr(kafka_workarounds, "poll", lambda *_: {})
    monkeypatch.setattr(kafka_workarounds, "stable_membership", lambda _: None)
    client._fetcher = SimpleNamespace(config={})
    consumer._listener, consumer.membership = SimpleNamespace(is_lost=False), "before"
    consumer._settings = KafkaSettings()
    client.id = uuid.UUID(int=2)
    with pytest.raises(ConfigurationError):
        consumer.poll(1)
    assert consumer.membership is None


def test_a_member_that_is_out_of_its_group_has_no_membership(consumer, client, monkeypatch):
    """Though the client still has one: the drain that follows commits nothing with it."""
    monkeypatch.setattr(kafka_workarounds, "poll", lambda *_: {})
    monkeypatch.setattr(kafka_workarounds, "stable_membership", lambda _: "stable")
    client._fetcher = SimpleNamespace(config={})
    consumer._listener, consumer._settings = SimpleNamespace(is_lost=False), KafkaSettings()
    consumer.poll(1)
    assert consumer.membership == "stable"
    consumer._listener.is_lost = True
    with pytest.raises(Fenced):
        consumer.poll(1)
    assert consumer.membership is None


def test_records_are_gathered_only_while_some_come(consumer, client, monkeypatch):
    """A fetch waits for many records while polls bring some; if none has for its time, it ends with the first."""
    polled = {
        PARTITION: [SimpleNamespace(offset=3, topic="audio", partition=0, key=b"", value=b"", headers=[], timestamp=1)]
    }
    answers = iter([polled, {}, {}])
    monkeypatch.setattr(kafka_workarounds, "poll", lambda *_: next(answers))
    monkeypatch.setattr(kafka_workarounds, "stable_membership", lambda _: None)
    client._fetcher = SimpleNamespace(config={})
    consumer._listener, consumer.membership = SimpleNamespace(is_lost=False), None
    consumer._settings = KafkaSettings(fetch_wait_ms=70)
    assert list(consumer.poll(1)) == [SOURCE]
    gathering = {"fetch_min_bytes": 1 << 20, "fetch_max_wait_ms": 70}
    assert client._fetcher.config == gathering
    assert not consumer.poll(20)
    assert client._fetcher.config == gathering
    assert not consumer.poll(60)
    assert client._fetcher.config == {"fetch_min_bytes": 1, "fetch_max_wait_ms": 900}


@pytest.mark.parametrize(
    ("membership", "assignor", "used"),
    [
        ("dynamic", "cooperative-sticky", "cooperative-sticky"),
        ("static", "cooperative-sticky", "sticky"),
        ("static", "range", "range"),
    ],
)
def test_static_members_do_not_hand_partitions_over_in_two_steps(membership, assignor, used):
    """One that restarts between the steps joins without a rebalance: the second step would never come."""
    assert _assignor(KafkaSettings(membership=membership, assignor=assignor)).name == used
