"""`callmood check`: tests what a worker with these settings needs: CPU cores, Kafka, Redis, the model."""

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, codec
from kafka import TopicPartition as KafkaPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import AuthorizationError, UnknownTopicOrPartitionError, UnsupportedVersionError

from callmood.schemas.common import Encoding
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic, other_count
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.adapters.publish_kafka import MAX_RECORD_BYTES
from callmood.worker.adapters.redis_client import connect_redis, redis_errors, refuse_eviction
from callmood.worker.commands.stored_positions import refuse_foreign_positions
from callmood.worker.commands.topics import LARGEST_SEGMENT_BYTES, LARGEST_STATE_BYTES, STATE_CONFIG, topics_of
from callmood.worker.errors import EXIT_CONFIGURATION, EXIT_OK, CallmoodError, ConfigurationError, ModelError, exit_code
from callmood.worker.g711 import encode_pcmu
from callmood.worker.run.pinning import keep_to, own_cores
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings

_READ_S: Final = 3.0
_SEND_S: Final = 10.0
_KEY_LIFE_S: Final = 5
_RATE_HZ: Final = 8_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", choices=[[], *CHECKS], help="cores, kafka, redis or model; default: all"
    )


def run(arguments: argparse.Namespace) -> int:
    """Test everything and print a line for each; 2 if a setting is wrong, 75 if only a server does not answer."""
    configured = settings.load()
    codes = {EXIT_OK}
    for name in arguments.what or CHECKS:
        try:
            print(f"{name}: ok: {CHECKS[name](configured)}", flush=True)
        except CallmoodError as error:
            print(f"{name}: {error}", flush=True)
            codes.add(exit_code(error))
    return EXIT_CONFIGURATION if EXIT_CONFIGURATION in codes else max(codes)


def kafka(configured: Settings) -> str:
    """Log in, find the topics, read audio and the group's offsets; with results in Kafka, write to them and abort.

    Raises:
        ConfigurationError: a topic is missing, partitions do not match, or Kafka refuses something.
        KafkaUnavailable: no broker answers.
    """
    wanted, output = configured.kafka, configured.worker.output
    with kafka_errors(wanted), refusals_raised():
        with closing(KafkaConsumer(**connection(wanted))) as consumer:
            partitions = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in topics_of(configured)}
            _refuse_other_counts(wanted, partitions)
            refuse_foreign_positions(configured, consumer)
        advice = _refuse_wrong_cleanup(configured) + _missing_erasures(configured)
        _refuse_missing_codecs()
        _read(wanted, wanted.group_id, [wanted.audio_topic] + ([] if output == "redis" else [wanted.state_topic]))
        if output == "both":
            results = [wanted.utterance_topic, wanted.call_topic, wanted.alert_topic]
            _read(wanted, f"{wanted.group_id}-projector", results)
        if output != "redis":
            _write_and_abort(wanted, [topic for topic in partitions if topic != wanted.audio_topic])
    return f"{partitions[wanted.audio_topic]} partitions of {wanted.audio_topic}, group {wanted.group_id}{advice}"


def redis(configured: Settings) -> str:
    """Log in, and write a key under the prefix, read it in a script, and delete it.

    Raises:
        ConfigurationError: Redis refuses the login or a command.
        StoreUnavailable: Redis does not answer.
    """
    if configured.worker.output == "kafka":
        return "not used: results go to Kafka"
    keys = Keys(configured.redis.prefix)
    with redis_errors(), closing(connect_redis(configured.redis)) as client:
        client.hset(keys.check, "check", "1")
        client.expire(keys.check, _KEY_LIFE_S)
        client.register_script("return redis.call('HGET', KEYS[1], 'check')")(keys=[keys.check])
        client.delete(keys.check)
        refuse_eviction(client)
    return f"writable under {keys.tag}"


def model(configured: Settings) -> str:
    """Load the model and run it on a second of sound.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint or the speech check cannot be used, or the model returns no probabilities.
    """
    from callmood.worker.model import checkpoints  # noqa: PLC0415 - torch takes seconds, which `check kafka` need not wait

    checkpoints.find(configured.model.path)  # a missing folder is reported before more is imported
    from callmood.worker.engine.check import SpeechCheck  # noqa: PLC0415 - as above
    from callmood.worker.engine.infer import open_engine  # noqa: PLC0415 - as above, and transformers takes more

    if configured.model.speech_check:
        SpeechCheck.open()
    engine = open_engine(configured.model)
    tone = np.sin(2 * np.pi * 220 * np.arange(_RATE_HZ) / _RATE_HZ) * 8_000
    (heard,) = engine.predict([(Encoding.PCMU, _RATE_HZ, encode_pcmu(tone.astype(np.int16)))])
    if heard.probabilities is None or not math.isclose(sum(heard.probabilities), 1, abs_tol=1e-3):
        raise ModelError(f"{configured.model.path} returns no probabilities: {heard.reason}")
    return f"{engine.info.id} {engine.info.version}, {engine.info.digest[:19]}"


