"""Results as published: files of `callmood analyze`, other JSON lines or Parquet of the contract, Redis, or Kafka."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from callmood.training import texts
from callmood.training.production import exported
from callmood.worker.errors import ConfigurationError

REDIS: Final = "redis"
KAFKA: Final = "kafka"
_URL: Final = "CALLMOOD_REDIS__URL"


def records(source: str, prefix: str) -> Iterator[Mapping[str, Any]]:
    """The utterance/1 and call/1 records of a source.

    Args:
        source: a file of JSON lines, or of Parquet with the records' fields as columns or as `callmood export` writes
            it, `-` for standard input, `redis` for the Redis of `CALLMOOD_REDIS__URL`, or `kafka` for the topics of
            `CALLMOOD_KAFKA__…`.
        prefix: of the keys in Redis.

    Returns:
        The records in any order; of a call in Kafka, `call_id` and `attributes` only.

    Raises:
        ConfigurationError: the source cannot be read; of a file, the message has the line.
    """
    if source == REDIS:
        return _redis(prefix)
    if source == KAFKA:
        return _kafka()
    if source.lower().endswith(".parquet"):
        return (_record(source, f"row {number}", exported.record(row)) for number, row in parquet_rows(Path(source)))
    return _lines(source)


def parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a Parquet file with their numbers, from 1.

    Raises:
        ConfigurationError: the file cannot be read, or pyarrow is missing.
    """
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'callmood[train]'") from error
    try:
        yield from enumerate(parquet.read_table(path).to_pylist(maps_as_pydicts="strict"), start=1)
    except (ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _lines(source: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = sys.stdin.read().removeprefix("\ufeff") if source == "-" else texts.read(Path(source))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{source}, line {number}: {error}") from error
        yield _record(source, f"line {number}", record)


def _record(source: str, place: str, record: Any) -> Mapping[str, Any]:
    if not isinstance(record, dict) or "schema" not in record:
        raise ConfigurationError(f"{source}, {place}: not a record of callmood")
    return record


def _redis(prefix: str) -> Iterator[Mapping[str, Any]]:
    """The utterances of all calls that Redis still has, oldest first, and their calls."""
    from redis import RedisError  # noqa: PLC0415 - training images lack it; files need none

    from callmood.dashboard import Dashboard  # noqa: PLC0415 - as above

    if not (url := os.environ.get(_URL)):
        raise ConfigurationError(f"set {_URL}, or give a file of results")
    try:
        with Dashboard(url, prefix) as dashboard:
            calls: set[str] = set()
            for news in dashboard.follow(from_start=True, timeout_s=0.01):
                if not news.utterances and not news.alerts:
                    break
                calls.update(utterance.call_id for utterance in news.utterances)
                yield from (utterance.model_dump(mode="json", by_alias=True) for utterance in news.utterances)
            views = dashboard.calls(sorted(calls))
            yield from (view.call.model_dump(mode="json", by_alias=True) for view in views)
    except (RedisError, ValueError) as error:
        raise ConfigurationError(f"{_URL}: {error}") from error


def _kafka() -> Iterator[Mapping[str, Any]]:
    """The utterances of the calls that Kafka has now, and of each call its `call_id` and `attributes`.

    A call that was erased is not there: its newest record is a tombstone, or there is none any more. Its utterances
    stay in Kafka until their retention ends, and are left out. Calls are read last, so that an erasure during the
    command counts, too.
    """
    from callmood.worker import settings  # noqa: PLC0415 - training images lack its libraries

    kafka = settings.load().kafka
    utterances = [value for record in _topic(kafka, kafka.utterance_topic) if (value := _value(record)) is not None]
    calls: dict[bytes, Mapping[str, Any]] = {}
    for record in _topic(kafka, kafka.call_topic):
        calls.pop(record.key, None)
        if (call := _value(record)) is not None:
            calls[record.key] = {"call_id": call.get("call_id"), "attributes": call.get("attributes")}
    yield from calls.values()
    kept = {call["call_id"] for call in calls.values()}
    yield from (utterance for utterance in utterances if utterance.get("call_id") in kept)


def _topic(kafka: Any, topic: str) -> Iterator[Any]:
    """The committed records of a topic up to its present end."""
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415 - training images lack it

    from callmood.worker.adapters import kafka_client, kafka_workarounds  # noqa: PLC0415 - as above

    with (
        kafka_client.kafka_errors(kafka),
        kafka_workarounds.refusals_raised(),
        contextlib.closing(
            KafkaConsumer(
                **kafka_client.connection(kafka), isolation_level="read_committed", allow_auto_create_topics=False
            )
        ) as consumer,
    ):
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise kafka_client.missing_topic(topic, kafka)
        partitions = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        yield from kafka_client.until_now(consumer)


def _value(record: Any) -> Mapping[str, Any] | None:
    """A result; None of a tombstone."""
    if record.value is None:
        return None
    place = f"partition {record.partition}, offset {record.offset}"
    try:
        value = json.loads(record.value)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{record.topic}, {place}: {error}") from error
    return _record(record.topic, place, value)
