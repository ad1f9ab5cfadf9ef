"""The one place where an ingest loop is wired to the outside."""

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

from kafka.errors import AuthorizationError, KafkaError, SaslAuthenticationFailedError

from worker import alert, vad
from worker.consume import AudioConsumer
from worker.dead_letters import DeadLetterTopic
from worker.errors import ConfigurationError, KafkaUnavailable
from worker.ingest import Inference, Ingest, Outside
from worker.project import Projector
from worker.publish import RedisStore, Store
from worker.publish_kafka import open_kafka_store
from worker.redis_client import connect_redis
from worker.settings import AlertSettings, Settings

_LOST = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # a broker that is gone refuses nobody


def alert_rules(settings: AlertSettings) -> tuple[alert.Rule, ...]:
    """The rules of the file, or the default ones without a file.

    Raises:
        ConfigurationError: the file cannot be read or holds something else.
    """
    if settings.rules_file is None:
        return alert.DEFAULT_RULES
    try:
        return alert.parse_rules(settings.rules_file.read_text())
    except OSError as error:
        raise ConfigurationError(f"alert rules: {error}") from error


@contextmanager
def open_projector(settings: Settings, name: str) -> Iterator[Projector]:
    """The loop from the output topics to Redis, connected.

    Raises:
        ConfigurationError: a topic is missing, or Kafka refuses the credentials.
        KafkaUnavailable: no broker answers.
    """
    with ExitStack() as stack, kafka_errors(settings):
        client = connect_redis(settings.redis)
        stack.callback(client.close)
        with refusals_raised():
            dead_letters = DeadLetterTopic(settings.kafka, version("callmood"))
        stack.callback(dead_letters.close)
        consumer = AudioConsumer(settings.kafka, client_id=_slot(settings, name), outputs=True)
        stack.callback(consumer.close)
        yield Projector(
            consumer, RedisStore(client, settings.redis, _owner(settings, name)), dead_letters, settings.kafka
        )


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """What kafka-python raises, as the errors that say what to do."""
    try:
        yield
    except (KafkaError, ssl.SSLError) as error:
        refusal = _refusal(error)
        if isinstance(refusal, ssl.SSLError):
            told = f"no TLS with Kafka: {refusal}. Check the CALLMOOD_KAFKA__SSL_ settings and the certificates' dates"
            raise ConfigurationError(told) from error
        if refusal is not None:
            told = f"Kafka refuses us: {refusal}. Check the CALLMOOD_KAFKA__SASL_ settings, and `callmood acls`"
            raise ConfigurationError(told) from error
        raise KafkaUnavailable(f"Kafka at {settings.kafka.bootstrap_servers}: {error}") from error


def _refusal(error: BaseException | None) -> BaseException | None:
    """The refusal that an error is, or comes from: a lost connection holds it among its arguments."""
    if isinstance(error, _LOST):
        return None
    if error is None or isinstance(error, SaslAuthenticationFailedError | AuthorizationError | ssl.SSLError):
        return error
    causes = [argument for argument in error.args if isinstance(argument, BaseException)]
    causes += [cause for cause in (error.__cause__ or error.__context__,) if cause is not None]
    return next((found for cause in causes if (found := _refusal(cause)) is not None), None)


class _Refusals(logging.Handler):
    """Notes a refused login or handshake in what kafka-python logs."""

    newest: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, BaseException) and (refusal := _refusal(value)) is not None:
                self.newest = refusal


@contextmanager
def refusals_raised() -> Iterator[None]:
    """kafka-python 3.0.12 only logs a refusal, tries again, and ends in a timeout that does not say why."""
    refusals, logger = _Refusals(), logging.getLogger("kafka.net")
    logger.addHandler(refusals)
    try:
        yield
    except KafkaError as error:
        if refusals.newest is None or _refusal(error) is not None:
            raise
        raise refusals.newest from None
    finally:
        logger.removeHandler(refusals)


def _slot(settings: Settings, name: str) -> str:
    """This process's place in the group: the same after a restart, and no other's."""
    return f"{settings.worker.name or os.uname().nodename}-{name}"


def _owner(settings: Settings, name: str) -> str:
    return f"{settings.worker.name or os.uname().nodename}/{name}/{os.getpid()}"


def _open_store(settings: Settings, name: str, consumer: AudioConsumer, stack: ExitStack) -> Store:
    if settings.worker.output != "redis":
        # two nameless workers on one host must not put each other out
        slot = _slot(settings, name) if settings.worker.name else f"{_slot(settings, name)}-{os.getppid()}"
        in_kafka = open_kafka_store(consumer, settings.kafka, slot)
        stack.callback(in_kafka.close)
        return in_kafka
    client = connect_redis(settings.redis)
    stack.callback(client.close)
    return RedisStore(client, settings.redis, _owner(settings, name))


@contextmanager
def open_ingest(settings: Settings, name: str, inference: Inference) -> Iterator[Ingest]:
    """The loop, connected; closed in reverse order, leaving the group last of all.

    Raises:
        ConfigurationError: a topic is missing, or Kafka refuses the credentials.
        KafkaUnavailable: no broker answers.
    """
    if not vad.self_test():
        raise ConfigurationError("the WebRTC VAD cannot be snapshotted here: install webrtcvad-wheels as pinned")
    rules = alert_rules(settings.alert)
    with ExitStack() as stack, kafka_errors(settings):
        with refusals_raised():
            dead_letters = DeadLetterTopic(settings.kafka, version("callmood"))
        stack.callback(dead_letters.close)
        consumer = AudioConsumer(settings.kafka, client_id=_slot(settings, name))
        stack.callback(consumer.close)
        store = _open_store(settings, name, consumer, stack)
        yield Ingest(Outside(consumer, store, inference, dead_letters), settings, rules)
