"""`callmood redrive`: what stands on the dead-letter topic, and sending it back after a fix."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from callmood.schemas.dead_letter import PREFIX
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.errors import CallmoodError, Reason
from callmood.worker.settings import KafkaSettings

_SEND_S = 30
_POLL_MS = 500
_NOT_WHOLE = "value left behind"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--reason", type=Reason, choices=list(Reason), action="append", help="only these (repeatable)")
    parser.add_argument("--send", action="store_true", help="send them to the topic they came from; else only list")


def run(arguments: argparse.Namespace) -> int:
    """List the letters by reason, or send them back in their order.

    How far they were gone through is remembered in the group `<group>-redrive`, so a second run goes on behind it. A
    letter whose value was left behind (too big for the topic, or of a paused call) cannot be sent.
    """
    reasons = {reason.value for reason in arguments.reason or Reason}
    found: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    try:
        kafka = settings.load().kafka
        with closing(_consumer(kafka)) as consumer, closing(_producer(kafka)) as producer:
            for letter in _letters(consumer):
                headers = _added(letter)
                found[headers["reason"]] += 1
                if not arguments.send or headers["reason"] not in reasons:
                    continue
                if letter.value is None:
                    sent[_NOT_WHOLE] += 1
                    continue
                _send(producer, headers["topic"], letter)
                sent[headers["reason"]] += 1
            if arguments.send:
                producer.flush(timeout=_SEND_S)
                _remember(consumer)
    except (CallmoodError, KafkaError) as error:
        print(f"callmood: {error}", file=sys.stderr)
        return 2
    _show(found, sent)
    return 0


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
        raise CallmoodError(f"topic {kafka.dead_letter_topic!r} does not exist on {kafka.bootstrap_servers}")
    consumer.assign([KafkaPartition(kafka.dead_letter_topic, number) for number in numbers])
    return consumer


def _producer(kafka: KafkaSettings) -> KafkaProducer:
    return KafkaProducer(**connection(kafka), allow_auto_create_topics=False)


def _letters(consumer: KafkaConsumer) -> Iterator[Any]:
    """The letters up to the topic's present end, partition by partition in order."""
    partitions = consumer.assignment()
    ends = consumer.end_offsets(partitions)
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for records in consumer.poll(timeout_ms=_POLL_MS).values():
            yield from (record for record in records if _added(record).keys() >= {"reason", "topic"})


def _added(letter: Any) -> dict[str, str]:
    """What the worker has said about the record, without the prefix."""
    return {name.removeprefix(PREFIX): value.decode() for name, value in letter.headers if name.startswith(PREFIX)}


def _send(producer: KafkaProducer, topic: str, letter: Any) -> None:
    """The original record again: key, value, headers and capture time; at its own pace, one after the other."""
    producer.send(
        topic,
        key=letter.key,
        value=letter.value,
        headers=[(name, value) for name, value in letter.headers if not name.startswith(PREFIX)],
        timestamp_ms=int(_added(letter)["timestamp_ms"]),
    ).get(timeout=_SEND_S)


def _remember(consumer: KafkaConsumer) -> None:
    consumer.commit({p: OffsetAndMetadata(consumer.position(p), "", -1) for p in consumer.assignment()})


def _show(found: Counter[str], sent: Counter[str]) -> None:
    table = Table("reason", "letters", "sent back")
    for reason in sorted(found | sent):
        table.add_row(reason, str(found[reason]), str(sent[reason]))
    Console().print(table if found else "no dead letters")
