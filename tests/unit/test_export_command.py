"""`callmood export`: which calls are of a day, and what the topics of Kafka say of them."""

import json
from types import SimpleNamespace

import pytest

from callmood.schemas.call import CALL_SCHEMA
from callmood.schemas.utterance import UTTERANCE_SCHEMA
from callmood.worker.commands import export
from callmood.worker.settings import Settings

DAY = export.Day(1_000, 2_000)
HOUR_MS = 3_600_000


@pytest.mark.parametrize(("at_ms", "is_of"), [(999, False), (1_000, True), (1_999, True), (2_000, False)])
@pytest.mark.parametrize("status", ["completed", "failed", "live"])
def test_a_day_has_the_calls_that_started_on_it_and_have_ended(at_ms, is_of, status):
    """The first moment of the next day is not of it."""
    assert DAY.has({"started_at_ms": at_ms, "status": status}) is (is_of and status != "live")


def call(name, status="completed", started_at_ms=1_500, **more):
    """A record of the topic of calls."""
    fields = {"schema": CALL_SCHEMA, "call_id": name, "status": status, "started_at_ms": started_at_ms}
    return SimpleNamespace(key=name.encode(), value=json.dumps(fields | more).encode())


def said(name, schema=UTTERANCE_SCHEMA):
    """A record of the topic of utterances."""
    return SimpleNamespace(key=name.encode(), value=json.dumps({"schema": schema, "call_id": name}).encode())


def test_the_newest_record_of_a_call_counts(monkeypatch):
    """A call that was erased, goes on or is of another day is left out, and what is not ours is counted."""
    erased = SimpleNamespace(key=b"erased", value=None)
    foreign = SimpleNamespace(key=b"foreign", value=b"\xff")
    calls = [
        call("over", "live"), call("over", version=1), call("over", version=2), call("erased"), erased,
        call("open"), call("open", "live"), call("other", started_at_ms=2_000), foreign,
    ]  # fmt: skip
    utterances = [said(name) for name in ("over", "erased", "open", "over")] + [said("over", "x/1")]
    asked = []

    def records(_, topic, from_ms, to_ms):
        asked.append((topic, from_ms, to_ms))
        return iter(calls if topic.endswith("calls") else utterances)

    monkeypatch.setattr(export, "_records", records)
    found = list(export._from_kafka(Settings(), DAY))
    assert [name for name, _ in found] == ["foreign", "calls", "utterances", "utterances", "foreign"]
    assert [record.get("call_id") for _, record in found] == [None, "over", "over", "over", None]
    assert found[1][1]["version"] == 2
    early_ms, late_ms = 1_000 - 12 * HOUR_MS, 2_000 + 24 * HOUR_MS
    assert asked == [("callmood.calls", early_ms, None), ("callmood.utterances", early_ms, late_ms)]
