"""What a worker needs, tried before one is started: Kafka, Redis, the model. Each says what is there, or why not."""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

import numpy as np
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition

from callmood.schemas.common import Encoding
from callmood.worker.adapters.kafka_client import connection, kafka_errors, refusals_raised
from callmood.worker.adapters.redis_client import connect_redis, redis_errors
from callmood.worker.engine.infer import open_engine
from callmood.worker.errors import ConfigurationError, ModelError
from callmood.worker.g711 import encode_pcmu
from callmood.worker.settings import KafkaSettings, Settings

_READ_MS: Final = 3_000
_SEND_S: Final = 10.0
_KEY_LIFE_S: Final = 5
_RATE_HZ: Final = 8_000


def kafka(settings: Settings) -> str:
    """Log in, find the topics, read audio, ask for our group's offsets; with results in Kafka, write to them and abort.

    Raises:
        ConfigurationError: a topic is missing, partitions do not match, or Kafka refuses something.
        KafkaUnavailable: no broker answers.
    """
    wanted, output = settings.kafka, settings.worker.output
    with kafka_errors(settings), refusals_raised():
        with closing(KafkaConsumer(**connection(wanted))) as consumer:
            partitions = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in topics_of(settings)}
        if missing := [topic for topic, count in partitions.items() if not count]:
            raise ConfigurationError(
                f"Kafka has no topic {', '.join(missing)}, or does not show it to us: see `callmood topics` and `acls`"
            )
        _refuse_other_counts(settings, partitions)
        _read(wanted, wanted.group_id, [wanted.audio_topic] + ([] if output == "redis" else [wanted.state_topic]))
        if output == "both":
            results = [wanted.utterance_topic, wanted.call_topic, wanted.alert_topic]
            _read(wanted, f"{wanted.group_id}-projector", results)
        if output != "redis":
            _write_and_abort(wanted, [topic for topic in partitions if topic != wanted.audio_topic])
    return f"{partitions[wanted.audio_topic]} partitions of {wanted.audio_topic}, group {wanted.group_id}"


def topics_of(settings: Settings) -> dict[str, Mapping[str, str]]:
    """The topics that these settings need, each with its configuration; the dead letters' is the second."""
    kafka = settings.kafka
    topics: dict[str, Mapping[str, str]] = {kafka.audio_topic: {}, kafka.dead_letter_topic: {}}
    if settings.worker.output != "redis":
        compacted = {"cleanup.policy": "compact"}
        topics |= {kafka.utterance_topic: {}, kafka.alert_topic: {}}
        topics |= {kafka.call_topic: compacted, kafka.state_topic: compacted}
    return topics


def redis(settings: Settings) -> str:
    """Log in, and write, read by a script and delete a key under our prefix.

    Raises:
        ConfigurationError: Redis refuses us or a command.
        StoreUnavailable: it does not answer.
    """
    if settings.worker.output == "kafka":
        return "not used: results go to Kafka"
    key = f"{{{settings.redis.prefix}}}:check"
    with redis_errors(), closing(connect_redis(settings.redis)) as client:
        client.hset(key, "check", "1")
        client.expire(key, _KEY_LIFE_S)
        client.register_script("return redis.call('HGET', KEYS[1], 'check')")(keys=[key])
        client.delete(key)
    return f"writable under {{{settings.redis.prefix}}}"


def model(settings: Settings) -> str:
    """Load the model and let it hear a second of sound.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used, or answers with no probabilities.
    """
    engine = open_engine(settings.model)
    tone = np.sin(2 * np.pi * 220 * np.arange(_RATE_HZ) / _RATE_HZ) * 8_000
    (heard,) = engine.predict([(Encoding.PCMU, _RATE_HZ, encode_pcmu(tone.astype(np.int16)))])
    if heard.probabilities is None or not math.isclose(sum(heard.probabilities), 1, abs_tol=1e-3):
        raise ModelError(f"{settings.model.path} answers with no probabilities: {heard.reason}")
    return f"{engine.info.id} {engine.info.version}, {engine.info.digest[:19]}"


CHECKS: Final[Mapping[str, Callable[[Settings], str]]] = {"kafka": kafka, "redis": redis, "model": model}
"""By name, in the order in which a worker meets them."""


def _refuse_other_counts(settings: Settings, partitions: Mapping[str, int]) -> None:
    """Results of a partition go to the partition of the same number."""
    audio, letters = settings.kafka.audio_topic, settings.kafka.dead_letter_topic
    for topic, count in partitions.items():
        if topic != letters and count != partitions[audio]:
            raise ConfigurationError(
                f"{topic} has {count} partitions, {audio} has {partitions[audio]}: give them as many"
            )


def _read(settings: KafkaSettings, group: str, topics: list[str]) -> None:
    """Prove READ on a group and on topics, without joining the group."""
    with closing(KafkaConsumer(**connection(settings), group_id=group, enable_auto_commit=False)) as consumer:
        sources = [KafkaPartition(topic, 0) for topic in topics]
        consumer.committed(sources[0], timeout_ms=settings.request_timeout_ms)
        for source in sources:
            consumer.assign([source])
            consumer.seek_to_beginning(source)
            consumer.poll(timeout_ms=_READ_MS)


def _write_and_abort(settings: KafkaSettings, topics: list[str]) -> None:
    """Prove WRITE on the topics and on our transactions; nobody who reads what is committed sees anything."""
    producer = KafkaProducer(**connection(settings), transactional_id=f"{settings.group_id}-check")
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        try:
            for sent in [producer.send(topic, key=b"check", value=b"") for topic in topics]:
                sent.get(timeout=_SEND_S)
        finally:
            producer.abort_transaction()
