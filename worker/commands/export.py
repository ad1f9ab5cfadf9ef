"""`callmood export`: the calls of a day and their utterances, as two files for SQL, pandas or a spreadsheet.

The calls are those that started on that day (UTC) and have ended. They come from Redis, which keeps them for an hour
after their end, or from Kafka, which keeps them for as long as its topics do. An erased call is in neither: from Kafka,
it takes only utterances of calls whose newest aggregate is not a tombstone.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition

from callmood.dashboard.reader import Dashboard
from callmood.schemas.call import CALL_SCHEMA, Call, Status
from callmood.schemas.history import CALLS, UTTERANCES
from callmood.schemas.utterance import Utterance
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.adapters.redis_client import redis_address, redis_errors
from callmood.worker.commands.tables import table
from callmood.worker.errors import EXIT_OK, ConfigurationError, KafkaUnavailable
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings

_FOREIGN: Final = "foreign"
"""Name of what is in no table: a record on our topics that is not ours."""
_NOT_OURS: Final = (ValueError, KeyError, TypeError, RecursionError)
_POLL_MS: Final = 500
_IDLE_POLLS: Final = 20
_SKEW_MS: Final = 12 * 3_600_000
"""How far the clocks of gateways, workers and Kafka may differ."""
_BEFORE_MS: Final = 60_000
"""What was spoken so long before a call is of an earlier call with the same id."""


class Day(NamedTuple):
    """A day in UTC, ms since 1970."""

    from_ms: int
    to_ms: int

    def has(self, call: Mapping[str, Any]) -> bool:
        """Whether a call/1 started on it, and has ended.

        Raises:
            KeyError, TypeError: it is no call/1.
        """
        started_at_ms: int = call["started_at_ms"]
        return self.from_ms <= started_at_ms < self.to_ms and call["status"] != Status.LIVE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--day", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD", help="day (UTC) on which calls started"
    )
    parser.add_argument("--format", choices=("parquet", "csv", "jsonl"), default="csv", help="default: csv")
    parser.add_argument(
        "--source", choices=("redis", "kafka"), help="default: kafka if the workers write to Kafka, otherwise redis"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="folder for the files; default: the current folder")


def run(arguments: argparse.Namespace) -> int:
    """Write `calls-DAY.FORMAT` and `utterances-DAY.FORMAT`, and print how many rows each has."""
    configured = settings.load()
    source = arguments.source or ("redis" if configured.worker.output == "redis" else "kafka")
    start = datetime.combine(arguments.day, time(), UTC)
    day = Day(*(round(at.timestamp() * 1000) for at in (start, start + timedelta(days=1))))
    path = {name: arguments.folder / f"{name}-{arguments.day}.{arguments.format}" for name in ("calls", "utterances")}
    rows: Counter[str] = Counter()
    with (
        table(path["calls"], arguments.format, CALLS) as calls,
        table(path["utterances"], arguments.format, UTTERANCES) as utterances,
    ):
        for name, record in (_from_redis if source == "redis" else _from_kafka)(configured, day):
            rows[name] += 1
            if name != _FOREIGN:
                (calls if name == "calls" else utterances).add(record)
    for name, written in path.items():
        print(f"{written}: {rows[name]} {name}")
    if rows[_FOREIGN]:
        print(
            f"{rows[_FOREIGN]} records were left out: other programs, or another version, wrote them", file=sys.stderr
        )
    return EXIT_OK


def _from_redis(configured: Settings, day: Day) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of a day, with the name of their table."""
    wanted = configured.redis
    with redis_errors(), Dashboard(redis_address(wanted), wanted.prefix) as dashboard:
        for view in dashboard.ended_calls():
            call = view.call.model_dump(mode="json", by_alias=True)
            if day.has(call):
                yield "calls", call
                for utterance in dashboard.utterances(call["call_id"]):
                    yield "utterances", utterance.model_dump(mode="json", by_alias=True)
        if dashboard.unreadable:
            raise ConfigurationError(
                f"cannot read {dashboard.unreadable} records: another version of callmood wrote them"
            )


