"""Losses are counted and logged."""

from structlog.testing import capture_logs
from telephony import Store, Worker

from callmood.worker import metrics
from callmood.worker.run.losses import report_restored


def test_states_that_cannot_be_read_are_counted_by_call():
    """An alert asks for the metric; the log names the partition, and no call."""
    before = metrics.STORE_LOST._value.get()
    with capture_logs() as logs:
        report_restored(Worker(Store(states={"call-1": b"junk", "call-2": b""})).partition)
    assert metrics.STORE_LOST._value.get() == before + 2
    assert [(line["event"], line["partition"], line["lost"]) for line in logs] == [
        ("stored states cannot be read; their calls start again", 0, 2)
    ]


def test_nothing_is_said_of_a_partition_that_is_restored_whole():
    """No alert for every takeover."""
    before = metrics.STORE_LOST._value.get()
    with capture_logs() as logs:
        report_restored(Worker().partition)
    assert (metrics.STORE_LOST._value.get(), logs) == (before, [])
