"""The sender of the benchmarks: records in real time, and the end of the calls."""

from types import SimpleNamespace

import pytest

from callmood.bench import sender
from callmood.bench.ingest import Load
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings


def test_records_are_sent_in_real_time_when_they_are_complete(monkeypatch):
    """Each record of 200 ms is sent 200 ms after its first sample; the first is acknowledged 1.1 s after that."""
    now_s, sent, acknowledged = [0.0], [], []

    class Producer:
        def __init__(self, **_):
            pass

        def send(self, _topic, value, key, headers, timestamp_ms):
            sent.append((now_s[0], key, len(value), dict(headers)["seq"], timestamp_ms))
            return SimpleNamespace(add_callback=acknowledged.append)

        def flush(self):
            now_s[0] += 0.3
            for told in acknowledged:
                told(None)

        def close(self):
            pass

    monkeypatch.setattr(sender, "KafkaProducer", Producer)
    monkeypatch.setattr(sender.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(sender.time, "time", lambda: 1_000.0)
    monkeypatch.setattr(sender.time, "sleep", lambda s: now_s.__setitem__(0, now_s[0] + s))
    assert sender.send(Load(200, "customer", 1, 1), bytes(20_000 * 2), Settings(), "x") == pytest.approx(1_100)
    assert [key for _, key, *_ in sent] == [b"call-0-x"] * 5
    assert [round(at_s, 3) for at_s, *_ in sent] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [timestamp_ms for *_, timestamp_ms in sent] == [1_000_000 + 200 * n for n in range(5)]


def test_without_the_example_calls_nothing_can_be_sent(monkeypatch, tmp_path):
    """The error says where to run it."""
    assert len(sender.voices()) > 2 * 8_000 * 60
    monkeypatch.setattr(sender, "_EXAMPLES", tmp_path)
    with pytest.raises(ConfigurationError, match="run this in the repository"):
        sender.voices()


def test_each_call_is_ended_after_its_last_record(monkeypatch):
    """The record has the call's key, the event `end`, the next number, and no audio."""
    sent = []

    class Producer:
        def __init__(self, **_):
            pass

        def send(self, _topic, value, key, headers):
            sent.append((key, value, dict(headers)["event"], dict(headers)["seq"]))

        def flush(self):
            pass

        close = flush

    monkeypatch.setattr(sender, "KafkaProducer", Producer)
    sender.end(Load(200, "customer", 2, 3), Settings(), "x")
    assert sent == [(b"call-0-x", b"", b"end", b"15"), (b"call-1-x", b"", b"end", b"15")]
