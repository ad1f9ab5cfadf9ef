"""One atomic commit in Kafka: results, call states and input offsets in a single transaction.

`kafka_workarounds.transact` has the rules that make it atomic with this client. After any error in it the process ends,
and the next one recovers as after a kill.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgpack
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.kafka_client import connection, missing_topic, other_count
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import Commit, Restored, TopicPartition
from callmood.worker.errors import Fenced, Unsettled
from callmood.worker.settings import KafkaSettings
from callmood.worker.stream_time import StreamTime

_CLOCK_KEY = b""
"""Key of the state record that holds a partition's clock; all others have a call id."""
_CLAIM_MS = 2_000
_READ_S = 30.0
_STILL_S = 2.0
"""After this long without a record the states are not to be read now."""


class Clients(NamedTuple):
    """What the store talks through, and closes."""

    producer: KafkaProducer
    """With the transactional id of this process."""
    reader: KafkaConsumer
    """Without a group; reads committed records only."""
    ends: KafkaConsumer
    """Asks where a topic ends, open transactions included."""


class KafkaStore:
    """Results, states and offsets in one transaction, fenced by the consumer group (KIP-447).

    Make it before the consumer first polls: taking the transactional id over ends what a predecessor left open.

    Args:
        consumer: whose membership and offsets the transactions carry.
        clients: of this store alone.
        settings: the topics.
    """

    moves_group_offsets = True

    def __init__(
        self,
        consumer: AudioConsumer,
        clients: Clients,
        settings: KafkaSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._clock = clock
        self._producer, self._reader, self._ends = clients
        self._producer.init_transactions()

    def claim(self, source: TopicPartition) -> Restored:
        """See `Store`. The group fences the earlier owner, whose generation is over.

        First the committed offset: the broker waits with its answer while a transaction holds a newer one. Then the
        states, up to the end that the topic has now. In this order no state can be older than the offset. That end
        counts open transactions too: behind what a dead owner left open, its successor may have committed already.
        """
        try:
            watermark = self._consumer.committed(source, timeout_ms=_CLAIM_MS)
            states = self._read_states(source)
        except KafkaError as error:
            raise Unsettled(f"kafka: {error}") from error
        clock = states.pop(_CLOCK_KEY, None)
        elapsed = StreamTime(*msgpack.unpackb(clock)) if clock else StreamTime()
        return Restored(watermark, elapsed, {key.decode(): state for key, state in states.items()})

    def _read_states(self, source: TopicPartition) -> dict[bytes, bytes]:
        partition = KafkaPartition(self._settings.state_topic, source.partition)
        self._reader.assign([partition])
        self._reader.seek_to_beginning(partition)
        end = self._ends.end_offsets([partition], timeout_ms=_CLAIM_MS)[partition]
        states: dict[bytes, bytes] = {}
        began_s = moved_s = self._clock()
        while self._reader.position(partition, timeout_ms=_CLAIM_MS) < end:
            for record in self._reader.poll(timeout_ms=100).get(partition, ()):
                moved_s = self._clock()
                if record.value is None:
                    states.pop(record.key, None)
                else:
                    states[record.key] = record.value
            if self._clock() > min(began_s + _READ_S, moved_s + _STILL_S):
                raise Unsettled("a transaction on the states is open, or they take too long to read")
        return states

    def commit(self, commits: Sequence[Commit]) -> Committed:
        """See `Store`. Never asks to be repeated: after an error the process starts again from what Kafka holds.

        Raises:
            Fenced: the transaction may not have taken place.
        """
        membership = self._consumer.membership
        if membership is None:
            raise Fenced("no stable membership in the consumer group")
        offsets = {KafkaPartition(*commit.source): OffsetAndMetadata(commit.watermark, "", -1) for commit in commits}
        try:
            records = (record for commit in commits for record in self._records(commit))
            kafka_workarounds.transact(self._producer, records, offsets, membership)
        except KafkaError as error:
            raise Fenced(f"kafka transaction: {error}") from error
        return Committed(tuple(commits))

    def _records(self, commit: Commit) -> Iterator[dict[str, Any]]:
        """All records of a commit; outputs stand on the partition of their input."""
        topics, partition = self._settings, commit.source.partition
        for topic, outputs in ((topics.utterance_topic, commit.utterances), (topics.alert_topic, commit.alerts)):
            for output in outputs:
                yield _json(topic, partition, output["call_id"], output)
        for call in commit.calls:
            if call.summary is not None:
                yield _json(topics.call_topic, partition, call.call_id, call.summary)
            yield {
                "topic": topics.state_topic,
                "partition": partition,
                "key": call.call_id.encode(),
                "value": call.state,
            }
        clock = msgpack.packb(list(commit.time))
        yield {"topic": topics.state_topic, "partition": partition, "key": _CLOCK_KEY, "value": clock}

    def close(self) -> None:
        """Close the clients; an open transaction is left to its successor or to time."""
        self._reader.close(timeout_ms=1_000)
        self._ends.close(timeout_ms=1_000)
        with suppress(KafkaTimeoutError):  # what it still holds belongs to a transaction that will not take place
            self._producer.close(timeout=1)


def open_kafka_store(consumer: AudioConsumer, settings: KafkaSettings, slot: str) -> KafkaStore:
    """The store with its own clients; `slot` is the same after a restart, which spares waiting for the old transaction.

    Raises:
        ConfigurationError: an output topic is missing or has another number of partitions than the audio topic.
    """
    options = connection(settings) | {"enable_auto_commit": False, "allow_auto_create_topics": False}
    reader = KafkaConsumer(**options, isolation_level="read_committed", auto_offset_reset="earliest")
    _check_topics(reader, consumer.partitions, settings)
    producer = KafkaProducer(
        **(connection(settings) | kafka_workarounds.TRANSACTION_OPTIONS),
        transactional_id=f"{settings.group_id}-{slot}",
        linger_ms=5,
        batch_size=1 << 18,
        max_request_size=4 << 20,
        allow_auto_create_topics=False,
    )
    ends = KafkaConsumer(**options, isolation_level="read_uncommitted")
    return KafkaStore(consumer, Clients(producer, reader, ends), settings)


def _check_topics(reader: KafkaConsumer, wanted: int, topics: KafkaSettings) -> None:
    for topic in (topics.utterance_topic, topics.call_topic, topics.alert_topic, topics.state_topic):
        found = len(reader.partitions_for_topic(topic) or ())
        if found != wanted:
            reader.close(timeout_ms=1_000)
            raise other_count(topic, found, wanted, topics) if found else missing_topic(topic, topics)


def _json(topic: str, partition: int, call_id: str, value: Mapping[str, Any]) -> dict[str, Any]:
    encoded = json.dumps(value, separators=(",", ":")).encode()
    headers = [("schema", value["schema"].encode())]
    return {"topic": topic, "partition": partition, "key": call_id.encode(), "value": encoded, "headers": headers}
