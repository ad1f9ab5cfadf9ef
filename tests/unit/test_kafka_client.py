"""What kafka-python raises, as the errors that say what to do."""

import socket
import ssl

import pytest
from kafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailedError, TopicAuthorizationFailedError
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from callmood.worker.adapters.kafka_client import kafka_errors
from callmood.worker.errors import ConfigurationError, KafkaUnavailable
from callmood.worker.settings import Settings


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
    with pytest.raises(ConfigurationError, match=says), kafka_errors(Settings()):
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
    with pytest.raises(KafkaUnavailable), kafka_errors(Settings()):
        raise error


@pytest.mark.parametrize("transport", [KafkaTCPTransport, KafkaSSLTransport])
def test_the_last_word_before_the_end_is_heard(transport):
    """A broker that says why and hangs up is heard first, and then known to be gone."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reader = transport.__new__(transport)
        KafkaTCPTransport.__init__(reader, None, ours)
        theirs.sendall(b"refused")
        assert reader._sock_recv() == (b"refused", None)
        theirs.sendall(b"refused again")
        theirs.close()
        assert reader._sock_recv() == (b"refused again", None)
        data, error = reader._sock_recv()
        assert data == b""
        assert isinstance(error, KafkaConnectionError)
