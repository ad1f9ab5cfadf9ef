"""Reads Kafka: records of the assigned partitions, changes of the assignment, pause and resume.

Rebalance listeners run on the client's own thread and must not call it: they only note what changed, and the poll
loop acts on it. A new partition stays paused until its state is restored and `start` has found its position.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from kafka import ConsumerGroupMetadata, ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import KafkaError, KafkaTimeoutError

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.adapters.kafka_client import connection, missing_topic
from callmood.worker.commits import Origin, TopicPartition
from callmood.worker.errors import ConfigurationError, Fenced, Unsettled
from callmood.worker.records import Record
from callmood.worker.server_settings import KafkaSettings

log = structlog.get_logger()

_ASSIGNORS = {
    "cooperative-sticky": CooperativeStickyAssignor,
    "sticky": StickyPartitionAssignor,
    "range": RangePartitionAssignor,
}
_MANY_BYTES = 1 << 20
"""So much ends the wait for a fetch at once: records are read as fast as they come where a worker is behind."""
_QUIET_WAIT_MS = 900
"""Wait for a fetch while no record comes; the first one ends it."""
_METADATA_MS = 5_000
"""Age of metadata at which it is asked for again: new partitions, and a topic that was created again, show there."""
_END_MS = 1_000
_TAKEOVER_MS = 2_000
_LEADERLESS_S = 5.0
"""Until the next try to take over a partition that does not say where it begins or ends."""


@dataclass(slots=True)
class Changes:
    """Partitions revoked and assigned since the last call of `take_changes`."""

    revoked: set[TopicPartition] = field(default_factory=set)
    assigned: set[TopicPartition] = field(default_factory=set)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Records changes. A lost membership stops the process, which could otherwise claim partitions of another."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._lock = threading.Lock()
        self._changes = Changes()
        self.is_lost = False

    def take(self) -> Changes:
        with self._lock:
            changes, self._changes = self._changes, Changes()
        return changes

    def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        self._consumer.pause(*assigned)
        with self._lock:  # an assignment noted in changes already taken would never be restored
            self._changes.assigned |= {TopicPartition(p.topic, p.partition) for p in assigned}

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        gone = {TopicPartition(p.topic, p.partition) for p in revoked}
        with self._lock:
            self._changes.revoked |= gone
            self._changes.assigned -= gone

    def on_partitions_lost(self, lost: Iterable[KafkaPartition]) -> None:
        self.on_partitions_revoked(lost)
        self.is_lost = True


class AudioConsumer:
    """A consumer of whole partitions in a group. Not thread-safe: one loop owns it.

    Args:
        settings: connection, group and the audio topic.
        client_id: name of this process; with static membership, its place in the group.
        outputs: read the topics of the workers' results instead, in a group of their own.

    Raises:
        ConfigurationError: the topic does not exist.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, *, outputs: bool = False) -> None:
        self._settings = settings
        self._group_id = f"{settings.group_id}-projector" if outputs else settings.group_id
        results = [settings.utterance_topic, settings.call_topic, settings.alert_topic]
        topics = results if outputs else [settings.audio_topic]
        self._consumer = KafkaConsumer(
            **connection(settings),
            client_id=client_id,
            group_id=self._group_id,
            group_instance_id=client_id if settings.membership == "static" else None,
            partition_assignment_strategy=[_assignor(settings)],
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # only met after retention loss: where to start is decided in start_of
            allow_auto_create_topics=False,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 5, 100),
            max_poll_interval_ms=settings.max_poll_interval_ms,
            max_poll_records=settings.max_poll_records,
            metrics_enabled=False,
            metadata_max_age_ms=_METADATA_MS,
            max_partition_fetch_bytes=4 << 20,
            receive_buffer_bytes=1 << 20,
        )
        missing = [topic for topic in topics if not self._consumer.partitions_for_topic(topic)]
        if missing:
            self._consumer.close(autocommit=False, timeout_ms=1_000)
            raise missing_topic(missing[0], settings)
        self._listener = _Listener(self._consumer)
        self._consumer.subscribe(topics, listener=self._listener)
        self._paused = False
        self._empty_ms = settings.fetch_wait_ms
        """How long polls have brought nothing."""
        kafka_workarounds.fetch_in_turn(self._consumer)
        kafka_workarounds.end_polls_without_error(self._consumer)
        self._skipped = kafka_workarounds.skip_unreadable_batches(self._consumer)
        self._resets = kafka_workarounds.note_resets(self._consumer)
        self._topic_ids = {topic: kafka_workarounds.topic_id(self._consumer, topic) for topic in topics}
        self._gone: frozenset[str] = frozenset()
        self.membership: ConsumerGroupMetadata | None = None
        """Our place in the group; None before we are in it, while we join it again, and once we are out."""

    def poll(self, timeout_ms: int) -> Mapping[TopicPartition, list[Record]]:
        """The next records of the started partitions.

        Raises:
            Fenced: the group has taken this member's partitions away.
            ConfigurationError: a topic was deleted and created again.
        """
        polled = kafka_workarounds.poll(self._consumer, timeout_ms)
        self._empty_ms = 0 if polled else self._empty_ms + timeout_ms
        is_quiet = self._empty_ms > self._settings.fetch_wait_ms  # a fetch takes so long even if records come
        min_bytes, wait_ms = (1, _QUIET_WAIT_MS) if is_quiet else (_MANY_BYTES, self._settings.fetch_wait_ms)
        kafka_workarounds.wait_for(self._consumer, min_bytes=min_bytes, wait_ms=wait_ms)
        self.membership = None if self._listener.is_lost else kafka_workarounds.stable_membership(self._consumer)
        self._refuse_new_topics()
        if self._listener.is_lost:
            raise Fenced(
                "this worker was out of its consumer group for too long; its partitions have another owner now"
            )
        self._note_deleted(polled)
        return {TopicPartition(p.topic, p.partition): records for p, records in polled.items()}

    def _refuse_new_topics(self) -> None:
        for topic, known in self._topic_ids.items():
            found = kafka_workarounds.topic_id(self._consumer, topic)
            if known and found and found != known:
                raise ConfigurationError(
                    f"topic {topic!r} is now the topic of another cluster, or was deleted and created again while it "
                    "was read: the records read before are committed. Delete its stored position and call states "
                    "(schemas/redis.md), or set another CALLMOOD_REDIS__PREFIX or, with results in Kafka, "
                    "CALLMOOD_KAFKA__STATE_TOPIC"
                )
            self._topic_ids[topic] = known or found
            self._note_gone(topic, is_gone=bool(known) and not found)

    def _note_gone(self, topic: str, *, is_gone: bool) -> None:
        """Without its topic, a worker has no partitions and waits: that has to be said, once."""
        is_gone = is_gone and all(partition.topic != topic for partition in self._consumer.assignment())
        if is_gone and topic not in self._gone:
            log.error("topic was deleted; reading waits until it exists again", topic=topic)
        self._gone = self._gone | {topic} if is_gone else self._gone - {topic}

    def _note_deleted(self, polled: Mapping[KafkaPartition, Sequence[Record]]) -> None:
        """Where the client has gone on at the oldest record, the records before it are lost."""
        for source, first in list(self._resets.items()):
            partition = KafkaPartition(*source)
            if partition not in self._consumer.assignment():
                del self._resets[source]
                continue
            offsets = [record.position.offset for record in polled.get(partition, ())]
            later = [offset for offset in offsets if offset >= first]
            position = kafka_workarounds.position(self._consumer, partition)
            now_at = later[0] if later else position
            if now_at is None:
                continue
            if position is None:  # it has happened again, behind these records
                self._resets[source] = later[-1] + 1
            else:
                del self._resets[source]
            if now_at > first:
                self._skipped.append(Skipped(source, first, now_at, "deleted by retention", is_deleted=True))

    def take_skipped(self) -> list[Skipped]:
        """The records skipped since the last call: the client could not parse them, or Kafka had deleted them."""
        skipped = list(self._skipped)
        self._skipped.clear()
        return skipped

    def take_changes(self) -> Changes:
        """Assignment changes since the last call."""
        return self._listener.take()

    def start_of(self, source: TopicPartition) -> int:
        """The offset at which to start a partition without a stored position (`kafka.start`).

        Raises:
            Unsettled: as `oldest`.
        """
        return self.oldest(source) if self._settings.start == "earliest" else self._end(source)

    def oldest(self, source: TopicPartition) -> int:
        """Offset of the oldest record that retention has not deleted.

        Raises:
            Unsettled: the partition has no leader now; the others go on.
        """
        return self._asked(self._consumer.beginning_offsets, source)

    def _end(self, source: TopicPartition) -> int:
        return self._asked(self._consumer.end_offsets, source)

    def _asked(self, offsets: Callable[..., Any], source: TopicPartition) -> int:
        partition, name = KafkaPartition(*source), f"{source.topic}/{source.partition}"
        if not kafka_workarounds.has_leader(self._consumer, partition):
            raise Unsettled(f"{name} has no leader", retry_s=_LEADERLESS_S)
        try:
            return int(offsets([partition], timeout_ms=_TAKEOVER_MS)[partition])
        except KafkaTimeoutError as error:
            raise Unsettled(f"no broker answers for {name}", retry_s=_LEADERLESS_S) from error

    def origin(self, source: TopicPartition) -> Origin:
        """Whose position of which log a stored position of this partition is."""
        count = len(self._consumer.partitions_for_topic(source.topic) or ())
        ids = kafka_workarounds.cluster_id(self._consumer), self._topic_ids.get(source.topic, "")
        return Origin(*ids, self._group_id, count)

    @property
    def partitions(self) -> int:
        """Partitions of the audio topic."""
        return len(self._consumer.partitions_for_topic(self._settings.audio_topic))

    def committed(self, source: TopicPartition, *, timeout_ms: int) -> int | None:
        """The group's offset; waits while an open transaction holds a newer one."""
        found = self._consumer.committed(KafkaPartition(*source), metadata=True, timeout_ms=timeout_ms)
        return None if found is None else int(found.offset)

    def position(self, source: TopicPartition) -> int:
        """The next offset to read of a started partition; control records are behind it too.

        After retention has deleted it, the offset that was next, until there is a record.
        """
        known = kafka_workarounds.position(self._consumer, KafkaPartition(*source))
        return self._resets[source] if known is None else known

    def start(self, source: TopicPartition, offset: int) -> None:
        """Start to read a restored partition at this offset.

        Raises:
            ConfigurationError: the topic ends before it.
            Unsettled: as `oldest`.
        """
        partition, end = KafkaPartition(*source), self._end(source)
        if offset > end:  # the client would begin at the start again, under states that belong to other records
            raise ConfigurationError(
                f"partition {source.topic}/{source.partition} ends at {end}, and the stored position is {offset}: the "
                "topic is the topic of another cluster, was created again, or lost records. Delete its position and "
                "states (schemas/redis.md), or set another CALLMOOD_REDIS__PREFIX"
            )
        self._consumer.seek(partition, offset)
        if not self._paused:
            self._consumer.resume(partition)

    def pause(self) -> None:
        """Stop reading, but stay in the group."""
        self._paused = True
        self._consumer.pause(*self._consumer.assignment())

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        """Read these partitions again."""
        self._paused = False
        self._consumer.resume(*(KafkaPartition(*source) for source in sources))

    def show_progress(self, watermarks: Mapping[TopicPartition, int]) -> None:
        """Commit watermarks to the group, for lag monitors only: the worker reads its position from the store."""
        offsets = {KafkaPartition(*source): OffsetAndMetadata(offset, "", -1) for source, offset in watermarks.items()}
        self._consumer.commit_async(offsets)

    def lag(self, source: TopicPartition) -> int | None:
        """Records that have not been read yet; None before the first fetch."""
        highwater = self._consumer.highwater(KafkaPartition(*source))
        return None if highwater is None else max(0, int(highwater) - self.position(source))

    def stable_ends(self, sources: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offsets after the last committed records, asked from the broker now; empty without an answer.

        From there on, records wait for an open transaction of their producer, or there are none. A partition without
        a leader is left out.
        """
        partitions = {KafkaPartition(*source): source for source in sources}
        partitions = {
            one: source for one, source in partitions.items() if kafka_workarounds.has_leader(self._consumer, one)
        }
        try:
            ends = self._consumer.end_offsets(list(partitions), timeout_ms=_END_MS)
        except KafkaError:
            return {}
        return {partitions[partition]: int(end) for partition, end in ends.items()}

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._consumer.close(autocommit=False, timeout_ms=5_000)


def _assignor(settings: KafkaSettings) -> Any:
    """How the group shares its partitions.

    With cooperative-sticky, a partition that moves has no owner until its last one has joined again. A static member
    that dies in between and is back within its session joins without a rebalance: nobody would ever own the partition.
    """
    is_static = settings.membership == "static"
    name = "sticky" if is_static and settings.assignor == "cooperative-sticky" else settings.assignor
    return _ASSIGNORS[name]
