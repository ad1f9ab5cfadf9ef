"""Kafka with mutual TLS: valid, wrong and expired certificates."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from callmood.__main__ import main

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def tls_kafka(guarded, certificates):
    """A broker that takes nothing but mutual TLS; its address."""
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "ours.crt"),
        "ssl.client.auth": "required",
    }
    with guarded("SSL", properties) as address:
        yield address


@pytest.fixture
def show(tls_kafka, certificates, monkeypatch):
    """`show(certificate, authority)` makes the environment that of a worker with this certificate."""

    def present(name, authority="ours"):
        changes = {
            "bootstrap_servers": tls_kafka,
            "security_protocol": "SSL",
            "ssl_ca_file": certificates / f"{authority}.crt",
            "request_timeout_ms": 4000,
        }
        if name:
            changes |= {"ssl_cert_file": certificates / f"{name}.crt", "ssl_key_file": certificates / f"{name}.key"}
        for key, value in changes.items():
            monkeypatch.setenv(f"CALLMOOD_KAFKA__{key.upper()}", str(value))

    return present


def test_with_a_valid_certificate_topics_are_created_and_found(show, capsys):
    """Mutual TLS with the right authority, certificate and key: topics are created and found."""
    show("worker")
    assert main(["topics", "--partitions", "1", "--replication-factor", "1"]) == 0
    assert main(["check", "kafka"]) == 0, capsys.readouterr().out


WRONG = {
    "another authority": ("worker", "others"),
    "expired": ("expired", "ours"),
    "unknown": ("unknown", "ours"),
    "no certificate": ("", "ours"),
}


@pytest.mark.parametrize("certificate_shown", WRONG)
def test_a_wrong_certificate_is_named_in_one_line(show, certificate_shown):
    """A wrong authority, an expired, an unknown and a missing certificate: one line each, and code 2."""
    show(*WRONG[certificate_shown])
    # A process of its own, as it is used: kafka-python leaves sockets of failed handshakes behind.
    done = subprocess.run(
        [sys.executable, "-m", "callmood", "check", "kafka"], capture_output=True, text=True, check=False
    )
    said = done.stdout
    assert done.returncode == 2, said
    assert said.count("\n") == 1
    assert "CALLMOOD_KAFKA__SSL_" in said
    assert re.search(r"\[SSL: \w*(CERTIFICATE|_CA)\w*\]", said), said


def test_a_missing_certificate_file_is_reported(show, capsys, monkeypatch):
    """A path that leads nowhere is an error with its variable, not a handshake that fails."""
    show("worker")
    monkeypatch.setenv("CALLMOOD_KAFKA__SSL_KEY_FILE", str(Path("nowhere.key")))
    assert main(["check", "kafka"]) == 2
    assert "CALLMOOD_KAFKA__SSL_KEY_FILE: file nowhere.key does not exist" in capsys.readouterr().out
