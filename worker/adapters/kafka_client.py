"""Builds Kafka clients from the settings, and translates their errors."""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from kafka.errors import (
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    InvalidTopicError,
    KafkaConfigurationError,
    KafkaError,
    UnsupportedCodecError,
    UnsupportedVersionError,
)
from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.adapters.kafka_workarounds import refusal_in
from callmood.worker.adapters.secret_file import SecretFile, require_file
from callmood.worker.errors import ConfigurationError, KafkaUnavailable
from callmood.worker.server_settings import KafkaSettings

_POLL_MS = 500
_QUIET_POLLS = 20


class _Reread:
    """Reads the password at each login; kafka-python alone would keep the first one."""

    def __init__(self, **config: Any) -> None:
        password = config["sasl_plain_password"]
        super().__init__(
            **config | {"sasl_plain_password": password.read() if isinstance(password, SecretFile) else password}
        )


class _Plain(_Reread, SaslMechanismPlain):  # type: ignore[misc]  # kafka-python has no types
    pass


class _Scram(_Reread, SaslMechanismScram):  # type: ignore[misc]  # as above
    pass


class _Token(AbstractTokenProvider):  # type: ignore[misc]  # as above
    def __init__(self, file: SecretFile) -> None:
        self._file = file

    def token(self) -> str:
        return self._file.read()


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """The client arguments for the address and the login.

    Clients read certificates, passwords and tokens again for every connection, so files may be replaced.

    Raises:
        ConfigurationError: a file is missing, empty or unreadable, a broker's address is none, or half a login is set.
    """
    kafka_workarounds.install()
    _refuse_half_a_login(settings)
    for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
        path = getattr(settings, name)
        if path is not None:
            require_file(f"CALLMOOD_KAFKA__{name.upper()}", path)
    return {
        "bootstrap_servers": _brokers(settings.bootstrap_servers),
        "security_protocol": settings.security_protocol,
        **_login(settings),
        "ssl_cafile": str(settings.ssl_ca_file) if settings.ssl_ca_file else None,
        "ssl_certfile": str(settings.ssl_cert_file) if settings.ssl_cert_file else None,
        "ssl_keyfile": str(settings.ssl_key_file) if settings.ssl_key_file else None,
        "request_timeout_ms": settings.request_timeout_ms,
        "bootstrap_timeout_ms": settings.request_timeout_ms * 2,
    }


def _brokers(servers: str) -> list[str]:
    brokers = [server.strip() for server in servers.split(",") if server.strip()]
    wrong = [broker for broker in brokers if not _is_address(broker)]
    if wrong or not brokers:
        told = f"{wrong[0]!r} is no host:port" if wrong else "no broker is named"
        raise ConfigurationError(f"CALLMOOD_KAFKA__BOOTSTRAP_SERVERS: {told}")
    return brokers


def _is_address(broker: str) -> bool:
    """Whether it is host:port, perhaps after a scheme, or an IPv6 address."""
    address = broker.rpartition("://")[2]
    with suppress(ValueError):
        return bool(IPv6Address(address))
    try:
        parts = urlsplit(f"//{address}")
        is_whole = bool(parts.hostname) and parts.port != 0 and not address.endswith(":")
        return is_whole and not re.search(r"[\s;/?#@]", address)
    except ValueError:
        return False


def until_now(consumer: Any) -> Iterator[Any]:
    """The records of a consumer's partitions up to their present ends; of each partition in order.

    Raises:
        KafkaUnavailable: a partition is not at its end, and nothing has arrived in twenty polls.
    """
    ends = consumer.end_offsets(consumer.assignment())
    before: dict[Any, int | None] = {}
    quiet_polls = 0
    while unread := _unread(consumer, ends):
        quiet_polls = quiet_polls + 1 if unread == before else 0
        if quiet_polls > _QUIET_POLLS:
            names = ", ".join(f"{source.topic} {source.partition}" for source in sorted(unread))
            raise KafkaUnavailable(
                f"no more records arrive from {names} (topic, partition): a partition may have no leader, or a "
                "transaction may be open. Try again later"
            )
        before = unread
        for records in consumer.poll(timeout_ms=_POLL_MS).values():
            yield from records


def _unread(consumer: Any, ends: Mapping[Any, int]) -> dict[Any, int | None]:
    """Positions of the partitions that are not at their ends; None: the broker does not say where to begin."""
    positions = {source: consumer.position(source, timeout_ms=_POLL_MS) for source in ends}
    return {source: at for source, at in positions.items() if at is None or at < ends[source]}


def missing_topic(topic: str, settings: KafkaSettings) -> ConfigurationError:
    """The error for a topic that Kafka does not have, or does not show to this user."""
    names = [
        name for name in KafkaSettings.model_fields if name.endswith("_topic") and getattr(settings, name) == topic
    ]
    variables = " or ".join(f"CALLMOOD_KAFKA__{name.upper()}" for name in names)
    return ConfigurationError(
        f"topic {topic!r} does not exist on {settings.bootstrap_servers}, or this user is not allowed to see it: "
        f"create it with `callmood topics`, see `callmood acls`, or set {variables}"
    )


