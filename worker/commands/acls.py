"""`callmood acls`: the minimal ACLs of a worker or of `callmood erase` with these settings, printed or set."""

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.settings import Settings

_OPTIONS = {
    ResourceType.TOPIC: "--topic",
    ResourceType.GROUP: "--group",
    ResourceType.TRANSACTIONAL_ID: "--transactional-id",
}
Needed = tuple[ResourceType, str, ACLOperation]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("principal", help="a Kafka principal, for example User:callmood")
    parser.add_argument("--erase", action="store_true", help="for a user of `callmood erase`; default: for a worker")
    parser.add_argument(
        "--apply", action="store_true", help="set the ACLs, as the user in the settings; default: only print them"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the ACLs as commands of `kafka-acls.sh`; with --apply, set them first."""
    configured = settings.load()
    rights = list((needed_to_erase if arguments.erase else needed)(configured))
    if arguments.apply:
        with (
            kafka_errors(configured.kafka),
            refusals_raised(),
            closing(KafkaAdminClient(**connection(configured.kafka))) as admin,
        ):
            admin.create_acls([_acl(arguments.principal, one) for one in rights])
    for one in rights:
        print(_line(arguments.principal, one))
    return 0


def needed(configured: Settings) -> Iterator[Needed]:
    """Each operation that a worker needs, and no other. READ and WRITE imply DESCRIBE."""
    kafka, read, write = configured.kafka, ACLOperation.READ, ACLOperation.WRITE
    topic, group = ResourceType.TOPIC, ResourceType.GROUP
    yield topic, kafka.audio_topic, read
    yield topic, kafka.dead_letter_topic, write
    yield group, kafka.group_id, read
    if configured.worker.output == "redis":
        return
    for name in (kafka.utterance_topic, kafka.call_topic, kafka.alert_topic, kafka.state_topic):
        yield topic, name, write
    yield topic, kafka.state_topic, read
    yield ResourceType.TRANSACTIONAL_ID, f"{kafka.group_id}-", write
    if configured.worker.output == "both":
        for name in (kafka.utterance_topic, kafka.call_topic, kafka.alert_topic):
            yield topic, name, read
        yield group, f"{kafka.group_id}-projector", read


def needed_to_erase(configured: Settings) -> Iterator[Needed]:
    """Each operation that `callmood erase` needs, and no other: it counts a call's records in all topics."""
    kafka, read, write = configured.kafka, ACLOperation.READ, ACLOperation.WRITE
    yield ResourceType.TOPIC, kafka.audio_topic, read
    yield ResourceType.TOPIC, kafka.dead_letter_topic, read
    if configured.worker.output == "redis":
        return
    for name in (kafka.utterance_topic, kafka.call_topic, kafka.alert_topic, kafka.state_topic):
        yield ResourceType.TOPIC, name, read
    for name in (kafka.call_topic, kafka.erasure_topic):
        yield ResourceType.TOPIC, name, write


def _pattern(kind: ResourceType) -> ACLResourcePatternType:
    """Prefixed for transactional ids, which end in the name of the worker."""
    is_prefix = kind is ResourceType.TRANSACTIONAL_ID
    return ACLResourcePatternType.PREFIXED if is_prefix else ACLResourcePatternType.LITERAL


def _acl(principal: str, one: Needed) -> Any:
    kind, name, operation = one
    pattern = ResourcePattern(kind, name, _pattern(kind))
    return ACL(principal, "*", operation, ACLPermissionType.ALLOW, pattern)


def _line(principal: str, one: Needed) -> str:
    kind, name, operation = one
    prefixed = " --resource-pattern-type prefixed" if _pattern(kind) is ACLResourcePatternType.PREFIXED else ""
    what = f"{_OPTIONS[kind]} {name}{prefixed}"
    return f"kafka-acls.sh --add --allow-principal {principal} --operation {operation.name.title()} {what}"
