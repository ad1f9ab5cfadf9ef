"""`callmood export`: which calls are of a day, and what the topics of Kafka say of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from callmood import schemas
from callmood.schemas.call import CALL_SCHEMA
from callmood.schemas.utterance import UTTERANCE_SCHEMA
from callmood.worker.commands import export
from callmood.worker.errors import KafkaUnavailable
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings

DAY = export.Day(1_000, 2_000)
HOUR_MS = 3_600_000
EXAMPLES = Path(schemas.__file__).parent / "examples"
CALL, UTTERANCE = (
    json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("call/valid/completed", "utterance/valid/labelled")
)


@pytest.mark.parametrize(("at_ms", "is_of"), [(999, False), (1_000, True), (1_999, True), (2_000, False)])
@pytest.mark.parametrize("status", ["completed", "failed", "live"])
def test_a_day_has_the_calls_that_started_on_it_and_have_ended(at_ms, is_of, status):
    """The first moment of the next day is not of it."""
    assert DAY.has({"started_at_ms": at_ms, "status": status}) is (is_of and status != "live")


def record(name, value, at_ms=5_000):
    """A record of a topic, and the time of its commit."""
    packed = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return SimpleNamespace(key=name.encode(), value=packed, timestamp=at_ms)


def call(name, status="completed", started_at_ms=1_500, at_ms=5_000, **more):
    """A record of the topic of calls."""
    end = {"end_reason": None} if status == "live" else {}
    return record(name, CALL | {"call_id": name, "status": status, "started_at_ms": started_at_ms} | end | more, at_ms)


def said(name, number, **more):
    """A record of the topic of utterances."""
    return record(name, UTTERANCE | {"call_id": name, "number": number} | more)


@pytest.fixture
def exported(monkeypatch):
    """`exported(calls, utterances)`: what is exported of these records, and which times of the topics were read."""

    def run(calls, utterances):
        asked = []

        def records(_, topic, from_ms, to_ms):
            asked.append((topic, from_ms, to_ms))
            return iter(calls if topic.endswith("calls") else utterances)

        monkeypatch.setattr(export, "_records", records)
        return list(export._from_kafka(Settings(), DAY)), asked

    return run


def test_the_newest_record_of_a_call_counts(exported):
    """A call that was erased, goes on or is of another day is left out."""
    calls = [
        call("over", "live"), call("over", version=1), call("over", version=2), call("erased"), record("erased", None),
        call("open"), call("open", "live"), call("other", started_at_ms=2_000),
    ]  # fmt: skip
    utterances = [said("over", 1), said("erased", 1), said("open", 1), said("over", 2)]
    found, _ = exported(calls, utterances)
    assert [(name, one["call_id"]) for name, one in found] == [("calls", "over")] + [("utterances", "over")] * 2
    assert found[0][1]["version"] == 2


NOT_OURS = [b"\xff", b"", b"[" * 100_000, b"[]", b"{}", {"schema": "x/1"}]


@pytest.mark.parametrize("value", [*NOT_OURS, {"schema": CALL_SCHEMA}, CALL | {"started_at_ms": "1500"}])
def test_a_call_that_no_worker_wrote_is_counted(exported, value):
    """It ends no export, whatever is wrong with it."""
    found, _ = exported([record("odd", value), call("over")], [])
    assert [name for name, _ in found] == ["foreign", "calls"]


@pytest.mark.parametrize("value", [*NOT_OURS, {"schema": UTTERANCE_SCHEMA}, UTTERANCE | {"number": "1"}])
def test_an_utterance_that_no_worker_wrote_is_counted(exported, value):
    """Only if it has the id of an exported call."""
    found, _ = exported([call("over")], [record("over", value), record("other", value), said("over", 1)])
    assert [name for name, _ in found] == ["calls", "foreign", "utterances"]


def test_an_utterance_that_is_delivered_twice_is_exported_once(exported):
    """A copy of the topic may repeat some of them."""
    found, _ = exported([call("over")], [said("over", number) for number in (1, 2, 3, 2, 3, 4)])
    assert [one["number"] for name, one in found if name == "utterances"] == [1, 2, 3, 4]


def test_the_utterances_of_an_earlier_call_with_the_same_id_are_left_out(exported, monkeypatch):
    """Those of the later call count from 1 again, and all of them are exported."""
    monkeypatch.setattr(export, "_BEFORE_MS", 100)
    earlier = [said("over", number, spoken_at_ms=1_300) for number in (1, 2, 3)]
    found, _ = exported([call("over")], [*earlier, *(said("over", number, spoken_at_ms=1_500) for number in (1, 2))])
    spoken = [(one["number"], one["spoken_at_ms"]) for name, one in found if name == "utterances"]
    assert spoken == [(1, 1_500), (2, 1_500)]


def test_utterances_are_read_as_far_as_the_last_call_of_the_day_reaches(exported):
    """A call that workers analysed two days later, after a backlog, has its utterances."""
    late_ms = DAY.to_ms + 48 * HOUR_MS
    _, asked = exported([call("late", at_ms=late_ms), call("over")], [])
    from_ms = DAY.from_ms - 12 * HOUR_MS
    assert asked == [("callmood.calls", from_ms, None), ("callmood.utterances", from_ms, late_ms + 12 * HOUR_MS)]


class _Topic:
    """A client of a topic whose records have these timestamps; it gives two records of each partition a poll.

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
            stamps = self.stamps[source.partition][: self._open_from]
            polled[source] = [SimpleNamespace(offset=n, stamp=stamp) for n, stamp in enumerate(stamps)][at : at + 2]
            self.at[source] += len(polled[source])
        return {source: records for source, records in polled.items() if records}

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
