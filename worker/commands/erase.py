"""`callmood erase`: delete an ended call from Redis and Kafka, and print a receipt of what was found and what remains.

Redis: everything of the call. Kafka: an erasure/1 for everything that copies results, and a tombstone behind the call's
aggregates. In the other topics (audio, utterances, alerts, dead-letter records), records expire by retention only, and
the receipt counts those that remain. Workers keep the id and the end of an ended call for ten minutes by record
timestamps, so that late records do not start it again.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition

from callmood.schemas.erasure import ERASURE_SCHEMA, Erasure, erasure_id
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.adapters.redis_client import connect_redis, redis_errors
from callmood.worker.adapters.redis_entries import delete_entries, entries_of
from callmood.worker.errors import EXIT_OK, ConfigurationError, KafkaUnavailable
from callmood.worker.partition.ended import is_final
from callmood.worker.settings import KafkaSettings, RedisSettings, Settings

_EXIT_LEFT: Final = 1
_PAGE: Final = 1_000
_POLL_MS: Final = 500
_IDLE_POLLS: Final = 20
_SEND_S: Final = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("call_id", help="id of the call: its key on the audio topic")


def run(arguments: argparse.Namespace) -> int:
    """Print the receipt, as JSON; exit code 1 if something remains that only retention removes."""
    configured, at = settings.load(), datetime.now(UTC)
    lines = erase(configured, arguments.call_id)
    left = sum(line.left for line in lines)
    receipt = {
        "call_id": arguments.call_id,
        "erased_at": at.isoformat(timespec="seconds"),
        "callmood": version("callmood"),
        "places": [asdict(line) for line in lines],
        "left_to_retention": left,
        "announced": [],
    }
    try:
        # Also if nothing was found: a database may have had the call for years.
        receipt["announced"] = announce(configured, arguments.call_id, at_ms=round(at.timestamp() * 1000))
    finally:
        print(json.dumps(receipt, indent=2))
    return _EXIT_LEFT if left else EXIT_OK


class CallIsLiveError(ConfigurationError):
    """The call is live or may go on, so a worker would write it again."""


@dataclass(frozen=True, slots=True)
class Line:
    """One place: how many records of the call it had, and how many it still has."""

    where: str
    found: int
    left: int


def erase(configured: Settings, call_id: str) -> list[Line]:
    """Remove a call that has ended, and read back what is left of it.

    Args:
        configured: the worker's settings.
        call_id: of the call.

    Returns:
        What each place had and has.

    Raises:
        CallIsLiveError: the call has not ended.
        ConfigurationError: Redis or Kafka refuses something, or the topic of erasures does not exist: nothing is
            removed then.
        StoreUnavailable: Redis does not answer.
        KafkaUnavailable: no broker answers.
    """
    if configured.worker.output != "redis":
        with kafka_errors(configured.kafka), refusals_raised():
            _require_topic(configured.kafka)
    lines: list[Line] = []
    if configured.worker.output != "kafka":
        with redis_errors(), closing(connect_redis(configured.redis)) as client:
            lines += _from_redis(client, configured.redis, call_id)
    with kafka_errors(configured.kafka), refusals_raised():
        lines += _from_kafka(configured, call_id)
    return lines


def announce(configured: Settings, call_id: str, *, at_ms: int) -> list[dict[str, Any]]:
    """Send erasure/1, unless results are in Redis only.

    Args:
        configured: the worker's settings.
        call_id: of the call.
        at_ms: the time now, ms since 1970.

    Returns:
        The id of each record that was sent, and its place on Kafka.

    Raises:
        ConfigurationError: Kafka refuses the record.
        KafkaUnavailable: no broker answers.
    """
    if configured.worker.output == "redis":
        return []
    erasure = Erasure(erasure_id=erasure_id(call_id), call_id=call_id, erased_at_ms=at_ms)
    value, headers = erasure.model_dump_json().encode(), [("schema", ERASURE_SCHEMA.encode())]
    with (
        kafka_errors(configured.kafka),
        refusals_raised(),
        closing(KafkaProducer(**connection(configured.kafka), acks="all")) as producer,
    ):
        sending = producer.send(configured.kafka.erasure_topic, key=call_id.encode(), value=value, headers=headers)
        sent = sending.get(timeout=_SEND_S)
    place = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
    return [{"erasure_id": erasure.erasure_id, **place}]


def _require_topic(wanted: KafkaSettings) -> None:
    with closing(KafkaConsumer(**connection(wanted))) as consumer:
        if not consumer.partitions_for_topic(wanted.erasure_topic):
            raise missing_topic(wanted.erasure_topic, wanted)


def _from_redis(client: Any, wanted: RedisSettings, call_id: str) -> Iterator[Line]:
    keys = Keys(wanted.prefix)
    all_states = keys.named("states:*")
    states = [client.hget(name, call_id) for name in client.scan_iter(all_states, count=_PAGE)]
    remembered = [state for state in states if state is not None]
    _refuse_live(call_id, remembered)
    own = [keys.call(call_id), keys.utterances_of(call_id)]
    found = {name: int(client.exists(name)) for name in own}
    client.delete(*own)
    for name in own:
        yield Line(name, found[name], int(client.exists(name)))
    for name in keys.lists_of_calls:
        removed = int(client.zrem(name, call_id))
        yield Line(name, removed, int(client.zscore(name, call_id) is not None))
    for name in keys.streams_of_calls:
        found_there = delete_entries(client, name, call_id)
        yield Line(name, found_there, sum(1 for _ in entries_of(client, name, call_id)))
    yield Line(all_states, len(remembered), len(remembered))


def _refuse_live(call_id: str, states: list[bytes]) -> None:
    if not all(map(is_final, states)):
        raise CallIsLiveError(
            f"call {call_id} is live or may go on, and its worker would write it again: erase it after its end, or "
            "CALLMOOD_CALL__RESUME_S after an end without an `end` record"
        )


def _from_kafka(configured: Settings, call_id: str) -> Iterator[Line]:
    topics = configured.kafka
    compacted: list[str] = []
    kept = [topics.audio_topic, topics.dead_letter_topic]
    if configured.worker.output != "redis":
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


def _records(wanted: KafkaSettings, topics: list[str], call_id: str) -> Mapping[KafkaPartition, tuple[int, Any]]:
    """By partition: how many records the call has there, and the value of the newest (None: a tombstone)."""
    counts: Counter[KafkaPartition] = Counter()
    newest: dict[KafkaPartition, Any] = {}
    options = {"isolation_level": "read_committed", "enable_auto_commit": False, "group_id": None}
    with closing(KafkaConsumer(**connection(wanted), **options)) as consumer:
        sources = [KafkaPartition(t, p) for t in topics for p in sorted(consumer.partitions_for_topic(t) or ())]
        ends = consumer.end_offsets(sources) if sources else {}
        consumer.assign(sources)
        consumer.seek_to_beginning(*sources)
        idle = 0
        while any(consumer.position(source) < ends[source] for source in sources):
            polled = consumer.poll(timeout_ms=_POLL_MS)
            idle = 0 if polled else idle + 1
            if idle > _IDLE_POLLS:
                raise KafkaUnavailable(
                    "the topics cannot be read to their end: a transaction may be open. Try again later"
                )
            for source, records in polled.items():
                for record in records:
                    if record.key == call_id.encode():
                        counts[source] += record.value is not None
                        newest[source] = record.value
    return {source: (counts[source], newest[source]) for source in newest}
