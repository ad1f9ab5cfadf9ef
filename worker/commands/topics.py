"""`callmood topics`: create the topics that a worker with these settings needs."""

import argparse
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.adapters.publish_kafka import MAX_RECORD_BYTES
from callmood.worker.settings import Settings

_COMPACTED: Final = {"cleanup.policy": "compact"}
STATE_CONFIG: Final = {
    **_COMPACTED,
    "segment.bytes": str(32 << 20),
    "max.message.bytes": str(MAX_RECORD_BYTES),
}
"""Kafka never compacts the newest segment, and a takeover reads all of a partition: 32 MB are read in a second."""
LARGEST_STATE_BYTES: Final = 1_000_000
"""About 700 kB: 64 open streams of 8 channels, as many that have stalled, and 64 attributes in 4-byte characters."""
LARGEST_SEGMENT_BYTES: Final = 256 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--partitions",
        type=int,
        required=True,
        help="partitions of the audio and output topics: at least the largest number of ingest processes you will run",
    )
    parser.add_argument("--replication-factor", type=int, default=-1, help="default: that of the brokers")
    parser.add_argument(
        "--retention-ms", type=int, help="retention of the audio topic, ms; the worker needs minutes, not days"
    )


def run(arguments: argparse.Namespace) -> int:
    """Create the topics that are missing; leave the others as they are."""
    configured = settings.load()
    single = (configured.kafka.dead_letter_topic, configured.kafka.erasure_topic)
    with (
        kafka_errors(configured.kafka),
        refusals_raised(),
        closing(KafkaAdminClient(**connection(configured.kafka))) as admin,
    ):
        for topic, options in (topics_of(configured) | _of_erasures(configured)).items():
            configs = dict(options)
            if topic == configured.kafka.audio_topic and arguments.retention_ms:
                configs["retention.ms"] = str(arguments.retention_ms)
            described = {
                "num_partitions": 1 if topic in single else arguments.partitions,
                "replication_factor": arguments.replication_factor,
                "configs": configs,
            }
            try:
                admin.create_topics({topic: described}, wait_for_metadata=True)
                print(f"{topic}: created")
            except TopicAlreadyExistsError:
                print(f"{topic}: exists")
    return 0


def topics_of(configured: Settings) -> dict[str, Mapping[str, str]]:
    """The topics that a worker with these settings needs, each with its configuration."""
    kafka = configured.kafka
    topics: dict[str, Mapping[str, str]] = {kafka.audio_topic: {}, kafka.dead_letter_topic: {}}
    if configured.worker.output != "redis":
        topics |= {kafka.utterance_topic: {}, kafka.alert_topic: {}}
        topics |= {kafka.call_topic: _COMPACTED, kafka.state_topic: STATE_CONFIG}
    return topics


def _of_erasures(configured: Settings) -> dict[str, Mapping[str, str]]:
    """The topic that `callmood erase` needs, and no worker; each call keeps its newest erasure for ever."""
    return {} if configured.worker.output == "redis" else {configured.kafka.erasure_topic: _COMPACTED}
