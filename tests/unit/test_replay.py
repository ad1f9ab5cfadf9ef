"""Several recordings at the same time, in the order in which they would come live."""

import numpy as np

from callmood.schemas.common import Role
from callmood.worker.commands.recordings import Recording, Shape
from callmood.worker.commands.replay import Call, _interleaved


def call(call_id, duration_ms, chunk_ms):
    pcm = np.zeros((duration_ms * 8, 1), np.int16)
    shape = Shape(chunk_ms=chunk_ms)
    return Call(call_id, Recording(None, len(pcm), (Role.CUSTOMER,), shape, lambda: [pcm]))


def test_records_of_all_calls_are_sent_when_they_are_due():
    """The calls are interleaved by time, and each call's own records stay in order."""
    sent = list(_interleaved([call("a", 1_000, 200), call("b", 900, 300)]))
    due_ms = [item.due_ms for _, item in sent]
    assert due_ms == sorted(due_ms)
    assert [name for name, _ in sent] == ["a", "b", "a", "b", "a", "a", "b", "a", "b", "b", "a", "a"]
    for name in ("a", "b"):
        numbers = [int(dict(item.headers)["seq"]) for owner, item in sent if owner == name]
        assert numbers == list(range(len(numbers)))
