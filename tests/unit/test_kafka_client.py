"""Exceptions of kafka-python, translated to errors that say what to do."""

import ssl

import pytest
from kafka import TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    InvalidTopicError,
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)

from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic, until_now
from callmood.worker.errors import ConfigurationError, KafkaUnavailable
from callmood.worker.server_settings import KafkaSettings


def after(error, cause):
    """An error that was raised while another one was handled."""
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SaslAuthenticationFailedError("no"), "SASL"),
        (KafkaError("transaction failed", TopicAuthorizationFailedError("results")), "callmood acls"),
        (KafkaConnectionError(ssl.SSLError("bad certificate")), "SSL_"),
        (after(KafkaConnectionError("Handshake failed"), ssl.SSLCertVerificationError("unknown")), "SSL_"),
    ],
    ids=["login", "a right", "an alert", "a handshake"],
)
def test_a_refusal_is_a_mistake_in_the_settings(error, says):
    """Whatever it is wrapped in, a refused login, right or certificate names the settings to look at."""
    with pytest.raises(ConfigurationError, match=says), kafka_errors(KafkaSettings()):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError("gone"),
        KafkaConnectionError(ssl.SSLEOFError("EOF")),
        KafkaConnectionError(OSError("reset")),
    ],
    ids=["gone", "gone within tls", "reset"],
)
def test_a_broker_that_is_gone_refuses_nobody(error):
    """A lost connection, also one that was encrypted, is to be tried again."""
    with pytest.raises(KafkaUnavailable), kafka_errors(KafkaSettings()):
        raise error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KafkaConfigurationError("request_timeout_ms"), "CALLMOOD_KAFKA__ settings"),
        (InvalidSessionTimeoutError(), "CALLMOOD_KAFKA__SESSION_TIMEOUT_MS"),
        (InconsistentGroupProtocolError(), "CALLMOOD_KAFKA__ASSIGNOR"),
        (FencedInstanceIdError(), "CALLMOOD_WORKER__NAME"),
        (UnsupportedCodecError("snappy"), "all its dependencies"),
        (InvalidTopicError("a b"), "_TOPIC"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_restart_does_not_help_says_what_to_change(error, says):
    """Settings that the client or the brokers refuse are mistakes in the settings, not an outage."""
    with pytest.raises(ConfigurationError, match=says), kafka_errors(KafkaSettings()):
        raise error


def test_spaces_in_the_list_of_brokers_do_no_harm():
    """A list with spaces after its commas, or a comma too many, names the same brokers."""
    options = connection(KafkaSettings(bootstrap_servers="kafka-1:9092, kafka-2:9092,"))
    assert options["bootstrap_servers"] == ["kafka-1:9092", "kafka-2:9092"]


def test_a_missing_topic_names_its_setting():
    """The message has the topic, the brokers and the variable that names the topic."""
    error = missing_topic("callmood.states", KafkaSettings())
    assert "'callmood.states' does not exist on 127.0.0.1:9092" in str(error)
    assert "CALLMOOD_KAFKA__STATE_TOPIC" in str(error)


@pytest.mark.parametrize(
    "servers",
    [
        "kafka:abc",
        "kafka:70000",
        "kafka:0",
        "a:9092;b:9092",
        "a:9092 b:9092",
        "kafka:9092/",
        "user@kafka:9092",
        "kafka:9092?x",
        "kafka:",
        ":9092",
        "",
        " , ",
    ],
)
def test_an_address_that_is_none_names_its_setting(servers):
    """A restart does not help, and the client would answer with an error of its own, or time out."""
    with pytest.raises(ConfigurationError, match="CALLMOOD_KAFKA__BOOTSTRAP_SERVERS: "):
        connection(KafkaSettings(bootstrap_servers=servers))


@pytest.mark.parametrize("server", ["kafka", "kafka:9092", "kafka://kafka:9092", "[::1]:9092", "::1", "10.0.0.7:9092"])
def test_every_form_of_an_address_is_taken(server):
    """With and without a port or a scheme."""
    assert connection(KafkaSettings(bootstrap_servers=server))["bootstrap_servers"] == [server]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u"}, "SASL_PASSWORD_FILE"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_password": "p"}, "SASL_USERNAME"),
        ({"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}, "SECURITY_PROTOCOL=SASL_SSL"),
        ({"security_protocol": "SSL", "sasl_password_file": "p"}, "SECURITY_PROTOCOL=SASL_SSL"),
        ({"ssl_ca_file": "pyproject.toml"}, "SECURITY_PROTOCOL=SSL"),
        ({"ssl_cert_file": "pyproject.toml"}, "SECURITY_PROTOCOL=SSL"),
        ({"ssl_key_file": "pyproject.toml"}, "SECURITY_PROTOCOL=SSL"),
        (
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_username": "u",
                "sasl_password": "p",
                "ssl_ca_file": "pyproject.toml",
            },
            "SECURITY_PROTOCOL=SSL or SASL_SSL",
        ),
    ],
)
def test_half_a_login_names_what_is_missing(named, says):
    """A user name without a password, or a login or certificates that the protocol does not use: not a timeout."""
    with pytest.raises(ConfigurationError, match=says):
        connection(KafkaSettings(**named))


def test_a_token_needs_no_user():
    """Of the ways to log in, only OAUTHBEARER has neither user name nor password."""
    named = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_token_file": "pyproject.toml"}
    assert "sasl_oauth_token_provider" in connection(KafkaSettings(**named))


class _Consumer:
    """Two partitions; `polls` are those that move, poll by poll, partition 0 without records; then nothing moves."""

    def __init__(self, polls, end=3):
        self.end = end
        self.at = {TopicPartition("calls", number): 0 for number in (0, 1)}
        self.polls = list(polls)

    def assignment(self):
        return set(self.at)

    def end_offsets(self, sources):
        return dict.fromkeys(sources, self.end)

    def position(self, source, timeout_ms):
        assert timeout_ms
        return self.at[source]

    def poll(self, timeout_ms):
        assert timeout_ms
        source = TopicPartition("calls", self.polls.pop(0)) if self.polls else None
        if source is None or self.at[source] is None:
            return {}
        self.at[source] += 1
        return {source: [(source.partition, self.at[source])]} if source.partition else {}


def test_records_are_read_up_to_the_present_end():
    """Also past many polls in which a partition moves without records, as after an aborted transaction."""
    consumer = _Consumer([*[0] * 30, *[1] * 30], end=30)
    assert list(until_now(consumer)) == [(1, number) for number in range(1, 31)]


@pytest.mark.parametrize("position", [None, 2])
def test_a_partition_that_does_not_answer_ends_the_reading(position):
    """A partition without a leader, or with an open transaction, is named; the records of the other one are read."""
    consumer = _Consumer([1, 1, 1])
    consumer.at[TopicPartition("calls", 0)] = position
    reading = until_now(consumer)
    assert [next(reading) for _ in range(3)] == [(1, 1), (1, 2), (1, 3)]
    with pytest.raises(KafkaUnavailable, match=r"from calls 0 \(topic, partition\).*no leader"):
        next(reading)
