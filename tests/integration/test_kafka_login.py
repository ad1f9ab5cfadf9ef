"""A Kafka that asks who we are."""

import pytest
from kafka import KafkaAdminClient

pytestmark = pytest.mark.timeout(240)

_LOGIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
_USER = {"sasl_plain_username": "callmood", "sasl_plain_password": "right"}
_JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required"
    ' username="callmood" password="right" user_callmood="right";'
)


@pytest.fixture
def guarded_kafka(guarded):
    """A broker of this test's own that lets in one user; its address."""
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": _JAAS,
    }
    with guarded("SASL_PLAINTEXT", properties) as address:
        yield address


def test_a_worker_logs_in_or_says_why_not(pipeline, guarded_kafka):
    """With the right password a worker gets ready; with a wrong one it ends with one line and code 2."""
    with KafkaAdminClient(bootstrap_servers=guarded_kafka, **_LOGIN, **_USER) as admin:
        topics = {name: {"num_partitions": 1} for name in (pipeline.audio_topic, pipeline.dead_letter_topic)}
        admin.create_topics(topics, wait_for_metadata=True)
    login = {f"kafka__{name}": value for name, value in _LOGIN.items()} | {
        "kafka__bootstrap_servers": guarded_kafka,
        "kafka__sasl_username": "callmood",
    }
    right = pipeline.start_worker(**login, kafka__sasl_password="right")
    wrong = pipeline.start_worker(**login, kafka__sasl_password="wrong", kafka__request_timeout_ms="3000")
    assert wrong.exit_code(120) == 2
    (line,) = wrong.lines("cannot run")
    assert "CALLMOOD_KAFKA__SASL_" in line["error"]
    assert "Traceback" not in wrong.log
    right.wait_ready().stop()
    assert '"right"' not in right.log
