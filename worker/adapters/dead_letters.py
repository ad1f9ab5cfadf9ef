"""The producer to the dead-letter topic. Parts of a record that are too large for the topic are left out."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from kafka import KafkaProducer
from kafka.errors import InvalidTimestampError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.producer.future import FutureRecordMetadata

from callmood.schemas.dead_letter import DEAD_LETTER_SCHEMA, DETAIL_CHARACTERS, PREFIX, stored_headers
from callmood.worker.adapters.kafka_client import connection, missing_topic
from callmood.worker.adapters.kafka_workarounds import sendable
from callmood.worker.commits import DeadLetter
from callmood.worker.errors import StoreUnavailable
from callmood.worker.records import Record
from callmood.worker.server_settings import KafkaSettings

_MAX_REQUEST_BYTES = 64 << 20
_BATCH_BYTES = 1 << 18
_LINGER_MS = 1_000  # `flush` sends at once; a request for each few records would cost as much CPU as the records
_CUT_KEY_BYTES = 1 << 10
_CUT_HEADERS_BYTES = 8 << 10
"""Of key and headers, if even they are too big for the topic."""
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

log = structlog.get_logger()


class Message(NamedTuple):
    """A record for the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class DeadLetterTopic:
    """The producer to the dead-letter topic. After a crash, a record can be there twice; its source position is its id.

    Records of one partition of the audio topic stay in one partition, in their order.

    Raises:
        ConfigurationError: the topic does not exist.
    """

    def __init__(self, settings: KafkaSettings, version: str) -> None:
        self._topic = settings.dead_letter_topic
        self._timeout_s = settings.request_timeout_ms / 1000
        self._version = version
        self._producer = KafkaProducer(
            **connection(settings),
            delivery_timeout_ms=settings.request_timeout_ms * 2,
            max_request_size=_MAX_REQUEST_BYTES,
            linger_ms=_LINGER_MS,
            batch_size=_BATCH_BYTES,
            enable_idempotence=False,  # an idempotent producer never recovers from a record that is too large
            allow_auto_create_topics=False,
        )
        if not self._producer.partitions_for(self._topic):
            self._producer.close(timeout=1)
            raise missing_topic(self._topic, settings)

    def send(self, refused: Iterable[DeadLetter]) -> None:
        """Send the records and wait until Kafka has them; what is too large for the topic is left out.

        Kafka refuses records from more than an hour ahead. If the clock of this machine is wrong, they are sent with
        the times of the original records, which it has accepted.

        Raises:
            StoreUnavailable: Kafka did not confirm all records; send all again.
        """
        left = list(refused)
        try:
            try:
                left = self._send(left)
            except InvalidTimestampError:
                log.warning("clock of this machine is ahead; dead-letter records get the times of their originals")
                left = self._send(left, has_own_times=False)
        except KafkaError as error:
            raise StoreUnavailable(f"dead-letter topic: {error}") from error
        if left:
            raise StoreUnavailable(
                f"dead-letter topic {self._topic!r} accepts no record of 16 kB: raise its max.message.bytes"
            )

    def _send(self, refused: list[DeadLetter], *, has_own_times: bool = True) -> list[DeadLetter]:
        """Send the records in the largest form that fits; returns those that are too large in every form."""
        for form in (whole, without_value, cut):
            refused = self._too_large(refused, form, has_own_times=has_own_times)
        return refused

    def _too_large(
        self, refused: list[DeadLetter], form: Callable[[DeadLetter, str], Message], *, has_own_times: bool
    ) -> list[DeadLetter]:
        """Send these records in this form; returns those that are too large."""
        if not refused:
            return []
        partitions = sorted(self._producer.partitions_for(self._topic) or {0})
        sent = []
        for letter in refused:
            partition = partitions[letter.record.position.partition % len(partitions)]
            timestamp_ms = None if has_own_times else _original_time_ms(letter.record)
            sent.append((letter, self._start(form(letter, self._version), partition, timestamp_ms)))
        self._producer.flush(timeout=self._timeout_s)
        return [letter for letter, future in sent if not self._has_arrived(future)]

    def _start(self, message: Message, partition: int, timestamp_ms: int | None) -> FutureRecordMetadata | None:
        """Hand a record to the producer; None if the producer itself finds it too large."""
        try:
            return self._producer.send(
                self._topic,
                key=message.key,
                value=message.value,
                headers=message.headers,
                partition=partition,
                timestamp_ms=timestamp_ms,
            )
        except _TOO_LARGE:
            return None

    def _has_arrived(self, future: FutureRecordMetadata | None) -> bool:
        try:
            return future is not None and bool(future.get(timeout=self._timeout_s))
        except _TOO_LARGE:
            return False

    def close(self) -> None:
        """Close the producer."""
        self._producer.close(timeout=self._timeout_s)


