"""The verifier's reader of Kafka outputs."""

import pytest
from kafka import KafkaProducer

from tests.chaos import look

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("time_s", "hangs"), [(3, False), (120, True)])
def test_a_transaction_that_is_given_up_does_not_hang(real_kafka, topic, time_s, hangs):
    """Left open by a process that is gone, it is over after its time; one that stays open is seen."""
    name = topic()
    producer = KafkaProducer(
        bootstrap_servers=real_kafka.bootstrap_servers,
        transactional_id=f"{name}-worker",
        transaction_timeout_ms=time_s * 1000,
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(name, b"never committed").get(timeout=10)
    found = look.transactions(real_kafka.bootstrap_servers, name)
    producer.close(timeout=0)
    assert list(found) == [f"{name}-worker"]
    assert (found[f"{name}-worker"] in look.OPEN) == hangs