def other_count(topic: str, found: int, wanted: int, settings: KafkaSettings) -> ConfigurationError:
    """The error for an output topic with another number of partitions than the audio topic.

    Results of audio partition N go to output partition N.
    """
    return ConfigurationError(
        f"topic {topic!r} has {found} partitions and {settings.audio_topic!r} has {wanted}: they must have the same "
        "number of partitions"
    )


def _refuse_half_a_login(settings: KafkaSettings) -> None:
    """Brokers answer such a client with silence or an end of the connection, which says nothing."""
    protocol, prefix = settings.security_protocol, "CALLMOOD_KAFKA__"
    has_password = settings.sasl_password is not None or settings.sasl_password_file is not None
    if protocol.startswith("SASL"):
        if settings.sasl_mechanism != "OAUTHBEARER" and not (settings.sasl_username and has_password):
            raise ConfigurationError(
                f"{prefix}SASL_MECHANISM={settings.sasl_mechanism} needs {prefix}SASL_USERNAME, and "
                f"{prefix}SASL_PASSWORD or {prefix}SASL_PASSWORD_FILE"
            )
    elif settings.sasl_mechanism or settings.sasl_username or has_password:
        raise ConfigurationError(
            f"a {prefix}SASL_ setting needs {prefix}SECURITY_PROTOCOL=SASL_SSL or SASL_PLAINTEXT; it is {protocol}"
        )
    if not protocol.endswith("SSL") and (settings.ssl_ca_file or settings.ssl_cert_file or settings.ssl_key_file):
        raise ConfigurationError(
            f"a {prefix}SSL_ setting needs {prefix}SECURITY_PROTOCOL=SSL or SASL_SSL; it is {protocol}"
        )


def _login(settings: KafkaSettings) -> dict[str, Any]:
    login: dict[str, Any] = {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }
    if settings.sasl_password_file is not None:
        for name, mechanism in (("PLAIN", _Plain), ("SCRAM-SHA-256", _Scram), ("SCRAM-SHA-512", _Scram)):
            register_sasl_mechanism(name, mechanism, overwrite=True)
        login["sasl_plain_password"] = SecretFile("CALLMOOD_KAFKA__SASL_PASSWORD_FILE", settings.sasl_password_file)
    if settings.sasl_token_file is not None:
        token = SecretFile("CALLMOOD_KAFKA__SASL_TOKEN_FILE", settings.sasl_token_file)
        login["sasl_oauth_token_provider"] = _Token(token)
    return login


_ADVICE: Mapping[type[KafkaError], str] = {
    InvalidSessionTimeoutError: "Set CALLMOOD_KAFKA__SESSION_TIMEOUT_MS between group.min.session.timeout.ms and "
    "group.max.session.timeout.ms of the brokers",
    InconsistentGroupProtocolError: "Other members of the group share partitions in another way: set the same "
    "CALLMOOD_KAFKA__ASSIGNOR for all workers, or another CALLMOOD_KAFKA__GROUP_ID",
    FencedInstanceIdError: "Another worker has the same name: set CALLMOOD_WORKER__NAME, or "
    "CALLMOOD_KAFKA__MEMBERSHIP=dynamic",
    UnsupportedCodecError: "A producer compresses with a codec that this installation cannot read: install callmood "
    "with all its dependencies",
    InvalidTopicError: "A topic's name is not allowed: check the CALLMOOD_KAFKA__ …_TOPIC settings",
    InvalidGroupIdError: "Set CALLMOOD_KAFKA__GROUP_ID",
    UnsupportedVersionError: "The brokers are too old: use Kafka 2.5 or newer",
    KafkaConfigurationError: "Check the CALLMOOD_KAFKA__ settings",
}
_WRONG_SETTINGS = tuple(_ADVICE)


def _advice(error: KafkaError) -> str:
    return next(text for kind, text in _ADVICE.items() if isinstance(error, kind))


@contextmanager
def kafka_errors(settings: KafkaSettings) -> Iterator[None]:
    """Turn errors of kafka-python into errors that say what to do."""
    try:
        yield
    except (KafkaError, ssl.SSLError) as error:
        refusal = refusal_in(error)
        if isinstance(refusal, ssl.SSLError):
            told = (
                f"TLS with Kafka failed: {refusal}. Check the CALLMOOD_KAFKA__SSL_ settings and the certificates' dates"
            )
            raise ConfigurationError(told) from error
        if isinstance(error, _WRONG_SETTINGS):
            raise ConfigurationError(f"Kafka: {error}. {_advice(error)}") from error
        if refusal is not None:
            told = f"Kafka refuses this user: {refusal}. Check the CALLMOOD_KAFKA__SASL_ settings, and `callmood acls`"
            raise ConfigurationError(told) from error
        told = (
            f"Kafka at {settings.bootstrap_servers} does not answer: {error}. Check "
            "CALLMOOD_KAFKA__BOOTSTRAP_SERVERS and CALLMOOD_KAFKA__SECURITY_PROTOCOL"
        )
        raise KafkaUnavailable(told) from error