def _original_time_ms(record: Record) -> int:
    """The record's time, or 0 if it has none or one that is even ahead of this machine's."""
    return record.timestamp_ms if 0 <= record.timestamp_ms <= time.time() * 1000 else 0


def whole(letter: DeadLetter, version: str) -> Message:
    """The record as it was. kafka-python sends no record without key and value: such a one gets an empty value."""
    record = letter.record
    if record.key is None and record.value is None:
        return without_value(letter, version)
    headers = [*_original(record), *_added(letter, version)]
    return Message(record.key, record.value, headers)


def without_value(letter: DeadLetter, version: str) -> Message:
    """The record without its value."""
    record = letter.record
    value = None if record.key is not None else b""
    headers = [*_original(record), *_added(letter, version, ["value"])]
    return Message(record.key, value, headers)


def cut(letter: DeadLetter, version: str) -> Message:
    """The record without its value, with the first bytes of its key, and with those headers that fit."""
    record = letter.record
    headers, kept, room = _original(record), [], _CUT_HEADERS_BYTES
    for name, value in headers:
        room -= _size(name, value)
        if room < 0:
            break
        kept.append((name, value))
    key = None if record.key is None else record.key[:_CUT_KEY_BYTES]
    missing = ["value"] + (["key"] if key != record.key else []) + (["headers"] if len(kept) < len(headers) else [])
    return Message(key, None if key is not None else b"", [*kept, *_added(letter, version, missing)])


def _original(record: Record) -> list[tuple[str, bytes]]:
    headers = stored_headers(record.headers)
    return headers if all(name.isascii() for name, _ in headers) else sendable(headers)


def _added(letter: DeadLetter, version: str, missing: Sequence[str] = ()) -> list[tuple[str, bytes]]:
    """The headers of `DeadLetterHeaders`. They are not validated here: that would cost as much as all the rest."""
    record = letter.record
    told = {
        "schema": DEAD_LETTER_SCHEMA,
        "reason": letter.reason.value,
        "detail": letter.detail.encode(errors="replace").decode()[:DETAIL_CHARACTERS],
        "topic": record.position.topic,
        "partition": str(record.position.partition),
        "offset": str(record.position.offset),
        "timestamp_ms": str(record.timestamp_ms),
        "worker": version,
    }
    if missing:
        told |= {"incomplete": ",".join(missing)} | _sizes(record, missing)
    return [(PREFIX + name, text.encode()) for name, text in told.items()]


def _sizes(record: Record, missing: Sequence[str]) -> dict[str, str]:
    sizes = {
        "value": None if record.value is None else len(record.value),
        "key": None if record.key is None else len(record.key),
        "headers": sum(_size(name, value or b"") for name, value in record.headers),
    }
    return {f"{part}_bytes": str(sizes[part]) for part in missing if sizes[part] is not None}


def _size(name: str, value: bytes) -> int:
    return len(name.encode(errors="surrogateescape")) + len(value)
