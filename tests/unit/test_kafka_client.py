"""What kafka-python raises, as the errors that say what to do."""

import ssl

import pytest
from kafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailedError, TopicAuthorizationFailedError

from callmood.worker.adapters.kafka_client import kafka_errors
from callmood.worker.errors import ConfigurationError, KafkaUnavailable
from callmood.worker.settings import KafkaSettings


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
