"""Several recordings at the same time, in the order in which they would come live."""

from types import SimpleNamespace

import numpy as np
import pytest
from rich.progress import Progress

from callmood.schemas.common import Role
from callmood.worker.commands import replay
from callmood.worker.commands.recordings import Recording, Shape
from callmood.worker.commands.replay import Call, _interleaved
from callmood.worker.server_settings import KafkaSettings


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


def test_a_wall_clock_that_is_set_meanwhile_delays_nothing(monkeypatch):
    """What is due goes by the monotonic clock; capture times stay those of the start."""
    sent, slept_s, walls = [], [], iter([10_000.0])
    producer = SimpleNamespace(
        partitions_for=lambda _: {0},
        send=lambda *_, **fields: sent.append(fields) or SimpleNamespace(get=lambda **_: None),
        flush=lambda **_: None,
        close=lambda **_: None,
    )
    clock = SimpleNamespace(time=lambda: next(walls, 0.0), monotonic=lambda: sum(slept_s), sleep=slept_s.append)
    monkeypatch.setattr(replay, "KafkaProducer", lambda **_: producer)
    monkeypatch.setattr(replay, "time", clock)
    replay.send([call("a", 1_000, 200)], KafkaSettings(), speed=1.0, progress=Progress(disable=True))
    assert sum(slept_s) == pytest.approx(1.0)
    assert [fields["timestamp_ms"] - 10_000_000 for fields in sent] == [0, 0, 200, 400, 600, 800, 1_000]
