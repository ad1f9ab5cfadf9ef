"""`callmood redrive`: list the records on the dead-letter topic, or send them back after a fix."""

import argparse
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import AuthorizationError, KafkaError, RetriableError
from rich.console import Console
from rich.table import Table

from callmood.schemas.dead_letter import DeadLetterHeaders, original_headers
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic, until_now
from callmood.worker.adapters.kafka_workarounds import refusals_raised, sendable
from callmood.worker.errors import EXIT_OK, Reason
from callmood.worker.server_settings import KafkaSettings

_SEND_S = 30
_MAX_REQUEST_BYTES = 64 << 20
_INCOMPLETE = "not sent: incomplete"
_REFUSED = "not sent: Kafka refused the record"
_UNKNOWN = "not sent: not written by a worker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--reason",
        type=Reason,
        choices=list(Reason),
        action="append",
        metavar="REASON",
        help="only records with this reason (schemas/README.md lists them); repeatable; other records stay on the list",
    )
    parser.add_argument("--send", action="store_true", help="send the records to their topics; default: only list them")


def run(arguments: argparse.Namespace) -> int:
    """List the records by reason, or send them back in order.

    The group `<group>-redrive` remembers how far this command has sent, so the next run continues there: in each
    partition, before the first record that `--reason` has left out. What was sent after that record is then sent again,
    and the worker recognises the copies. A record whose value was left out (too large for the topic, or of a paused
    call), or that Kafka refuses, is counted and not sent.
    """
    reasons = {reason.value for reason in arguments.reason or Reason}
    found: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    left: dict[KafkaPartition, int] = {}
    kafka = settings.load().kafka
    with (
        kafka_errors(kafka),
        refusals_raised(),
        closing(_consumer(kafka)) as consumer,
        closing(_producer(kafka)) as producer,
    ):
        for record in until_now(consumer):
            added = DeadLetterHeaders.from_kafka(record.headers)
            if added and added.reason not in reasons:
                left.setdefault(KafkaPartition(record.topic, record.partition), record.offset)
                continue
            found[added.reason if added else _UNKNOWN] += 1
            if added and arguments.send:
                sent[_send(producer, added, record)] += 1
        if arguments.send:
            _remember(consumer, left)
    _show(found, sent)
    return EXIT_OK


def _consumer(kafka: KafkaSettings) -> KafkaConsumer:
    consumer = KafkaConsumer(
        **connection(kafka),
        group_id=f"{kafka.group_id}-redrive",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
    )
    numbers = consumer.partitions_for_topic(kafka.dead_letter_topic)
    if not numbers:
        consumer.close(autocommit=False)
        raise missing_topic(kafka.dead_letter_topic, kafka)
    consumer.assign([KafkaPartition(kafka.dead_letter_topic, number) for number in numbers])
    return consumer


def _producer(kafka: KafkaSettings) -> KafkaProducer:
    return KafkaProducer(
        **connection(kafka),
        allow_auto_create_topics=False,
        enable_idempotence=False,
        max_request_size=_MAX_REQUEST_BYTES,
    )


def _send(producer: KafkaProducer, added: DeadLetterHeaders, record: Any) -> str:
    """Send the original record: key, value, headers and capture time. Returns its reason, or why it was not sent."""
    if record.value is None or not added.is_whole:
        return _INCOMPLETE
    timestamp_ms = int(added.timestamp_ms)
    try:
        producer.send(
            added.topic,
            key=record.key,
            value=record.value,
            headers=sendable(original_headers(record.headers)),
            timestamp_ms=timestamp_ms if timestamp_ms >= 0 else None,
        ).get(timeout=_SEND_S)  # one at a time: records of a call keep their order
    except (AuthorizationError, RetriableError):
        raise
    except KafkaError:
        return _REFUSED
    return added.reason


def _remember(consumer: KafkaConsumer, left: Mapping[KafkaPartition, int]) -> None:
    positions = {p: consumer.position(p) for p in consumer.assignment()} | dict(left)
    consumer.commit({p: OffsetAndMetadata(position, "", -1) for p, position in positions.items()})


def _show(found: Counter[str], sent: Counter[str]) -> None:
    table = Table("reason", "records", "sent back")
    for reason in sorted(found | sent):
        table.add_row(reason, str(found[reason]), str(sent[reason]))
    Console().print(table if found else "no dead-letter records")
