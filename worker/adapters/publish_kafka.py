"""One atomic commit in Kafka: results, call states and input offsets in a single transaction.

`kafka_workarounds.transact` has the rules that make it atomic with this client. After any error in it the process ends,
and the next one recovers as after a kill.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgpack
import msgspec
import structlog
from kafka import ConsumerGroupMetadata, KafkaConsumer, KafkaProducer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import (
    InvalidProducerEpochError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
)

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.kafka_client import connection, missing_topic, other_count
from callmood.worker.adapters.store import Committed, not_ours
from callmood.worker.commits import Commit, Restored, TopicPartition
from callmood.worker.errors import ConfigurationError, Fenced, Unsettled
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.stream_time import StreamTime

CLOCK_KEY = b""
"""Key of the state record that holds a partition's clock and position; all others have a call id."""
MAX_RECORD_BYTES: Final = 4 << 20
_CLAIM_MS = 2_000
_SLICE_S = 0.5
"""A claim reads states for at most this long at a time: the loop works on its other partitions in between."""
_STILL_S = 2.0
"""After this long without a record, other partitions have their turn."""
_NARROW_S = 10.0
"""Until the next look for an output partition that is not there."""


_FENCED = (ProducerFencedError, InvalidProducerEpochError)
log = structlog.get_logger()


class Clients(NamedTuple):
    """The store's Kafka clients, which it closes."""

    producer: KafkaProducer
    """With the transactional id of this process."""
    reader: KafkaConsumer
    """Without a group; reads committed records only."""
    ends: KafkaConsumer
    """Asks where a topic ends, open transactions included."""


class _Reading:
    """The states of one partition, as far as they are read."""

    def __init__(self, membership: ConsumerGroupMetadata | None, watermark: int | None, end: int) -> None:
        self.membership = membership
        self.watermark = watermark
        self.end = end
        self.next_offset = 0
        self.states: dict[bytes, bytes] = {}

    def take(self, key: bytes, value: bytes | None) -> None:
        """The next record."""
        if value is None:
            self.states.pop(key, None)
        else:
            self.states[key] = value