def _from_kafka(configured: Settings, day: Day) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """As `_from_redis`. Holds the calls of the day in memory, about 3 kB each."""
    topics = configured.kafka
    with kafka_errors(topics), refusals_raised():
        calls: dict[bytes, tuple[int, bytes, int]] = {}
        for record in _records(topics, topics.call_topic, day.from_ms - _SKEW_MS, None):
            calls.pop(record.key, None)
            try:
                if record.value is not None and (call := _call_of(day, record.value)):
                    calls[record.key] = record.timestamp, record.value, call.started_at_ms
            except _NOT_OURS:
                yield _FOREIGN, {}
        for _, value, _ in calls.values():
            yield "calls", json.loads(value)
        until_ms = max((at_ms for at_ms, _, _ in calls.values()), default=day.from_ms) + _SKEW_MS
        numbers = dict.fromkeys(calls, 0)
        for record in _records(topics, topics.utterance_topic, day.from_ms - _SKEW_MS, until_ms):
            if record.key not in calls:
                continue
            try:
                utterance = Utterance.read(record.value or b"")
            except _NOT_OURS:
                yield _FOREIGN, {}
                continue
            begun_ms = calls[record.key][2] - _BEFORE_MS
            is_earlier_call = utterance.spoken_at_ms is not None and utterance.spoken_at_ms < begun_ms  # of the same id
            if utterance.number > numbers[record.key] and not is_earlier_call:  # copies of a topic can have them twice
                numbers[record.key] = utterance.number
                yield "utterances", json.loads(record.value)


def _call_of(day: Day, value: bytes) -> Call | None:
    """The call of a record, if it is of this day. Only such a call is checked as a whole: most are of live calls.

    Raises:
        ValueError, KeyError, TypeError: it is no call/1.
    """
    found = json.loads(value)
    if found["schema"] != CALL_SCHEMA:
        raise ValueError("another schema")
    return Call.read(value) if day.has(found) else None


def _records(wanted: KafkaSettings, topic: str, from_ms: int, to_ms: int | None) -> Iterator[Any]:
    """The committed records of a topic between two times of commit, or up to its present end.

    Raises:
        ConfigurationError: there is no such topic.
        KafkaUnavailable: it cannot be read to its end.
    """
    options = {"isolation_level": "read_committed", "enable_auto_commit": False, "group_id": None}
    with closing(KafkaConsumer(**connection(wanted), **options, allow_auto_create_topics=False)) as consumer:
        sources = [KafkaPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not sources:
            raise missing_topic(topic, wanted)
        ends = consumer.end_offsets(sources)
        consumer.assign(sources)
        for source, found in _offsets(consumer, sources, from_ms).items():
            consumer.seek(source, ends[source] if found is None else found)
        for source, found in _offsets(consumer, sources, to_ms).items():
            ends[source] = ends[source] if found is None else min(found, ends[source])
        idle = 0
        while any(consumer.position(source) < ends[source] for source in sources):
            polled = consumer.poll(timeout_ms=_POLL_MS)
            idle = 0 if polled else idle + 1
            if idle > _IDLE_POLLS:
                raise KafkaUnavailable(f"{topic} cannot be read to its end: a transaction may be open. Try again later")
            for source, records in polled.items():
                yield from (record for record in records if record.offset < ends[source])


def _offsets(
    consumer: KafkaConsumer, sources: Iterable[KafkaPartition], at_ms: int | None
) -> Mapping[KafkaPartition, int | None]:
    """By partition, the first offset with this timestamp or a later one; None if there is none."""
    if at_ms is None:
        return {}
    found = consumer.offsets_for_times(dict.fromkeys(sources, max(0, at_ms)))
    return {source: one and one.offset for source, one in found.items()}
