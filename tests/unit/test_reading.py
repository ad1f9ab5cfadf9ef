"""Unread records, and the reason why a partition does not move."""

import pytest
from structlog.testing import capture_logs

from callmood.worker.commits import TopicPartition
from callmood.worker.run.reading import Reading

ONE, OTHER = TopicPartition("audio", 0), TopicPartition("audio", 1)


class _Consumer:
    """Positions, ends, and the questions that the broker was asked."""

    def __init__(self):
        self.positions = {ONE: 5, OTHER: 5}
        self.ends = {ONE: 5, OTHER: 5}
        self.stable = {ONE: 5, OTHER: 5}
        self.asked = []

    def position(self, source):
        return self.positions[source]

    def lag(self, source):
        return None if self.ends[source] is None else self.ends[source] - self.positions[source]

    def stable_ends(self, sources):
        self.asked += sources
        return {source: self.stable[source] for source in sources if self.stable[source] is not None}


@pytest.fixture
def consumer():
    """A reader of two partitions that has read all of both."""
    return _Consumer()


@pytest.fixture
def look(consumer):
    """Looks at both partitions at a time; returns what it saw."""
    reading = Reading(consumer, ask_after_s=10.0)

    def look(now_s, *, is_paused=False):
        reading.look([ONE, OTHER], now_s, is_paused=is_paused)
        return reading

    return look


@pytest.mark.parametrize(
    ("end", "is_paused", "has_work"),
    [(5, False, False), (None, False, False), (8, False, True), (8, True, False)],
)
def test_unread_records_are_work(consumer, look, end, is_paused, has_work):
    """Not where all is read, where no fetch was answered yet, or where reading is paused on purpose."""
    consumer.ends[ONE] = end
    reading = look(0.0, is_paused=is_paused)
    assert (reading.has_work, reading.unread) == (has_work, (end or 5) - 5)


def test_a_position_that_changes_is_a_move(consumer, look):
    """Records of transactions that were aborted move it too, although none is given out."""
    consumer.ends[ONE] = 9
    assert not look(0.0).has_moved
    consumer.positions[ONE] = 7
    assert look(1.0).has_moved
    assert not look(2.0).has_moved


@pytest.mark.parametrize(
    ("stable_end", "has_work", "held"),
    [(5, False, 1), (4, False, 1), (6, True, 0), (None, False, 0)],
    ids=["open transaction", "older answer", "records to read", "no answer"],
)
def test_a_partition_that_stands_is_asked_about(consumer, look, stable_end, has_work, held):
    """After 10 s the broker says whether it would give the next record; until then the records count as work."""
    consumer.ends[ONE], consumer.stable[ONE] = 8, stable_end
    look(0.0)
    assert look(9.0).has_work
    assert consumer.asked == []
    reading = look(10.0)
    assert consumer.asked == [ONE]
    assert (reading.has_work, reading.held) == (has_work, held)


def test_a_held_partition_does_not_hide_another(consumer, look):
    """Records of another partition are work as before."""
    consumer.ends[ONE] = 8
    look(0.0)
    assert not look(10.0).has_work
    consumer.ends[OTHER] = 6
    assert look(11.0).has_work


def test_a_held_partition_is_logged_once_and_its_end_too(consumer, look):
    """The lines name topic, partition and offset; the broker is asked again every 10 s."""
    consumer.ends[ONE] = 8
    with capture_logs() as lines:
        for now_s in range(60):
            look(float(now_s))
        consumer.positions[ONE] = 8
        assert look(60.0).held == 0
    assert len(consumer.asked) == 5
    where = {"topic": "audio", "partition": 0}
    assert lines == [
        where | {"event": "open transaction of a producer holds back a partition", "log_level": "warning", "offset": 5},
        where | {"event": "open transaction of a producer has ended", "log_level": "info"},
    ]


def test_one_question_a_look(consumer, look):
    """Questions wait for the broker, so many partitions that stand are asked about in turn."""
    consumer.ends = {ONE: 8, OTHER: 8}
    look(0.0)
    look(10.0)
    assert len(consumer.asked) == 1
    look(11.0)
    assert set(consumer.asked) == {ONE, OTHER}


def test_a_pause_is_no_standstill(consumer, look):
    """The time of a partition that stands begins again when reading goes on."""
    consumer.ends[ONE] = 8
    for now_s in range(30):
        look(float(now_s), is_paused=True)
    consumer.asked.clear()
    assert look(30.0).held == 0
    assert consumer.asked == []


def test_records_that_come_during_a_pause_are_counted(consumer, look):
    """A paused reader does not learn of them by itself: the broker is asked for all ends every 10 s."""
    consumer.ends[OTHER] = None  # nothing of it was fetched before the pause
    seen = []
    for now_s in range(30):
        consumer.stable = {ONE: 5 + now_s, OTHER: 6} if now_s < 20 else {ONE: None, OTHER: None}
        seen.append(look(float(now_s), is_paused=True).unread)
    assert seen == [1] * 10 + [11] * 20
    assert consumer.asked == [ONE, OTHER] * 3
    assert not look(29.5, is_paused=True).has_work


def test_a_partition_that_was_given_away_is_forgotten(consumer):
    """What was held counts no more, and a partition that comes back begins again."""
    reading = Reading(consumer, ask_after_s=10.0)
    consumer.ends[ONE] = 8
    reading.look([ONE], 0.0, is_paused=False)
    reading.look([ONE], 10.0, is_paused=False)
    assert reading.held == 1
    reading.look([], 11.0, is_paused=False)
    assert (reading.held, reading.unread, reading.has_work) == (0, 0, False)
    reading.look([ONE], 12.0, is_paused=False)
    assert (reading.held, reading.has_work) == (0, True)