class _Clock(msgspec.Struct, frozen=True):
    """What the record with `CLOCK_KEY` holds."""

    time: tuple[int, ...]
    watermark: int | None = None
    origin: dict[str, str] = {}

    @classmethod
    def unpack(cls, packed: bytes) -> "_Clock | None":
        """The clock and position of a record; None if a foreign producer wrote it."""
        try:
            return msgspec.msgpack.decode(packed, type=cls)
        except msgspec.MsgspecError:
            return None


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
        self._readings: dict[TopicPartition, _Reading] = {}
        self._producer.init_transactions()

    @property
    def can_commit(self) -> bool:
        """See `Store`. Not while this process joins its group again.

        The broker may have begun a generation by then that the client does not know yet. It would refuse the offsets,
        and a transaction that has failed ends the process. Its successor joins again, so all members would do the same.
        """
        return self._consumer.membership is not None

    def claim(self, source: TopicPartition) -> Restored:
        """See `Store`. The group fences the earlier owner, whose generation is over.

        First the committed offset: the broker waits with its answer while a transaction holds a newer one. Then the
        states, up to the end that the topic has now. In this order no state can be older than the offset. That end
        counts open transactions too: behind what a dead owner left open, its successor may have committed already.
        Many states are read in slices, a slice a call; a new generation of the group begins again.

        The states topic knows the position too. Where the group's offset is gone or was set back, that position
        counts: from an older one, calls that have ended would be published again.

        A partition that the audio topic alone was given waits until the output topics have it too.
        """
        try:
            self._require_outputs(source)
            reading = self._readings.get(source)
            if reading is None or reading.membership != self._consumer.membership:
                reading = self._readings[source] = self._begin(source)
            self._read_on(source, reading)
        except KafkaError as error:
            raise Unsettled(f"kafka: {error}") from error
        del self._readings[source]
        return self._restored(source, reading)

    def _require_outputs(self, source: TopicPartition) -> None:
        for topic in _outputs(self._settings):
            if source.partition in (self._ends.partitions_for_topic(topic) or ()):
                continue
            self._ends.topics()  # asks the brokers again
            if source.partition not in (self._ends.partitions_for_topic(topic) or ()):
                log.warning("output topic lacks a partition", topic=topic, partition=source.partition)
                raise Unsettled(f"topic {topic!r} has no partition {source.partition}: add it", retry_s=_NARROW_S)

    def _begin(self, source: TopicPartition) -> _Reading:
        membership = self._consumer.membership
        watermark = self._consumer.committed(source, timeout_ms=_CLAIM_MS)
        partition = KafkaPartition(self._settings.state_topic, source.partition)
        end = self._ends.end_offsets([partition], timeout_ms=_CLAIM_MS)[partition]
        return _Reading(membership, watermark, end)

    def _read_on(self, source: TopicPartition, reading: _Reading) -> None:
        """Read the remaining states, but only for a while, and never wait for the end of a transaction.

        Raises:
            Unsettled: there are more; call again.
        """
        partition = KafkaPartition(self._settings.state_topic, source.partition)
        stable_end = self._reader.end_offsets([partition], timeout_ms=_CLAIM_MS)[partition]
        end = min(reading.end, stable_end)
        self._reader.assign([partition])
        if reading.next_offset:
            self._reader.seek(partition, reading.next_offset)
        else:
            self._reader.seek_to_beginning(partition)
        began_s = self._clock()
        while (at := self._reader.position(partition, timeout_ms=_CLAIM_MS)) < end:
            spent_s = self._clock() - began_s
            if spent_s > _SLICE_S and at > reading.next_offset:
                reading.next_offset = at
                raise Unsettled(f"reading the states topic: offset {at} of {reading.end}", retry_s=0.0)
            if spent_s > _STILL_S:
                raise Unsettled("the states topic sends no records")
            for record in self._reader.poll(timeout_ms=100).get(partition, ()):
                reading.take(record.key, record.value)
        reading.next_offset = at
        if end < reading.end:
            raise Unsettled("a transaction on the states topic is open")

    def _restored(self, source: TopicPartition, reading: _Reading) -> Restored:
        packed, watermark = reading.states.pop(CLOCK_KEY, None), reading.watermark
        states = {key.decode(errors="replace"): state for key, state in reading.states.items()}
        stored = None if packed is None else _Clock.unpack(packed)
        if stored is None:
            if packed is not None:
                log.error("position on the states topic cannot be read", partition=source.partition, offset=watermark)
            return Restored(watermark, None, states)
        ours = self._consumer.origin(source)._asdict()
        for field, found in stored.origin.items():
            if found and ours.get(field) and found != ours[field]:
                raise not_ours(source, field, found, "other output topics and CALLMOOD_KAFKA__STATE_TOPIC")
        known = stored.watermark
        if known is not None and (watermark is None or watermark < known):
            log.warning(
                "consumer group offset is missing or was set back; using the position on the states topic",
                partition=source.partition,
                offset=watermark,
                watermark=known,
            )
            watermark = known
        return Restored(watermark, StreamTime(*stored.time[: len(StreamTime._fields)]), states)

    def commit(self, commits: Sequence[Commit]) -> Committed:
        """See `Store`. Never asks to be repeated: after an error the process starts again from what Kafka holds.

        Raises:
            Fenced: the transaction may not have taken place.
            ConfigurationError: a topic takes no record of this size.
        """
        membership = self._consumer.membership
        if membership is None:
            raise Fenced("this process is not a stable member of the consumer group")
        offsets = {KafkaPartition(*commit.source): OffsetAndMetadata(commit.watermark, "", -1) for commit in commits}
        try:
            records = (record for commit in commits for record in self._records(commit))
            kafka_workarounds.transact(self._producer, records, offsets, membership)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            topics = self._settings
            raise ConfigurationError(
                f"an output topic is too small for a record: {error}. Set max.message.bytes={MAX_RECORD_BYTES} for "
                f"{topics.state_topic}, {topics.call_topic}, {topics.utterance_topic} and {topics.alert_topic}"
            ) from error
        except KafkaError as error:
            advice = ". Another worker may have the same CALLMOOD_WORKER__NAME" if isinstance(error, _FENCED) else ""
            raise Fenced(f"the Kafka transaction failed: {error}{advice}") from error
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
        yield {"topic": topics.state_topic, "partition": partition, "key": CLOCK_KEY, "value": self._clock_of(commit)}

    def _clock_of(self, commit: Commit) -> bytes:
        cluster, topic_id, group, _ = self._consumer.origin(commit.source)
        origin = {"cluster": cluster, "topic_id": topic_id, "group": group}
        clock = {"time": list(commit.time), "watermark": commit.watermark, "origin": origin}
        return bytes(msgpack.packb(clock))

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
        max_request_size=MAX_RECORD_BYTES,
        allow_auto_create_topics=False,
    )
    ends = KafkaConsumer(**options, isolation_level="read_uncommitted")
    return KafkaStore(consumer, Clients(producer, reader, ends), settings)


def _outputs(topics: KafkaSettings) -> tuple[str, ...]:
    return topics.utterance_topic, topics.call_topic, topics.alert_topic, topics.state_topic


def _check_topics(reader: KafkaConsumer, wanted: int, topics: KafkaSettings) -> None:
    for topic in _outputs(topics):
        found = len(reader.partitions_for_topic(topic) or ())
        if found != wanted:
            reader.close(timeout_ms=1_000)
            raise other_count(topic, found, wanted, topics) if found else missing_topic(topic, topics)


def _json(topic: str, partition: int, call_id: str, value: Mapping[str, Any]) -> dict[str, Any]:
    encoded = json.dumps(value, separators=(",", ":")).encode()
    headers = [("schema", value["schema"].encode())]
    return {"topic": topic, "partition": partition, "key": call_id.encode(), "value": encoded, "headers": headers}
