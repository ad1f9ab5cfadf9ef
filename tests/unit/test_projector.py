"""The projection: what it does with tombstones, and with records that the client could not read."""

import json
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from telephony import Leg, analyse, quiet, voice

from callmood.worker.adapters.consume import Changes
from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.errors import Unsettled
from callmood.worker.records import Position, Record
from callmood.worker.run.projector import Projector
from callmood.worker.server_settings import KafkaSettings

TOPICS = KafkaSettings()
CALLS = TopicPartition(TOPICS.call_topic, 0)


@pytest.fixture(scope="module")
def said():
    """What a worker says of a call that has ended."""
    leg = Leg()
    return analyse([*leg.media(quiet(1) + voice(1) + quiet(1)), leg.send("end")])


class _Consumer:
    """Gives one batch of records."""

    def __init__(self, source, values):
        self.source = source
        self.assigned, self.skipped = {source}, []
        self.records = [
            Record(Position(*source, n), b"call-1", value and json.dumps(value).encode(), (), 1_000 + n)
            for n, value in enumerate(values)
        ]

    def poll(self, _timeout_ms):
        polled, self.records = (
            ({self.source: self.records} if self.records and not self.assigned else {}),
            (self.records if self.assigned else []),
        )
        return polled

    def take_changes(self):
        assigned, self.assigned = self.assigned, set()
        return Changes(assigned=assigned)

    def take_skipped(self):
        skipped, self.skipped = self.skipped, []
        return skipped

    def position(self, _source):
        return 7

    def lag(self, _source):
        return 0

    oldest = lag

    def start(self, *_):
        pass

    show_progress = resume = start


class _Store:
    """Writes down the order of what it is asked to do."""

    def __init__(self):
        self.acts = []

    def claim(self, _source):
        return Restored(None, None, {})

    def erase(self, erased_ms):
        self.acts += [("erase", *erased) for erased in erased_ms.items()]

    def commit(self, commits):
        self.acts += [("commit", commit) for commit in commits]
        return Committed(tuple(commits))


def project(source, values):
    """Two turns: the claim, and these records; returns what the store was asked, and the consumer and loop."""
    consumer, store = _Consumer(source, values), _Store()
    loop = Projector(consumer, store, SimpleNamespace(send=list), TOPICS)
    loop.turn()
    loop.turn()
    return store.acts, consumer, loop


def test_an_aggregate_before_its_tombstone_is_not_projected(said):
    """The call was erased since; it is erased in Redis before the position moves past the tombstone."""
    acts, _, _ = project(CALLS, [said.calls["call-1"], None])
    assert acts[0] == ("erase", "call-1", 1_001)
    ((_, commit),) = acts[1:]
    assert commit.calls == ()
    assert commit.watermark == 7


def test_an_aggregate_behind_its_tombstone_is_that_of_a_new_call(said):
    """The id was used again."""
    acts, _, _ = project(CALLS, [None, said.calls["call-1"]])
    assert [act[0] for act in acts] == ["erase", "commit"]
    (call,) = acts[1][1].calls
    assert call.summary == said.calls["call-1"]


def test_what_is_projected_says_when_it_was_written(said):
    """Utterances and alerts of an erased call may be read after its tombstone, for they are in other topics."""
    acts, _, _ = project(TopicPartition(TOPICS.utterance_topic, 0), said.of())
    ((_, commit),) = acts
    assert commit.logged_ms == {"call-1": 1_000 + len(said.of()) - 1}


@pytest.mark.parametrize("topic", [TOPICS.utterance_topic, TOPICS.call_topic])
def test_records_of_a_newer_release_are_projected_whole(said, topic):
    """During a rolling upgrade an old projector reads what new workers write: its unknown fields reach Redis, too."""
    newer = {"of_a_newer_release": {"deep": 1}}
    written = said.of()[0] if topic == TOPICS.utterance_topic else said.calls["call-1"]
    acts, _, _ = project(TopicPartition(topic, 0), [{**written, **newer, "policy": {**written["policy"], **newer}}])
    ((_, commit),) = acts
    (projected,) = commit.utterances or [call.summary for call in commit.calls]
    assert newer.items() <= projected.items()
    assert newer.items() <= projected["policy"].items()
    assert commit.dead_letters == ()


def test_a_partition_without_a_leader_does_not_stop_the_others(said):
    """One is tried in a turn, so the group hears of this member; the others are projected, and that one later."""
    leaderless, now_s = TopicPartition(TOPICS.alert_topic, 0), [0.0]
    consumer, store = _Consumer(CALLS, [said.calls["call-1"]]), _Store()
    consumer.assigned |= {leaderless}

    def oldest(source):
        if source == leaderless and not now_s[0]:
            raise Unsettled("no leader", retry_s=5.0)
        return 0

    consumer.oldest = oldest
    loop = Projector(consumer, store, SimpleNamespace(send=list), TOPICS, monotonic=lambda: now_s[0])
    restoring = []
    for now_s[0] in (0.0, 0.0, 4.9, 5.1):
        loop.turn()
        restoring.append(loop.status().restoring)
    assert restoring == [2, 1, 1, 0]
    assert CALLS in {commit.source for act, commit in store.acts if act == "commit"}


def test_records_that_the_client_skipped_are_reported():
    """As those of the audio topic are."""
    _, consumer, loop = project(CALLS, [])
    consumer.skipped = [Skipped(CALLS, 3, 9, "a codec is missing")]
    with capture_logs() as lines:
        loop.turn()
    assert [(line["topic"], line["lost"]) for line in lines] == [(CALLS.topic, 6)]
