"""Connects the loops to Kafka, Redis and the model."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.dead_letters import DeadLetterTopic
from callmood.worker.adapters.kafka_client import kafka_errors
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.adapters.publish_kafka import open_kafka_store
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.redis_client import connect_redis, refuse_eviction
from callmood.worker.adapters.store import Store
from callmood.worker.call.rule import DEFAULT_RULES, Rule, parse_rules
from callmood.worker.errors import ConfigurationError, StoreUnavailable
from callmood.worker.run.ingest import Ingest
from callmood.worker.run.outside import Inference, Outside
from callmood.worker.run.projector import Projector
from callmood.worker.settings import AlertSettings, Settings
from callmood.worker.speech import vad

_START_TIME = 19
"""Index of the start time in what /proc/PID/stat holds after the name; see proc_pid_stat(5)."""


def alert_rules(settings: AlertSettings) -> tuple[Rule, ...]:
    """The rules of the file, or the default ones without a file.

    Raises:
        ConfigurationError: the file cannot be read or holds something else.
    """
    if settings.rules_file is None:
        return DEFAULT_RULES
    try:
        return parse_rules(settings.rules_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"alert rules: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"alert rules: {settings.rules_file} is not UTF-8") from error


def _open_redis(settings: Settings, stack: ExitStack) -> Any:
    """A client that is closed with the stack; a Redis that is not there yet is waited for later, by the loop."""
    client = connect_redis(settings.redis)
    stack.callback(client.close)
    with suppress(StoreUnavailable):
        refuse_eviction(client)
    return client


@contextmanager
def open_projector(settings: Settings, name: str) -> Iterator[Projector]:
    """The loop from the output topics to Redis, connected.

    Raises:
        ConfigurationError: a topic is missing, or Kafka refuses the credentials.
        KafkaUnavailable: no broker answers.
    """
    with ExitStack() as stack, kafka_errors(settings.kafka):
        client = _open_redis(settings, stack)
        with refusals_raised():
            dead_letters = DeadLetterTopic(settings.kafka, version("callmood"))
        stack.callback(dead_letters.close)
        consumer = AudioConsumer(settings.kafka, client_id=_slot(settings, name), outputs=True)
        stack.callback(consumer.close)
        yield Projector(
            consumer,
            RedisStore(client, settings.redis, _owner(settings, name), consumer.origin),
            dead_letters,
            settings.kafka,
        )


def _slot(settings: Settings, name: str) -> str:
    """This process's place in the group: the same after a restart, and different from every other process's."""
    return f"{settings.worker.name or os.uname().nodename}-{name}"


def _owner(settings: Settings, name: str) -> str:
    return f"{settings.worker.name or os.uname().nodename}/{name}/{os.getpid()}"


def supervisor_id() -> str:
    """A name for the process that started this one, which no other process on any machine has.

    Two workers without a name must not fence each other. In containers, host name and process id are often the same;
    the boot of the machine, the namespace of process ids, and the time of the start are not.
    """
    parent = os.getppid()
    facts = [str(parent)]
    with suppress(OSError, IndexError):  # only Linux has these
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
        facts.append(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[_START_TIME])
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()[:12]


def _open_store(settings: Settings, name: str, consumer: AudioConsumer, stack: ExitStack) -> Store:
    if settings.worker.output != "redis":
        slot = _slot(settings, name) if settings.worker.name else f"{_slot(settings, name)}-{supervisor_id()}"
        in_kafka = open_kafka_store(consumer, settings.kafka, slot)
        stack.callback(in_kafka.close)
        return in_kafka
    client = _open_redis(settings, stack)
    return RedisStore(client, settings.redis, _owner(settings, name), consumer.origin)


@contextmanager
def open_ingest(settings: Settings, name: str, inference: Inference) -> Iterator[Ingest]:
    """The loop, connected; closed in reverse order, leaving the group last of all.

    Raises:
        ConfigurationError: a topic is missing, or Kafka refuses the credentials.
        KafkaUnavailable: no broker answers.
    """
    if not vad.self_test():
        raise ConfigurationError(
            "the state of the WebRTC VAD cannot be saved here: install the version of webrtcvad-wheels that callmood "
            "requires"
        )
    rules = alert_rules(settings.alert)
    with ExitStack() as stack, kafka_errors(settings.kafka):
        with refusals_raised():
            dead_letters = DeadLetterTopic(settings.kafka, version("callmood"))
        stack.callback(dead_letters.close)
        consumer = AudioConsumer(settings.kafka, client_id=_slot(settings, name))
        stack.callback(consumer.close)
        store = _open_store(settings, name, consumer, stack)
        yield Ingest(Outside(consumer, store, inference, dead_letters), settings, rules)
