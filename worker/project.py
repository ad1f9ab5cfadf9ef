"""Kafka outputs into Redis: with `output=both`, the commit is in Kafka and Redis is a projection of it.

The position of each output partition lives in Redis and changes in one script with the data, so Redis holds what the
topics held up to there: after a crash, a takeover or a failover that lost writes, it goes on from its own word.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from worker import aggregate
from worker.commits import CallUpdate, Commit, TopicPartition
from worker.consume import AudioConsumer
from worker.errors import Fenced, StoreUnavailable
from worker.publish import Store
from worker.records import Record
from worker.settings import KafkaSettings
from worker.stream_time import StreamTime

_POLL_MS = 100
_RETRY_POLL_MS = 500

log = structlog.get_logger()


class Projector:
    """The loop from the output topics to Redis."""

    def __init__(self, consumer: AudioConsumer, store: Store, settings: KafkaSettings) -> None:
        self._consumer = consumer
        self._store = store
        self._settings = settings
        self._sources: set[TopicPartition] = set()
        self._claiming: set[TopicPartition] = set()
        self._pending: list[Commit] = []
        self._is_paused = False

    def turn(self) -> None:
        """One turn of the loop.

        Raises:
            Fenced: Redis is ahead of us or has lost writes: start again from its position.
        """
        polled = self._consumer.poll(_RETRY_POLL_MS if self._is_paused else _POLL_MS)
        changes = self._consumer.take_changes()
        self._sources -= changes.revoked
        self._claiming = (self._claiming | changes.assigned) - changes.revoked
        self._pending = [commit for commit in self._pending if commit.source not in changes.revoked]
        self._pending += [self._commit_of(source, records) for source, records in polled.items()]
        try:
            self._claim()
            self._commit()
        except StoreUnavailable as error:
            if not self._is_paused:
                log.warning("redis unavailable; projecting is paused", error=str(error))
                self._consumer.pause()
            self._is_paused = True
            return
        if self._is_paused:
            self._consumer.resume(self._sources)
        self._is_paused = False

    def _claim(self) -> None:
        for source in sorted(self._claiming):
            watermark = self._store.claim(source).watermark
            self._consumer.start(source, self._consumer.oldest(source) if watermark is None else watermark)
            self._sources.add(source)
            self._claiming.discard(source)

    def _commit(self) -> None:
        if not self._pending:
            return
        fenced = self._store.commit(self._pending)
        if fenced:
            raise Fenced(f"{len(fenced)} projected partitions are another's, or redis lost writes")
        self._consumer.show_progress({commit.source: commit.watermark for commit in self._pending})
        self._pending = []

    def _commit_of(self, source: TopicPartition, records: Sequence[Record]) -> Commit:
        watermark = self._consumer.position(source)  # control records have offsets too
        values = [json.loads(record.value) for record in records if record.value is not None]
        newest_ms = max((record.timestamp_ms for record in records), default=0)
        time = StreamTime(0, newest_ms)
        if source.topic == self._settings.alert_topic:
            return Commit(source, watermark, time, alerts=tuple(values))
        if source.topic == self._settings.utterance_topic:
            first = {value["call_id"] for value in values if value["number"] == 1}
            calls = tuple(CallUpdate(call_id, None, is_first=call_id in first) for call_id in _call_ids(values))
            return Commit(source, watermark, time, utterances=tuple(values), calls=calls)
        newest = {value["call_id"]: value for value in values}
        calls = tuple(CallUpdate(call_id, None, value, aggregate.risk(value)) for call_id, value in newest.items())
        return Commit(source, watermark, time, calls=calls)


def _call_ids(values: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(value["call_id"] for value in values))
