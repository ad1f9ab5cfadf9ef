"""Kafka outputs into Redis: with `output=both`, the commit is in Kafka and Redis is a projection of it.

The position of each output partition is stored in Redis and changes in one script with the data, so Redis has what the
topics had up to that position. After a crash, a takeover or a failover that lost writes, the projection continues at
that position.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from callmood.schemas.alert import Alert
from callmood.schemas.call import Call
from callmood.schemas.utterance import Utterance
from callmood.worker import metrics
from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.dead_letters import DeadLetterTopic
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.call import signs
from callmood.worker.commits import CallUpdate, Commit, DeadLetter, TopicPartition
from callmood.worker.errors import Fenced, Reason, StoreUnavailable, Unsettled
from callmood.worker.records import Record
from callmood.worker.run import traces
from callmood.worker.run.account import account_dead_letters
from callmood.worker.run.losses import report_skipped
from callmood.worker.run.progress import Progress, Stage, Status
from callmood.worker.run.reading import Reading
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.stream_time import StreamTime

if TYPE_CHECKING:
    from callmood.schemas.parts import Contract

_POLL_MS = 100
_RETRY_POLL_MS = 500
_MEASURE_S = 1.0
_CONFIRM_S = 5.0
"""Without anything new, a position is committed again all the same: a Redis that has lost writes then refuses it."""

log = structlog.get_logger()


class Projector:
    """The loop from the output topics to Redis. `clock` dates spans; what is due goes by the monotonic clock."""

    def __init__(
        self,
        consumer: AudioConsumer,
        store: RedisStore,
        dead_letters: DeadLetterTopic,
        settings: KafkaSettings,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._dead_letters = dead_letters
        self._clock = clock
        self._monotonic = monotonic
        self._utterance_topic, self._alert_topic = settings.utterance_topic, settings.alert_topic
        self._contracts: dict[str, type[Contract]] = {
            self._utterance_topic: Utterance,
            self._alert_topic: Alert,
            settings.call_topic: Call,
        }
        self._sources: dict[TopicPartition, Commit] = {}
        """The partitions that are projected, each with its position as last committed."""
        self._confirm_s: dict[TopicPartition, float] = {}
        self._claiming: dict[TopicPartition, float] = {}
        """Partitions to claim, and when to try."""
        self._pending: list[Commit] = []
        self._is_paused = False
        self._next_measure_s = 0.0
        self._reading = Reading(consumer)
        self._progress = Progress()

    def turn(self) -> None:
        """One turn of the loop.

        Raises:
            Fenced: Redis is ahead of this process or has lost writes: start again from its position.
        """
        polled = self._consumer.poll(_RETRY_POLL_MS if self._is_paused else _POLL_MS)
        self._follow_changes()
        for skipped in self._consumer.take_skipped():
            report_skipped(skipped)
        self._pending += [self._commit_of(*item) for item in polled.items() if item[0] in self._sources]
        busy = {commit.source for commit in self._pending}
        self._pending += [
            self._sources[source]
            for source, due_s in self._confirm_s.items()
            if due_s <= self._monotonic() and source not in busy
        ]
        self._write()
        if self._monotonic() >= self._next_measure_s:
            self._measure()

    def _write(self) -> None:
        """Claim and commit; reading pauses while Redis does not answer."""
        try:
            self._claim()
            self._commit()
        except StoreUnavailable as error:
            metrics.STORE_ERRORS.inc()
            if not self._is_paused:
                log.warning("store unavailable; projection is paused", error=str(error))
                self._consumer.pause()
            self._is_paused = True
            return
        if self._is_paused:
            self._consumer.resume(self._sources)
        self._is_paused = False

    def _follow_changes(self) -> None:
        changes = self._consumer.take_changes()
        dropped = changes.revoked | changes.assigned  # what is assigned again is claimed again
        kept = {source: due_s for source, due_s in self._claiming.items() if source not in changes.revoked}
        self._claiming = kept | dict.fromkeys(changes.assigned, 0.0)
        self._pending = [commit for commit in self._pending if commit.source not in dropped]
        for source in dropped:
            self._sources.pop(source, None)
            self._confirm_s.pop(source, None)

    def _claim(self) -> None:
        for source in sorted(source for source, due_s in self._claiming.items() if due_s <= self._monotonic()):
            try:
                restored = self._store.claim(source)
                watermark = self._consumer.oldest(source) if restored.watermark is None else restored.watermark
                self._consumer.start(source, watermark)
            except Unsettled as error:
                log.info("partition not ready for takeover", partition=source.partition, reason=str(error))
                self._claiming[source] = self._monotonic() + error.retry_s
                return  # the group hears of this member before the next one is asked for
            self._done(Commit(source, watermark, restored.time or StreamTime()))
            del self._claiming[source]

    def _done(self, commit: Commit) -> None:
        """Note the position of a commit that Redis has."""
        self._sources[commit.source] = Commit(commit.source, commit.watermark, commit.time)
        self._confirm_s[commit.source] = self._monotonic() + _CONFIRM_S

    def _commit(self) -> None:
        if not self._pending:
            return
        began_s = self._clock()
        self._dead_letters.send([letter for commit in self._pending for letter in commit.dead_letters])
        self._store.erase({call_id: at_ms for commit in self._pending for call_id, at_ms in commit.erased.items()})
        committed = self._store.commit(self._pending)
        durable_s = self._clock()
        durable = {commit.source: commit for commit in committed.durable}
        self._pending = [commit for commit in self._pending if commit.source not in durable]
        self._consumer.show_progress({source: commit.watermark for source, commit in durable.items()})
        for commit in durable.values():
            self._done(commit)
            account_dead_letters(commit)
            traces.projected(commit, began_s, durable_s)
        if committed.fenced:
            raise Fenced(f"another worker projects {len(committed.fenced)} partitions, or Redis lost writes")
        if committed.failure is not None:
            raise committed.failure

    def _commit_of(self, source: TopicPartition, records: Sequence[Record]) -> Commit:
        watermark = self._consumer.position(source)  # control records have offsets too
        time = StreamTime(0, max((record.timestamp_ms for record in records), default=0))
        read, refused = self._read(source, records)
        values = tuple(value for _, value in read)
        logged_ms = {value["call_id"]: record.timestamp_ms for record, value in read}
        commit = Commit(source, watermark, time, dead_letters=refused, logged_ms=logged_ms)
        if source.topic == self._alert_topic:
            return replace(commit, alerts=values)
        if source.topic == self._utterance_topic:
            first = {value["call_id"] for value in values if value["number"] == 1}
            calls = tuple(CallUpdate(call_id, None, is_first=call_id in first) for call_id in _call_ids(values))
            return replace(commit, utterances=values, calls=calls)
        erased = {_key_of(record): record for record in records if record.value is None}
        newest = {
            value["call_id"]: value
            for record, value in read
            if value["call_id"] not in erased or record.position > erased[value["call_id"]].position
        }
        calls = tuple(CallUpdate(call_id, None, value, signs.risk(value)) for call_id, value in newest.items())
        erased_ms = {call_id: record.timestamp_ms for call_id, record in erased.items()}
        return replace(commit, calls=calls, erased=erased_ms)

    def _read(
        self, source: TopicPartition, records: Sequence[Record]
    ) -> tuple[list[tuple[Record, Mapping[str, Any]]], tuple[DeadLetter, ...]]:
        """The records with their values, and the records that no worker can have written."""
        contract = self._contracts[source.topic]
        values, refused = [], []
        for record in records:
            if record.value is None:  # a call that was erased
                continue
            try:
                contract.read(record.value)
                values.append((record, json.loads(record.value)))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                refused.append(DeadLetter(record, Reason.NOT_OURS, f"no {contract.__name__}: {where} {first['type']}"))
        return values, tuple(refused)

    def _measure(self) -> None:
        """Set the gauges, and note whether there is something to read."""
        now_s = self._monotonic()
        self._next_measure_s = now_s + _MEASURE_S
        self._reading.look(self._sources, now_s, is_paused=self._is_paused)
        reading = self._reading
        self._progress.note(Stage.READING, now_s, has_work=reading.has_work, has_moved=reading.has_moved)
        metrics.PROJECTION_LAG.set(reading.unread)
        metrics.HELD_PARTITIONS.set(reading.held)

    def status(self) -> Status:
        """What the supervisor needs for its probes."""
        stuck_s, stuck_at = self._progress.longest(self._monotonic())
        return Status(len(self._sources), len(self._claiming), not self._is_paused, stuck_s, stuck_at)


def _key_of(record: Record) -> str:
    return (record.key or b"").decode(errors="replace")


def _call_ids(values: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(value["call_id"] for value in values))
