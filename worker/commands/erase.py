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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition

from callmood.schemas.erasure import ERASURE_SCHEMA, Erasure, erasure_id
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic, until_now
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.adapters.redis_client import connect_redis, redis_errors
from callmood.worker.adapters.redis_entries import delete_entries, entries_of
from callmood.worker.errors import EXIT_OK, ConfigurationError
from callmood.worker.partition.ended import is_final
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings

_EXIT_LEFT: Final = 1
_PAGE: Final = 1_000
_SEND_S: Final = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("call_id", help="id of the call: its key on the audio topic")


def run(arguments: argparse.Namespace) -> int:
    """Print the receipt, as JSON; exit code 1 if something remains that only retention removes.

    An error after the first removal ends the command with a receipt that is not `complete`; another run does the rest.
    """
    configured, at = settings.load(), datetime.now(UTC)
    call_id = arguments.call_id
    before = find(configured, call_id)
    receipt: dict[str, Any] = {
        "call_id": call_id,
        "erased_at": at.isoformat(timespec="seconds"),
        "callmood": version("callmood"),
        "complete": False,
        "places": [],
        "left_to_retention": 0,
        "announced": [],
    }
    try:
        for line in remove(configured, call_id, before):
            receipt["places"].append(asdict(line))
            receipt["left_to_retention"] += line.left
        # Also if nothing was found: a database may have had the call for years.
        receipt["announced"] = announce(configured, call_id, at_ms=round(at.timestamp() * 1000))
        receipt["complete"] = True
    finally:
        print(json.dumps(receipt, indent=2))
    return _EXIT_LEFT if receipt["left_to_retention"] else EXIT_OK


class CallIsLiveError(ConfigurationError):
    """The call is live or may go on, so a worker would write it again."""


@dataclass(frozen=True, slots=True)
class Line:
    """One place: how many records of the call it had, and how many it still has."""

    where: str
    found: int
    left: int


@dataclass(frozen=True, slots=True)
class Before:
    """What a call had before its removal: its states in Redis, and its records by partition of Kafka."""

    states: list[bytes]
    records: Mapping[KafkaPartition, tuple[int, Any]]
    """How many, and the value of the newest (None: a tombstone)."""


def find(configured: Settings, call_id: str) -> Before:
    """Read what there is of a call, and remove nothing.

    Args:
        configured: the worker's settings.
        call_id: of the call.

    Returns:
        What was found.

    Raises:
        CallIsLiveError: the call has not ended.
        ConfigurationError: Redis or Kafka refuses something, or a topic does not exist.
        StoreUnavailable: Redis does not answer.
        KafkaUnavailable: no broker answers.
    """
    topics = _Topics.of(configured)
    with kafka_errors(configured.kafka), refusals_raised():
        records = _records(configured.kafka, topics, call_id)
    states: list[bytes] = []
    if configured.worker.output != "kafka":
        with redis_errors(), closing(connect_redis(configured.redis)) as client:
            states = _states(client, Keys(configured.redis.prefix), call_id)
    newest = [value for source, (_, value) in records.items() if source.topic in topics.states and value is not None]
    _refuse_live(call_id, [*states, *newest])
    return Before(states, records)


def remove(configured: Settings, call_id: str, before: Before) -> Iterator[Line]:
    """Remove a call that has ended, and read back what is left of it. A second removal does what the first did not.

    Args:
        configured: the worker's settings.
        call_id: of the call.
        before: of `find`.

    Yields:
        What each place had and has, after its removal there.

    Raises:
        ConfigurationError: Redis or Kafka refuses something.
        StoreUnavailable: Redis does not answer.
        KafkaUnavailable: no broker answers.
    """
    if configured.worker.output != "kafka":
        keys = Keys(configured.redis.prefix)
        with redis_errors(), closing(connect_redis(configured.redis)) as client:
            yield from _from_redis(client, keys, call_id)
        yield Line(_all_states(keys), len(before.states), len(before.states))
    with kafka_errors(configured.kafka), refusals_raised():
        yield from _from_kafka(configured, call_id, before.records)


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


@dataclass(frozen=True, slots=True)
class _Topics:
    """The topics with records of calls, by what an erasure does there; and where it is announced."""

    compacted: list[str]
    states: list[str]
    kept: list[str]
    announced: list[str]

    @classmethod
    def of(cls, configured: Settings) -> "_Topics":
        topics = configured.kafka
        kept = [topics.audio_topic, topics.dead_letter_topic]
        if configured.worker.output == "redis":
            return cls([], [], kept, [])
        results = [topics.utterance_topic, topics.alert_topic]
        return cls([topics.call_topic], [topics.state_topic], kept + results, [topics.erasure_topic])


