"""Unreadable records go to the dead-letter topic with everything needed to understand and redrive them."""

from collections.abc import Iterable
from dataclasses import replace

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.producer.future import FutureRecordMetadata

from callmood.schemas.dead_letter import DeadLetterHeaders
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.commits import DeadLetter
from callmood.worker.errors import ConfigurationError, StoreUnavailable
from callmood.worker.settings import KafkaSettings

_DETAIL_CHARACTERS = 512
_MAX_REQUEST_BYTES = 64 << 20


class DeadLetterTopic:
    """The producer to the dead-letter topic; after a crash a letter may stand there twice (its position is its id).

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
            enable_idempotence=False,  # an idempotent producer never recovers from a letter that is too big
            allow_auto_create_topics=False,
        )
        if not self._producer.partitions_for(self._topic):
            self._producer.close(timeout=1)
            raise ConfigurationError(
                f"topic {self._topic!r} does not exist on {settings.bootstrap_servers}: "
                "create it, or set CALLMOOD_KAFKA__DEAD_LETTER_TOPIC"
            )

    def send(self, letters: Iterable[DeadLetter]) -> None:
        """Put the letters on the topic and wait until they are safe there.

        A value that is too big for the topic stays behind at its source position; the letter says so.

        Raises:
            StoreUnavailable: some may not be; send all again.
        """
        try:
            too_big = self._try(letters)
            still_too_big = self._try([_without_value(letter) for letter in too_big])
        except KafkaError as error:
            raise StoreUnavailable(f"dead-letter topic: {error}") from error
        if still_too_big:
            raise StoreUnavailable(f"dead-letter topic {self._topic!r} does not even take letters without their value")

    def _try(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        sent = [(letter, self._send(letter)) for letter in letters]
        self._producer.flush(timeout=self._timeout_s)
        too_big = []
        for letter, future in sent:
            try:
                future.get(timeout=self._timeout_s)
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                too_big.append(letter)
        return too_big

    def _send(self, letter: DeadLetter) -> FutureRecordMetadata:
        record = letter.record
        headers = DeadLetterHeaders(
            reason=letter.reason.value,
            detail=letter.detail[:_DETAIL_CHARACTERS],
            topic=record.position.topic,
            partition=str(record.position.partition),
            offset=str(record.position.offset),
            timestamp_ms=str(record.timestamp_ms),
            worker=self._version,
        )
        return self._producer.send(
            self._topic, key=record.key, value=record.value, headers=[*record.headers, *headers.to_kafka()]
        )

    def close(self) -> None:
        """Close the producer."""
        self._producer.close(timeout=self._timeout_s)


def _without_value(letter: DeadLetter) -> DeadLetter:
    size = len(letter.record.value or b"")
    detail = f"{letter.detail} (value of {size} bytes left at its source position)"
    return replace(letter, record=replace(letter.record, value=None), detail=detail)
