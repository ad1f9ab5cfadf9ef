"""`callmood export`: which calls are of a day, and what the topics of Kafka say of them."""

import json
from types import SimpleNamespace

import pytest

from callmood.schemas.call import CALL_SCHEMA
from callmood.schemas.utterance import UTTERANCE_SCHEMA
from callmood.worker.commands import export
from callmood.worker.errors import KafkaUnavailable
from callmood.worker.settings import KafkaSettings, Settings

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


class _Topic:
    """A client of a topic whose records have these timestamps; it gives one record of each partition a poll.

    Args:
        stamps: of each partition.
        empty: polls without a record before each that has some.
        open_from: the first offset that an open transaction holds back.
    """

    def __init__(self, stamps, empty=0, open_from=99):
        self.stamps, self.at, self.polls = stamps, {}, 0
        self._empty, self._open_from = empty, open_from

    def partitions_for_topic(self, _topic):
        return set(self.stamps)

    def end_offsets(self, sources):
        return {source: len(self.stamps[source.partition]) for source in sources}

    def assign(self, _sources):
        pass

    def seek(self, source, offset):
        self.at[source] = offset

    def position(self, source):
        return self.at[source]

    def offsets_for_times(self, wanted):
        assert min(wanted.values()) >= 0
        found = {}
        for source, at_ms in wanted.items():
            later = [offset for offset, stamp in enumerate(self.stamps[source.partition]) if stamp >= at_ms]
            found[source] = SimpleNamespace(offset=later[0]) if later else None
        return found

    def poll(self, timeout_ms):
        assert timeout_ms
        self.polls += 1
        if self.polls % (self._empty + 1):
            return {}
        polled = {}
        for source, at in self.at.items():
            if at < min(len(self.stamps[source.partition]), self._open_from):
                polled[source] = [SimpleNamespace(offset=at, stamp=self.stamps[source.partition][at])]
                self.at[source] += 1
        return polled

    def close(self):
        pass


def read(monkeypatch, topic, from_ms, to_ms):
    """The timestamps of the records between two times."""
    monkeypatch.setattr(export, "KafkaConsumer", lambda **_: topic)
    return sorted(record.stamp for record in export._records(KafkaSettings(), "calls", from_ms, to_ms))


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "stamps"),
    [
        (-5, None, [10, 11, 20, 30, 31]),
        (11, None, [11, 20, 30, 31]),
        (11, 30, [11, 20]),
        (11, 31, [11, 20, 30]),
        (31, 99, [31]),
        (99, None, []),
        (0, 5, []),
    ],
)
def test_the_records_between_two_times_are_read(monkeypatch, from_ms, to_ms, stamps):
    """Of all partitions, from the first time on and up to the second; a partition may have none."""
    assert read(monkeypatch, _Topic({0: [10, 20, 30], 1: [11, 31], 2: []}), from_ms, to_ms) == stamps


def test_a_topic_that_comes_slowly_is_read_to_its_end(monkeypatch):
    """Only ten seconds without any record are the end of patience."""
    assert read(monkeypatch, _Topic({0: [1, 2, 3]}, empty=20), 0, None) == [1, 2, 3]
    with pytest.raises(KafkaUnavailable, match="calls cannot be read to its end: a transaction may be open"):
        read(monkeypatch, _Topic({0: [1, 2, 3]}, open_from=2), 0, None)