def _all_states(keys: Keys) -> str:
    return keys.named("states:*")


def _states(client: Any, keys: Keys, call_id: str) -> list[bytes]:
    found = [client.hget(name, call_id) for name in client.scan_iter(_all_states(keys), count=_PAGE)]
    return [state for state in found if state is not None]


def _from_redis(client: Any, keys: Keys, call_id: str) -> Iterator[Line]:
    own = [keys.call(call_id), keys.utterances_of(call_id)]
    found = {name: int(client.exists(name)) for name in own}
    client.delete(*own)
    for name in own:
        yield Line(name, found[name], int(client.exists(name)))
    for name in keys.lists_of_calls:
        removed = int(client.zrem(name, call_id))
        yield Line(name, removed, int(client.zscore(name, call_id) is not None))
    claims = _claims(client, keys, call_id)
    if claims:
        client.hdel(keys.claims, *claims)
    yield Line(keys.claims, len(claims), len(_claims(client, keys, call_id)))
    for name in keys.streams_of_calls:
        found_there = delete_entries(client, name, [call_id])
        yield Line(name, found_there, sum(1 for _ in entries_of(client, name, [call_id])))


def _claims(client: Any, keys: Keys, call_id: str) -> list[bytes]:
    """Ids of the call's alerts that somebody has claimed: an alert id is call, rule and episode."""
    claimed = client.hscan_iter(keys.claims, count=_PAGE)
    return [alert_id for alert_id, _ in claimed if alert_id.rsplit(b":", 2)[0] == call_id.encode()]


def _refuse_live(call_id: str, states: list[bytes]) -> None:
    if not all(map(is_final, states)):
        raise CallIsLiveError(
            f"call {call_id} is live or can continue, and its worker would write it again: erase it after its end, or "
            "CALLMOOD_CALL__RESUME_S after an end without an `end` record"
        )


def _from_kafka(configured: Settings, call_id: str, before: Mapping[KafkaPartition, tuple[int, Any]]) -> Iterator[Line]:
    topics = _Topics.of(configured)
    buried = [one for one, (_, newest) in before.items() if one.topic in topics.compacted and newest is not None]
    if buried:
        with closing(KafkaProducer(**connection(configured.kafka), acks="all")) as producer:
            for sent in [producer.send(s.topic, key=call_id.encode(), partition=s.partition) for s in buried]:
                sent.get(timeout=_SEND_S)
    after = _records(configured.kafka, replace(topics, states=[], kept=[]), call_id) if buried else before
    for topic in topics.compacted:
        yield Line(f"kafka: {topic}", _unburied(before, topic), _unburied(after, topic))
    for topic in topics.states:
        yield Line(f"kafka: {topic}", _unburied(before, topic), _unburied(before, topic))
    for topic in topics.kept:
        count = sum(counted for source, (counted, _) in before.items() if source.topic == topic)
        yield Line(f"kafka: {topic}", count, count)


def _unburied(records: Mapping[KafkaPartition, tuple[int, Any]], topic: str) -> int:
    """In how many partitions of the topic the newest record of the call is no tombstone."""
    return sum(newest is not None for source, (_, newest) in records.items() if source.topic == topic)


def _records(wanted: KafkaSettings, topics: _Topics, call_id: str) -> Mapping[KafkaPartition, tuple[int, Any]]:
    """By partition: how many records the call has there, and the value of the newest (None: a tombstone)."""
    counts: Counter[KafkaPartition] = Counter()
    newest: dict[KafkaPartition, Any] = {}
    options = {"isolation_level": "read_committed", "enable_auto_commit": False, "group_id": None}
    with closing(KafkaConsumer(**connection(wanted), **options)) as consumer:
        for topic in topics.announced:
            _partitions(consumer, wanted, topic)
        read = [*topics.compacted, *topics.states, *topics.kept]
        sources = [KafkaPartition(topic, p) for topic in read for p in _partitions(consumer, wanted, topic)]
        consumer.assign(sources)
        consumer.seek_to_beginning(*sources)
        for record in until_now(consumer):
            if record.key == call_id.encode():
                source = KafkaPartition(record.topic, record.partition)
                counts[source] += record.value is not None
                newest[source] = record.value
    return {source: (counts[source], newest[source]) for source in newest}


def _partitions(consumer: Any, wanted: KafkaSettings, topic: str) -> list[int]:
    """Of a topic that this user may see: a topic that is left out in silence would make the receipt wrong."""
    partitions = sorted(consumer.partitions_for_topic(topic) or ())
    if not partitions:
        raise missing_topic(topic, wanted)
    return partitions
