"""A call removed from Redis and Kafka, and a receipt of what was found, what is gone and what only retention removes.

Redis: everything of the call. Kafka: a tombstone behind the call's aggregates; the other topics (audio, utterances,
alerts, dead letters) forget by retention alone, and the receipt counts what is left. What workers remember of a call
that is over, its id and where it ended, stays for ten minutes of audio: it keeps late records from starting it again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition

from callmood.worker.adapters.kafka_client import connection, kafka_errors, refusals_raised
from callmood.worker.adapters.redis_client import connect_redis, redis_errors
from callmood.worker.errors import ConfigurationError, KafkaUnavailable
from callmood.worker.partition.ended import is_ended
from callmood.worker.settings import KafkaSettings, RedisSettings, Settings

_PAGE: Final = 1_000
_POLL_MS: Final = 500
_IDLE_POLLS: Final = 20
_SEND_S: Final = 30.0


class CallIsLiveError(ConfigurationError):
    """A worker still holds the call and would write it again."""


@dataclass(frozen=True, slots=True)
class Line:
    """One place: how much of the call was there, and how much still is."""

    where: str
    found: int
    left: int


def erase(settings: Settings, call_id: str) -> list[Line]:
    """Remove a call that has ended, and read back what is left of it.

    Raises:
        CallIsLiveError: the call has not ended.
        ConfigurationError: Redis or Kafka refuses something.
        StoreUnavailable: Redis does not answer.
        KafkaUnavailable: no broker answers.
    """
    lines: list[Line] = []
    if settings.worker.output != "kafka":
        with redis_errors(), closing(connect_redis(settings.redis)) as client:
            lines += _from_redis(client, settings.redis, call_id)
    with kafka_errors(settings), refusals_raised():
        return [*lines, *_from_kafka(settings, call_id)]


def _from_redis(client: Any, settings: RedisSettings, call_id: str) -> Iterator[Line]:
    def key(name: str) -> str:
        return f"{{{settings.prefix}}}:{name}"

    states = [client.hget(name, call_id) for name in client.scan_iter(key("states:*"), count=_PAGE)]
    remembered = [state for state in states if state is not None]
    _refuse_live(call_id, remembered)
    own = [key(f"call:{call_id}"), key(f"utterances:{call_id}")]
    found = {name: int(client.exists(name)) for name in own}
    client.delete(*own)
    for name in own:
        yield Line(name, found[name], int(client.exists(name)))
    for name in (key("live:by_update"), key("live:by_risk")):
        removed = int(client.zrem(name, call_id))
        yield Line(name, removed, int(client.zscore(name, call_id) is not None))
    for name in (key("utterances"), key("alerts")):
        entries = list(_entries(client, name, call_id))
        for start in range(0, len(entries), _PAGE):
            client.xdel(name, *entries[start : start + _PAGE])
        yield Line(name, len(entries), sum(1 for _ in _entries(client, name, call_id)))
    yield Line(key("states:*"), len(remembered), len(remembered))


def _refuse_live(call_id: str, states: list[bytes]) -> None:
    if not all(map(is_ended, states)):
        raise CallIsLiveError(f"{call_id} is live: a worker would write it again. Erase it once it has ended")


def _entries(client: Any, stream: str, call_id: str) -> Iterator[Any]:
    """Ids of a stream's entries of this call."""
    start = "-"
    while page := client.xrange(stream, start, "+", _PAGE):
        for entry_id, fields in page:
            value = fields.get(b"call_id", fields.get("call_id"))
            if value in (call_id, call_id.encode()):
                yield entry_id
        last = page[-1][0]
        start = f"({last.decode() if isinstance(last, bytes) else last}"


def _from_kafka(settings: Settings, call_id: str) -> Iterator[Line]:
    topics = settings.kafka
    compacted: list[str] = []
    kept = [topics.audio_topic, topics.dead_letter_topic]
    if settings.worker.output != "redis":
        compacted = [topics.call_topic]
        kept += [topics.utterance_topic, topics.alert_topic]
    states = [] if not compacted else [topics.state_topic]
    before = _records(topics, [*compacted, *states, *kept], call_id)
    remembered = [newest for source, (_, newest) in before.items() if source.topic in states and newest is not None]
    _refuse_live(call_id, remembered)
    if buried := [source for source, (_, newest) in before.items() if source.topic in compacted and newest is not None]:
        with closing(KafkaProducer(**connection(topics), acks="all")) as producer:
            for sent in [producer.send(s.topic, key=call_id.encode(), partition=s.partition) for s in buried]:
                sent.get(timeout=_SEND_S)
    after = _records(topics, compacted, call_id) if buried else before
    for topic in compacted:
        found = sum(newest is not None for source, (_, newest) in before.items() if source.topic == topic)
        left = sum(newest is not None for source, (_, newest) in after.items() if source.topic == topic)
        yield Line(f"kafka: {topic}", found, left)
    for topic in states:
        yield Line(f"kafka: {topic}", len(remembered), len(remembered))
    for topic in kept:
        count = sum(counted for source, (counted, _) in before.items() if source.topic == topic)
        yield Line(f"kafka: {topic}", count, count)


def _records(settings: KafkaSettings, topics: list[str], call_id: str) -> Mapping[KafkaPartition, tuple[int, Any]]:
    """By partition: how many records the call has there, and the value of the newest (None: a tombstone)."""
    counts: Counter[KafkaPartition] = Counter()
    newest: dict[KafkaPartition, Any] = {}
    options = {"isolation_level": "read_committed", "enable_auto_commit": False, "group_id": None}
    with closing(KafkaConsumer(**connection(settings), **options)) as consumer:
        sources = [KafkaPartition(t, p) for t in topics for p in sorted(consumer.partitions_for_topic(t) or ())]
        ends = consumer.end_offsets(sources) if sources else {}
        consumer.assign(sources)
        consumer.seek_to_beginning(*sources)
        idle = 0
        while any(consumer.position(source) < ends[source] for source in sources):
            polled = consumer.poll(timeout_ms=_POLL_MS)
            idle = 0 if polled else idle + 1
            if idle > _IDLE_POLLS:
                raise KafkaUnavailable("the topics cannot be read to their end: is a transaction open?")
            for source, records in polled.items():
                for record in records:
                    if record.key == call_id.encode():
                        counts[source] += record.value is not None
                        newest[source] = record.value
    return {source: (counts[source], newest[source]) for source in newest}