def cores(configured: Settings) -> str:
    """Find the CPU cores that each process of a worker gets here, if the settings ask for cores of their own.

    Raises:
        ConfigurationError: there are too few cores, other programs use them too, or the system assigns none.
    """
    assigned = own_cores(configured.worker)
    if not assigned:
        return "shared by all processes"
    keep_to(os.sched_getaffinity(0))  # changes nothing, but a system that assigns no cores refuses it
    *of_ingest, of_model = (" and ".join(map(str, cpus)) for cpus in assigned)
    return f"CPU {', '.join(of_ingest)} for the ingest processes, {of_model} for the model"


CHECKS: Final[Mapping[str, Callable[[Settings], str]]] = {
    "cores": cores,  # first: the model's libraries can bind this thread to one of them
    "kafka": kafka,
    "redis": redis,
    "model": model,
}
"""By name, in the order in which a worker needs them."""


def _refuse_other_counts(wanted: KafkaSettings, partitions: Mapping[str, int]) -> None:
    for topic, count in partitions.items():
        if not count:
            raise missing_topic(topic, wanted)
        if count != partitions[wanted.audio_topic] and topic != wanted.dead_letter_topic:
            raise other_count(topic, count, partitions[wanted.audio_topic], wanted)


def _missing_erasures(configured: Settings) -> str:
    """A warning if there is no topic of erasures, which no worker needs. It is none if this user may not see it."""
    topic = configured.kafka.erasure_topic
    if configured.worker.output == "redis":
        return ""
    with closing(KafkaAdminClient(**connection(configured.kafka))) as admin:
        (described,) = admin.describe_topics([topic])
    if described["error_code"] != UnknownTopicOrPartitionError.errno:
        return ""
    return f"; topic {topic!r} does not exist, and `callmood erase` needs it: create it with `callmood topics`"


def _refuse_wrong_cleanup(configured: Settings) -> str:
    """The states topic must be compacted; audio, results and dead-letter records must not be.

    The check is skipped if the broker or the user's rights hide the topic's configuration.

    Returns what could be better: a states topic with large segments.
    """
    wanted = configured.kafka
    topics = [topic for topic in topics_of(configured) if topic != wanted.call_topic]
    try:
        with closing(KafkaAdminClient(**connection(wanted))) as admin:
            resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
            described = admin.describe_configs(resources, config_filter="all").get("topic", {})
    except (AuthorizationError, UnsupportedVersionError):
        return ""
    for topic in topics:
        policy = described.get(topic, {}).get("cleanup.policy", {}).get("value")
        if policy is None:
            continue
        if topic == wanted.state_topic and policy != "compact":
            raise ConfigurationError(
                f"topic {topic!r} has cleanup.policy={policy}, and Kafka would delete states of live calls: set "
                "cleanup.policy=compact"
            )
        if topic != wanted.state_topic and "compact" in policy:
            raise ConfigurationError(
                f"topic {topic!r} has cleanup.policy={policy}, and Kafka would delete or refuse records: "
                "set cleanup.policy=delete"
            )
    largest = int(described.get(wanted.state_topic, {}).get("max.message.bytes", {}).get("value") or MAX_RECORD_BYTES)
    if largest < LARGEST_STATE_BYTES:
        raise ConfigurationError(
            f"topic {wanted.state_topic!r} has max.message.bytes={largest}, and the state of a call with many streams "
            f"is larger: set max.message.bytes={MAX_RECORD_BYTES}"
        )
    segment_bytes = int(described.get(wanted.state_topic, {}).get("segment.bytes", {}).get("value") or 0)
    if segment_bytes <= LARGEST_SEGMENT_BYTES:
        return ""
    return (
        f"; {wanted.state_topic} has segment.bytes={segment_bytes}, and a takeover reads the newest segment whole: set "
        f"{STATE_CONFIG['segment.bytes']}"
    )


def _refuse_missing_codecs() -> None:
    """A producer may compress with any codec; a consumer without it stops at the first such batch."""
    known = {"gzip": codec.has_gzip, "snappy": codec.has_snappy, "lz4": codec.has_lz4, "zstd": codec.has_zstd}
    if missing := [name for name, is_there in known.items() if not is_there()]:
        raise ConfigurationError(
            f"this installation cannot read records that are compressed with {', '.join(missing)}: install "
            "callmood with all its dependencies"
        )


def _read(wanted: KafkaSettings, group: str, topics: list[str]) -> None:
    """Prove READ on a group and on topics, without joining the group."""
    with closing(KafkaConsumer(**connection(wanted), group_id=group, enable_auto_commit=False)) as consumer:
        unread = {KafkaPartition(topic, 0) for topic in topics}
        consumer.committed(KafkaPartition(topics[0], 0), timeout_ms=wanted.request_timeout_ms)
        deadline_s = time.monotonic() + _READ_S
        while unread and (left_s := deadline_s - time.monotonic()) > 0:  # an empty topic is waited for to the end
            consumer.assign(unread)
            consumer.seek_to_beginning()
            unread -= consumer.poll(timeout_ms=left_s * 1_000).keys()


def _write_and_abort(wanted: KafkaSettings, topics: list[str]) -> None:
    """Prove WRITE on the topics and on the transactional ids; a reader of committed records sees nothing."""
    producer = KafkaProducer(**connection(wanted), transactional_id=f"{wanted.group_id}-check")
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        try:
            for sent in [producer.send(topic, key=b"check", value=b"") for topic in topics]:
                sent.get(timeout=_SEND_S)
        finally:
            producer.abort_transaction()
