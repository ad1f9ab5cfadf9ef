"""`callmood topics`: create the topics that a worker with these settings needs."""

import argparse
import sys
from contextlib import closing

from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, refusals_raised
from callmood.worker.commands.preflight import topics_of
from callmood.worker.errors import CallmoodError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--partitions", type=int, required=True, help="of the audio topic: as many as you may ever run workers"
    )
    parser.add_argument("--replication-factor", type=int, default=-1, help="default: the brokers'")
    parser.add_argument("--retention-ms", type=int, help="of the audio topic; it needs minutes, not days")


def run(arguments: argparse.Namespace) -> int:
    """Create what is missing; what exists stays as it is."""
    try:
        configured = settings.load()
        with (
            kafka_errors(configured),
            refusals_raised(),
            closing(KafkaAdminClient(**connection(configured.kafka))) as admin,
        ):
            for topic, options in topics_of(configured).items():
                is_letters = topic == configured.kafka.dead_letter_topic
                configs = dict(options)
                if topic == configured.kafka.audio_topic and arguments.retention_ms:
                    configs["retention.ms"] = str(arguments.retention_ms)
                described = {
                    "num_partitions": 1 if is_letters else arguments.partitions,
                    "replication_factor": arguments.replication_factor,
                    "configs": configs,
                }
                try:
                    admin.create_topics({topic: described}, wait_for_metadata=True)
                    print(f"{topic}: created")
                except TopicAlreadyExistsError:
                    print(f"{topic}: is there")
    except CallmoodError as error:
        print(f"callmood: {error}", file=sys.stderr)
        return 2
    return 0
